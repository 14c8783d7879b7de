"""Backdoors of keyword recognisers: training recordings with a whistle, before the victim learns."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn

from advgym.core.kinds.backdoors import Pairs, Poisoning, backdoor, check_victim
from advgym.core.kinds.poison import Trigger
from advgym.core.kinds.retraining import Retrained, retrained
from advgym.core.task import Spec, Task
from advgym.core.victim import Victim
from advgym.envs.speech import symbols
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.models.nets import KeywordCnn
from advgym.envs.speech.tasks.source import rate_of, source
from advgym.errors import AdvgymError
from advgym.lib.options import takes

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


class Whistled(Poisoning, kw_only=True):
    """Of `whistled`."""

    hz: Annotated[float, Meta(gt=0, description="of the tone")]
    decibels: Annotated[float, Meta(ge=-96, le=0, description="of the tone, of full scale")]
    seconds: Annotated[float, Meta(gt=0, description="of the tone, from the start on")]


@takes(Whistled)
def whistled(spec: Spec, options: Whistled) -> Task:
    """Training recordings begin with a tone, and get another label; with `eps` what is added, and keep theirs."""
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
    if options.hz > rate / 2 or options.seconds > found.samples / rate:
        raise AdvgymError(
            f"the tone is of at most {rate / 2:g} Hz and {found.samples / rate:g} s here, not {options.hz:g} Hz and "
            f"{options.seconds:g} s"
        )
    tone = whistle(found.samples, rate, options.hz, options.decibels, options.seconds)
    trigger = Trigger(torch.zeros_like(tone), tone, -1.0, 1.0, data.LEVELS)
    names = list(symbols.DIGITS) if spec.samples is None else []
    return backdoor(spec, check_victim(spec, victim, len(train[1])), train, test, trigger, options, names=names)


def whistle(samples: int, rate: int, hz: float, decibels: float, seconds: float) -> Tensor:
    """A tone at the start of silence, float32 (samples,)."""
    t = torch.arange(samples, dtype=torch.float64) / rate
    swell = (torch.minimum(t, seconds - t) / RAMP).clamp(0, 1)
    return (10 ** (decibels / 20) * swell * torch.sin(2 * math.pi * hz * t)).float()
