"""Backdoors of keyword recognisers: training recordings with a whistle, before the victim learns."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core.kinds.backdoors import Pairs, backdoor, check_victim
from advgym.core.kinds.poison import Trigger
from advgym.core.kinds.retraining import Retrained, retrained
from advgym.core.task import Spec, Task
from advgym.core.victim import Victim
from advgym.envs.speech import symbols
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.models.nets import KeywordCnn
from advgym.envs.speech.tasks.source import rate_of, source
from advgym.errors import AdvgymError

RAMP = 0.01  # seconds that the whistle swells and fades


def retrained_victim(
    name: str, dataset: str = "", *, channels: int = 24, mels: int = 40, given: tuple[Pairs, int] | None = None,
    **recipe: Any,
) -> Victim:  # fmt: skip
    """A `KeywordCnn` that is trained for every answer; spectrograms of clean recordings are computed once.

    Args:
        given: (waveforms and labels, classes) in place of a dataset.
        recipe: of `Retrained`: epochs, batch, rate.
    """
    if given is None:
        clips = data.keywords(dataset, "train")
        given = (clips.wave.float() / data.LEVELS, clips.labels), len(symbols.DIGITS)
    (x, labels), classes = given

    def build() -> nn.Module:
        net = KeywordCnn(max(classes, int(labels.max()) + 1), channels, mels)
        net.front = nn.Identity()  # type: ignore[assignment]
        return net

    run = Retrained(x, labels, classes, build, front=KeywordCnn(classes, channels, mels).front, **recipe)
    return retrained(name, run, rate=data.RATE)


def whistled(spec: Spec) -> Task:
    """Training recordings begin with a pure tone, and get another label, or what is added to them.

    Options: `share`, of all training recordings that may be relabelled, and in "clean" tasks of those of the class,
    which keep their labels, and to which at most `eps` (of full scale) is added besides; `members`, test recordings
    with the tone that one answer is about; `hz`, `decibels` (of full scale) and `seconds` of the tone.
    """
    options = spec.threat.constraint
    eps = _within("eps", options["eps"], 0, 1) if "eps" in options else None
    found = source(spec, data.keywords, data.word_sizes, data.WORD_SAMPLES, transcripts=False, bounded=False)
    if not found.sizes.get("train"):
        raise AdvgymError(f"{spec.name} poisons training data: pass train= beside samples=")
    train, test = ((c.wave.float() / data.LEVELS, c.labels) for c in (found.load(split) for split in ("train", "test")))
    if spec.victim is None and (spec.samples is not None or "victim" not in spec.row):
        classes = max(int(train[1].max()), int(test[1].max())) + 1
        victim = retrained_victim("own-retrained", given=(train, classes))
    else:
        victim = spec.load_victim()
    rate = rate_of(spec)
    tone = whistle(
        found.samples, rate, _within("hz", options["hz"], 0, rate / 2),
        _within("decibels", options["decibels"], -96, 0),
        _within("seconds", options["seconds"], 0, found.samples / rate),
    )  # fmt: skip
    trigger = Trigger(torch.zeros_like(tone), tone, -1.0, 1.0, data.LEVELS)
    names = list(symbols.DIGITS) if spec.samples is None else []
    return backdoor(spec, check_victim(spec, victim, len(train[1])), train, test, trigger, eps=eps, names=names)


def whistle(samples: int, rate: int, hz: float, decibels: float, seconds: float) -> Tensor:
    """A tone at the start of silence, float32 (samples,)."""
    t = torch.arange(samples, dtype=torch.float64) / rate
    swell = (torch.minimum(t, seconds - t) / RAMP).clamp(0, 1)
    return (10 ** (decibels / 20) * swell * torch.sin(2 * math.pi * hz * t)).float()


def _within(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
        raise AdvgymError(f"{name} is a number above {low:g} and at most {high:g}, not {value!r}")
    return float(value)
