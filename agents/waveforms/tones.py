"""Tones: a random search over windows of tones (our own)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose, clean_fitness, fitness
from advgym.agents.shared.once import wide
from advgym.agents.shared.signals import extent
from advgym.lib.settings import COUNT, SHARE, Range


@register_agent(
    "tones",
    kind="field",
    knowledge="score",
    needs=("waveform",),
    allowed={
        "longest": Range(0, 1, above=True), "lengths": COUNT, "lowest": Range(0.001, 0.4), "square": SHARE,
    },
)  # fmt: skip
def attack(env, *, longest=1.0, lengths=5, lowest=0.02, square=0.5, seed=0):
    """Square's search (Andriushchenko et al. 2020) with a tone in place of a constant.

    A recogniser reads energy in time and frequency, so a step that changes one patch of both tells more than one that
    changes a stretch of samples by a constant. A step fills a window, anywhere in the part of the signal that may be
    changed, with a tone of random frequency and phase at the surface of the ball: a square wave in place of what is
    held there, or a sine of twice the radius on top of it. It is kept when the score rises.

    Args:
        longest: the longest window, as a share of that part; the others are halves of it, `lengths` in all.
        lowest: frequency in cycles per sample, drawn on a logarithmic scale up to 1/2.
        square: the share of steps that take a square wave.
    """
    obs, _ = env.reset(seed=seed)
    outer, held_by_all = env, env.threat.null()
    at = torch.arange(len(held_by_all), device=held_by_all.device)
    best, held, span = clean_fitness(obs), env.threat.null(), extent(env)
    step = 0
    while not env.done:
        if int(env.live.sum()) * 2 <= len(held):  # the agent's own work is for lanes that run
            held_by_all[at] = held
            some = env.live
            env, at, best, held, span = env.view(some), at[some], best[some], held[some], span[some]
        u = env.draws(seed + 7_919 * step).uniform(6)
        trial = env.threat.project(with_tone(held, span, env.threat.reach, u, longest, lengths, lowest, square))
        obs, *_ = env.step(trial)
        value = fitness(obs)
        better = value > best
        best, held = torch.where(better, value, best), choose(better, trial, held)
        step += 1
    held_by_all[at] = held
    return held_by_all


def with_tone(held: Tensor, span: Tensor, reach: Tensor, u: Tensor, longest, lengths, lowest, square) -> Tensor:
    """`held` with a tone in a window of each lane: u (lanes, 6) are uniform numbers, span (lanes, 2) where it may be."""
    time = torch.arange(held.shape[-1], device=held.device)
    size = (span[:, 1] - span[:, 0]).float()
    width = (longest * size * 0.5 ** (u[:, 0] * lengths).floor()).clamp_min(16)
    inside = (time - (span[:, 0] + u[:, 1] * size).unsqueeze(1)).abs() < width.unsqueeze(1) / 2
    f = lowest * (0.5 / lowest) ** u[:, 2]
    tone = torch.sin(2 * math.pi * (f.unsqueeze(1) * time + u[:, 3].unsqueeze(1)))
    rows = held.reshape(len(held), -1, held.shape[-1])
    tone, inside = (tone * reach.unsqueeze(1)).unsqueeze(1), inside.unsqueeze(1)
    new = torch.where(wide(u[:, 4] < square, rows), tone.sign() * wide(reach, rows), rows + 2 * tone)
    return torch.where(inside, new, rows).view_as(held)
