"""Reverberation: a control row for attacks on signals."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.signals import clean_of, convolved, loudest
from advgym.lib.settings import COUNT, Range


@register_agent(
    "reverb",
    kind="field",
    knowledge="decision",
    needs=("waveform",),
    allowed={"draws": COUNT, "decay": Range(8, 1e6), "wet": Range(0, 10, above=True)},
)
def attack(env, *, draws=1, decay=2400.0, wet=0.5, seed=0):
    """The signal in a room that is drawn, as loud as the constraint admits: what no attack needs scores for.

    The room is Polack's (1988): Gaussian noise under an exponential decay, of energy `wet`^2 of the direct sound.

    Args:
        decay: samples in which the reverberation falls by 60 dB.
    """
    env.reset(seed=seed)
    x, draw, p = clean_of(env), env.draws(seed), env.threat.null()
    taps = max(2, min(int(decay), x.shape[-1]))
    envelope = 10.0 ** (-3.0 * torch.arange(taps, device=x.device) / decay)
    for _ in range(draws):
        if env.done:
            break
        tail = draw.normal(taps) * envelope
        tail[:, 0] = 0.0
        tail = tail * (wet / torch.linalg.vector_norm(tail, dim=1, keepdim=True).clamp_min(1e-12))
        p = loudest(env, convolved(x, tail))
        env.step(p)
    return p
