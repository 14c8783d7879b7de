"""Kenansville attacks: parts of the sound itself are attenuated, cell by cell of a band x time grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from advgym.core.task import Spec, Task
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.perturb.bands import BandBatch
from advgym.envs.speech.tasks.source import source, task_of
from advgym.envs.speech.tasks.transcripts import ids_of, recogniser
from advgym.errors import AdvgymError


def attenuate(spec: Spec) -> Task:
    """Transcripts of clips some of whose cells are quieter.

    Options: `cells`, the most that may be edited; `snr`, the least ratio in dB of the clip to what is taken away (0: no
    bound beyond the clip itself); `decibels`, the choices of a cell; `bands` and `blocks` (of 32 ms), its size.
    """
    options = _checked(spec.threat.constraint)
    found = source(spec, data.utterances, data.line_sizes, data.LINE_SAMPLES, transcripts=True, bounded=False)
    victim, goal = recogniser(spec, found, spec.load_victim())

    def make(
        ids: Tensor, labels: Tensor, x: Tensor, length: Tensor, constraint: Mapping[str, Any], rate: int
    ) -> BandBatch:
        return BandBatch(ids, labels, x, length, rate=rate, **options)

    return task_of(spec, victim, goal, found, lambda clips: ids_of(clips.texts, goal), make, bounded=False)


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the grid, or an error that says what is allowed."""
    out: dict[str, Any] = {}
    for name, most in (("cells", 4096), ("bands", 64), ("blocks", 64)):
        value = given[name]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise AdvgymError(f"{name}={value!r} is a whole number from 1 to {most}")
        out[name] = value
    levels = given["decibels"]
    fine = isinstance(levels, list | tuple) and bool(levels) and all(_above(v) for v in levels)
    if not fine or len(set(levels)) != len(levels):
        raise AdvgymError(
            f"decibels={levels!r} lists what a choice takes away, each above 0 and once, as in [6, 24, inf]"
        )
    snr = given["snr"]
    if isinstance(snr, bool) or not isinstance(snr, int | float) or not 0 <= snr < math.inf:
        raise AdvgymError(f"snr={snr!r} is a number of dB from 0 on")
    return {**out, "decibels": tuple(map(float, levels)), "snr": float(snr)}


def _above(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
