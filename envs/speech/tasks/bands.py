"""Kenansville attacks: parts of the sound itself are attenuated, cell by cell of a band x time grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta
from torch import Tensor

from advgym.core.task import Spec, Task
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.perturb.bands import BandBatch
from advgym.envs.speech.tasks.source import source, task_of
from advgym.envs.speech.tasks.transcripts import Written, ids_of, recogniser
from advgym.errors import AdvgymError
from advgym.lib.options import takes

CHOICES = "what a choice takes away, each above 0 and once, as in [6, 24, inf]"


class Cells(Written, kw_only=True):
    """Of `attenuate`."""

    cells: Annotated[int, Meta(ge=1, le=4096, description="the most that may be edited")]
    snr: Annotated[float, Meta(ge=0, description="least dB of the clip to what is taken away; 0: the clip itself")]
    decibels: Annotated[Any, Meta(description=CHOICES)]
    bands: Annotated[int, Meta(ge=1, le=64, description="cells of the spectrum")]
    blocks: Annotated[int, Meta(ge=1, le=64, description="the length of a cell, in 32 ms")]


@takes(Cells)
def attenuate(spec: Spec, options: Cells) -> Task:
    """Transcripts of clips some of whose cells are quieter."""
    grid: dict[str, Any] = {name: getattr(options, name) for name in ("cells", "snr", "bands", "blocks")}
    grid["decibels"] = _decibels(options.decibels)
    found = source(spec, data.utterances, data.line_sizes, data.LINE_SAMPLES, transcripts=True, bounded=False)
    victim, goal = recogniser(spec, options, found, spec.load_victim())

    def make(
        ids: Tensor, labels: Tensor, x: Tensor, length: Tensor, constraint: Mapping[str, Any], rate: int
    ) -> BandBatch:
        return BandBatch(ids, labels, x, length, rate=rate, **grid)

    return task_of(spec, victim, goal, found, lambda clips: ids_of(clips.texts, goal), make, bounded=False)


def _decibels(levels: Any) -> tuple[float, ...]:
    fine = isinstance(levels, list | tuple) and bool(levels) and all(_above(v) for v in levels)
    if not fine or len(set(levels)) != len(levels):
        raise AdvgymError(f"decibels={levels!r} lists {CHOICES}")
    return tuple(map(float, levels))


def _above(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
