"""How many inputs a run asks its victim about, bounded before anything is asked (`advgym.core.tally` counts them)."""

from __future__ import annotations

from typing import Any

from advgym.core.clean import CHUNK
from advgym.core.keyed import CONFIRMING
from advgym.core.task import Task
from advgym.judge.blind import INPUTS
from advgym.judge.flags import ALONE, MOST


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
    victim, many, threat = task.victim, len(ids), task.threat
    first = (task.sizes[split] if clean is None else len(clean)) * members
    draws, confirming = victim.draws, (CONFIRMING if victim.keyed else 0) * inside(victim)
    told = threat.knowledge == "transfer" and task.surrogate is not None  # answers come from the surrogate
    draws *= inside(victim)
    attack = 0 if told else threat.queries * (draws + (0 if victim.retrains else confirming))
    verdict = members * max(confirming, inside(victim))
    flags = min(CHUNK * members, first) + ALONE + 2 * members * INPUTS
    if threat.knowledge == "white-box":
        flags += MOST * (attack + verdict)
    return {
        "clean": first * draws, "attack": many * attack, "verdict": many * verdict, "control": many * verdict,
        "flags": flags * draws,
    }  # fmt: skip
