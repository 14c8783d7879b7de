"""Attacks written as one blocking call per sample, played side by side: their questions meet in one forward."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from advgym.lib import foreign


class Stop(BaseException):
    """Unwinds a foreign search whose episode is over; no `except Exception` of its own holds it."""


class Lane:
    """One blocking attack in a thread of its own that runs only while the others wait.

    `body(ask)` calls `ask(questions) -> answers`; between two calls nobody else runs, so libraries that are not safe
    for threads are, and the global random states of Python, NumPy and PyTorch are this lane's own.

    Args:
        body: the attack.
        seed: of its random states.
    """

    def __init__(self, body: Callable[[Callable[[list[Any]], Any]], None], seed: int) -> None:
        self.questions: list[Any] | None = None  # what it waits for; None: it runs, or is over
        self.over = False
        self.error: Exception | None = None
        self._answer: Any = None
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._states = foreign.seeded(seed)
        self._body = body
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if self._answer is not Stop:
                self._body(self._ask)
        except Stop:
            pass
        except Exception as error:
            self.error = error
        self.over, self.questions = True, None
        self._back.release()

    def _ask(self, questions: list[Any]) -> Any:
        self.questions = questions
        self._back.release()
        self._go.acquire()
        if self._answer is Stop:
            raise Stop
        return self._answer

    def resume(self, answer: Any = None) -> None:
        """Run until the next question, or the end; `Stop` ends it."""
        if self.over:
            return
        mine, self._states = self._states, foreign.states()
        foreign.restore(mine)
        self._answer, self.questions = answer, None
        self._go.release()
        self._back.acquire()
        theirs, self._states = self._states, foreign.states()
        foreign.restore(theirs)


def play(lanes: Sequence[Lane], answer: Callable[[dict[int, list[Any]]], dict[int, Any]]) -> None:
    """Run every lane to its end.

    Args:
        lanes: started in order.
        answer: of the questions of all waiting lanes; a lane that it leaves out is stopped.
    """
    try:
        for lane in lanes:
            lane.resume()
        while asking := {i: lane.questions for i, lane in enumerate(lanes) if lane.questions is not None}:
            answers = answer(asking)
            for i in asking:
                lanes[i].resume(answers.get(i, Stop))
    finally:
        for lane in lanes:
            lane.resume(Stop)
