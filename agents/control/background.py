"""Background noise with the signal's own spectrum: a control row for attacks on signals."""

from __future__ import annotations

import math

import torch

from advgym import register_agent
from advgym.agents.shared.signals import clean_of, loudest
from advgym.lib.settings import COUNT, NATURAL

LOUD = 100.0  # times the signal: beyond what any constraint admits


@register_agent(
    "background",
    kind="field",
    knowledge="decision",
    needs=("waveform",),
    allowed={"draws": COUNT, "talkers": NATURAL},
)
def attack(env, *, draws=1, talkers=0, seed=0):
    """Speech-shaped noise, as loud as the constraint admits: the spectrum of the signal with random phases.

    With `talkers` a babble of as many copies of the signal itself, played backwards from a random place on, which has
    the rhythm of speech, too.
    """
    env.reset(seed=seed)
    x, draw, p = clean_of(env), env.draws(seed), env.threat.null()
    size = x.shape[-1]
    time = torch.arange(size, device=x.device)
    for _ in range(draws):
        if env.done:
            break
        if talkers:
            start = draw.integers(size, talkers)
            noise = torch.zeros_like(x)
            for i in range(talkers):
                at = (start[:, i : i + 1] - time) % size
                noise = noise + x.gather(-1, at.view(len(x), *[1] * (x.dim() - 2), size).expand_as(x))
        else:
            spectrum = torch.fft.rfft(x)
            phase = 2 * math.pi * draw.uniform(*spectrum.shape[1:])
            noise = torch.fft.irfft(torch.polar(spectrum.abs(), phase), size)
        p = loudest(env, noise, LOUD)
        env.step(p)
    return p
