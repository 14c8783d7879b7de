"""What the evaluator's side of an attack goes by: how a request ends that is not answered, and the victim's time."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from advgym.core.goals import Goal
from advgym.core.victim import Victim
from advgym.errors import AdvgymError, Malformed


class Refused(AdvgymError):
    """The agent's wish, in order but not granted."""


class Unanswered(Exception):
    """What answering a request raised: `request` is the message, `error` the exception."""

    def __init__(self, request: Any, error: Exception) -> None:
        super().__init__(f"{type(request).__name__}: {type(error).__name__}: {error}")
        self.request, self.error = request, error


class Late(Exception):
    """The job has used the time that the board allows it."""


class Timed(Victim):
    """A victim, and the seconds that it took."""

    def __init__(self, victim: Victim) -> None:
        self.__dict__.update(victim.__dict__)
        self.seconds = 0.0

    def __call__(self, x: Any, keys: Tensor | None = None) -> Tensor:
        """See `Victim`."""
        started = time.perf_counter()
        try:
            return super().__call__(x, keys)
        finally:
            self.seconds += time.perf_counter() - started


def count(arrays: list[Tensor], want: int) -> None:
    """Refuse a message that comes with another number of arrays."""
    if len(arrays) != want:
        raise Malformed(f"this message comes with {want} arrays, not {len(arrays)}")


def public_goal(goal: Goal) -> dict[str, Any]:
    """What is public of the goal."""
    return {
        "name": goal.name, "needs_target": goal.needs_target, "scores_shape": tuple(goal.scores_shape),
        "output_shape": tuple(goal.output_shape), "outputs": goal.outputs,
    }  # fmt: skip
