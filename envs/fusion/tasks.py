"""One label, two channels, an attack on one of them or on both, with a budget for each."""

from __future__ import annotations

from typing import Any

import torch

from advgym.core.goals import ClassGoal
from advgym.core.kinds.parts import Part, PartsBatch
from advgym.core.task import Spec, Task
from advgym.envs.fusion import data
from advgym.errors import AdvgymError
from advgym.lib.given import check_radius


def pair(spec: Spec) -> Task:
    """Two channels with one label, from the two tasks that the row names in `parts`.

    Constraint:
        attacked: "both", or the name of the one channel that the attacker has.
        a radius in L-infinity for each channel, under its name, in its own units.
    """
    parts: tuple[str, str] = tuple(spec.row["parts"])  # type: ignore[assignment]
    first = data.load(parts, "test")
    known = [c.name for c in first.channels]
    attacked = spec.threat.constraint["attacked"]
    if attacked not in ("both", *known):
        raise AdvgymError(f"attacked is 'both', {known[0]!r} or {known[1]!r}, not {attacked!r}")
    open_ = known if attacked == "both" else [attacked]
    made = []
    for c in first.channels:
        radius = _number(c.name, spec.threat.constraint[c.name])
        check_radius(c.name, radius, step=1 / c.levels if c.levels else 0.0, most=c.high - c.low)
        made.append(Part(c.name, c.shape, radius if c.name in open_ else 0.0, c.low, c.high, c.levels))

    def deal(split: str, ids: list[int], device: Any = "cpu") -> PartsBatch:
        pairs, index = data.load(parts, split), torch.tensor(ids, dtype=torch.int64)
        return PartsBatch(index.to(device), pairs.labels[index].to(device), pairs.x[index].to(device), made)

    sizes = {split: data.size(parts, split) for split in ("train", "test")}
    victim = spec.load_victim()
    goal = ClassGoal(int(victim.card.get("classes", 10)), spec.threat.goal)
    return Task(
        spec.name, victim, goal, spec.threat, sizes, deal, line=line,
        context={"parts": {c.name: list(c.shape) for c in first.channels}, "attacked": attacked},
    )  # fmt: skip


def line(batch: PartsBatch, row: int, form: torch.Tensor, before: Any = None, after: Any = None) -> str:
    """What was done to each channel, in one line."""
    told = batch.words(row, form.detach())
    return told if before is None or after is None else f"{int(before)} -> {int(after)}, {told}"


def _number(name: str, value: Any) -> float:
    try:
        above, _, below = str(value).partition("/")
        found = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        found = 0.0
    if isinstance(value, bool) or not 0 < found < float("inf"):
        raise AdvgymError(f"{name} is a radius above 0, or a fraction such as 8/255, not {value!r}")
    return found
