"""How many inputs a victim is asked about: counted where the model is called, and bounded before anything is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advgym.task import Task

PHASES = ("making", "clean", "attack", "verdict", "control", "flags")


class Tally:
    """Inputs asked, by what they were asked for. Victims made from one another share it; the innermost counts."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.phase, self._calls = PHASES[0], 0

    def add(self, rows: int) -> None:
        """Count a call of the model."""
        self._calls += 1
        if rows:
            self.rows[self.phase] = self.rows.get(self.phase, 0) + rows

    @contextmanager
    def asking(self, rows: int) -> Iterator[None]:
        """Count what is asked within, unless somebody beneath does."""
        calls = self._calls
        try:
            yield
        finally:
            if self._calls == calls:
                self.add(rows)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Within it, inputs are asked for this."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def since(self, before: dict[str, int], more: dict[str, int] | None = None) -> dict[str, int]:
        """What has been asked beyond an earlier `rows`, and `more`."""
        found = {k: self.rows.get(k, 0) - before.get(k, 0) + (more or {}).get(k, 0) for k in PHASES}
        return {k: v for k, v in found.items() if v}


def inside(victim: Any) -> int:
    """Inputs that one answer takes of the innermost model: a defense may vote over draws of its own."""
    model = victim.model
    beneath = getattr(model, "victim", None)
    return int(getattr(model, "draws", 1)) * (1 if beneath is None else inside(beneath))


def at_most(task: Task, clean: list[int] | None, ids: list[int], members: int, split: str) -> dict[str, int]:
    """The most inputs that an attack asks its victim about, by what for.

    Args:
        clean: the samples of the clean pass, None for the whole split; ids: those assigned; members: inputs of each.
    """
    from advgym.blind import INPUTS
    from advgym.clean import CHUNK
    from advgym.flags import ALONE, MOST
    from advgym.keyed import CONFIRMING

    victim, many, threat = task.victim, len(ids), task.threat
    first = (task.sizes[split] if clean is None else len(clean)) * members
    draws, confirming = victim.draws, (CONFIRMING if victim.keyed else 0) * inside(victim)
    told = threat.knowledge == "transfer" and task.surrogate is not None  # answers come from the surrogate
    draws *= inside(victim)
    attack = members * draws + (0 if told else threat.queries * (draws + (0 if victim.retrains else confirming)))
    verdict = members * (draws + max(confirming, inside(victim)))
    flags = min(CHUNK * members, first) + ALONE + 2 * members * INPUTS
    if threat.knowledge == "white-box":
        flags += MOST * (attack + verdict)
    return {
        "clean": first * draws, "attack": many * attack, "verdict": many * verdict, "control": many * (verdict + draws),
        "flags": flags * draws,
    }  # fmt: skip
