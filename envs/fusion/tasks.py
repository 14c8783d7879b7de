"""One label, two channels, an attack on one of them or on both, with a budget for each."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from msgspec import Meta

from advgym.core.goals import ClassGoal
from advgym.core.kinds.parts import Part, PartsBatch
from advgym.core.task import Spec, Task
from advgym.envs.fusion import data
from advgym.errors import AdvgymError
from advgym.lib.given import check_radius
from advgym.lib.options import Options, takes


class Channels(Options):
    """Of `pair`: a radius for each channel that two tasks may have, under its name."""

    attacked: Annotated[str, Meta(description="'both', or the one channel that the attacker has")]
    image: Annotated[float, Meta(gt=0, description="radius in L-infinity, in pixel units")]
    speech: Annotated[float, Meta(gt=0, description="radius in L-infinity, of full scale")]


@takes(Channels)
def pair(spec: Spec, options: Channels) -> Task:
    """Two channels with one label, from the two tasks that the row names in `parts`."""
    parts: tuple[str, str] = tuple(spec.row["parts"])  # type: ignore[assignment]
    first = data.load(parts, "test")
    known = [c.name for c in first.channels]
    attacked = options.attacked
    if attacked not in ("both", *known):
        raise AdvgymError(f"attacked is 'both', {known[0]!r} or {known[1]!r}, not {attacked!r}")
    open_ = known if attacked == "both" else [attacked]
    made = []
    for c in first.channels:
        radius = float(getattr(options, c.name))
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
