"""Tones: a random search over windows of tones, whose frequencies, places and lengths are learnt (our own)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose, clean_fitness, fitness
from advgym.agents.shared.once import wide
from advgym.lib.settings import COUNT, SHARE, Range

PLACES, LENGTHS, MODES = 12, 6, 3


@register_agent(
    "tones",
    kind="field",
    knowledge="score",
    needs=("waveform",),
    allowed={"bands": COUNT, "longest": Range(0, 1, above=True), "explore": SHARE, "lowest": Range(0.001, 0.4)},
)
def attack(env, *, bands=16, longest=0.5, explore=0.3, lowest=0.01, seed=0):
    """Square's search (Andriushchenko et al. 2020) with a tone in place of a constant, and arms that learn.

    A recogniser reads energy in time and frequency, so a step that changes one patch of both tells more than one that
    changes a stretch of samples. A step takes a window, fills it with a sine at the surface of the ball (in place of
    what is held there, on top of it, or taking it away), and is kept when the score rises. Its band, place, length and
    kind are arms: each is drawn by the share of its own steps that were kept so far in this lane (probability matching
    on a Beta posterior's mean), mixed with a uniform draw.

    Args:
        bands: of frequency, equal on a logarithmic scale from `lowest` cycles per sample to 1/2.
        longest: the longest window, as a share of the signal; others are halves of it, five times over.
        explore: the share of steps whose arms are drawn at random.
    """
    obs, _ = env.reset(seed=seed)
    draws, size, reach = env.draws(seed), env.shape[-1], env.threat.reach
    arms = [Arms(len(reach), count, reach.device) for count in (bands, PLACES, LENGTHS, MODES)]
    time = torch.arange(size, device=reach.device)
    best, held = clean_fitness(obs), env.threat.null()
    while not env.done:
        u = draws.uniform(12)
        picks = [arm.pick(u[:, 2 * i], u[:, 2 * i + 1], explore) for i, arm in enumerate(arms)]
        band, place, length, mode = picks
        width = (longest * size * 0.5 ** length.float()).clamp_min(2)
        centre = (place + u[:, 8]) / PLACES * size
        f = lowest * (0.5 / lowest) ** ((band + u[:, 9]) / bands)
        x = (time - centre.unsqueeze(1)) / width.unsqueeze(1)
        inside = x.abs() < 0.5
        wave = torch.sin(2 * math.pi * (f.unsqueeze(1) * time + u[:, 10].unsqueeze(1))) * reach.unsqueeze(1)
        rows = held.reshape(len(held), -1, size)
        fresh = torch.where(
            (mode == 0).view(-1, 1),
            wave.sign() * reach.unsqueeze(1),
            torch.where((mode == 1).view(-1, 1), wave, 2 * wave),
        )
        base = torch.where((mode == 0).view(-1, 1), 0.0, 1.0).unsqueeze(2) * rows
        trial = torch.where(inside.unsqueeze(1), base + fresh.unsqueeze(1), rows)
        trial = env.threat.project(trial.reshape(held.shape))
        obs, *_ = env.step(trial)
        value = fitness(obs)
        better = value > best
        for arm, pick in zip(arms, picks, strict=True):
            arm.tell(pick, better, env.live)
        best, held = torch.where(better, value, best), choose(better, trial, held)
    return held


class Arms:
    """Steps tried and kept of each arm and lane, (lanes, arms)."""

    def __init__(self, lanes: int, count: int, device: torch.device) -> None:
        self.tried, self.kept = torch.full((lanes, count), 8.0, device=device), torch.ones(lanes, count, device=device)

    def pick(self, u: Tensor, v: Tensor, explore: float) -> Tensor:
        """An arm for each lane by two uniform numbers."""
        rate = self.kept / self.tried
        p = explore / rate.shape[1] + (1 - explore) * rate / rate.sum(1, keepdim=True)
        return torch.searchsorted(p.cumsum(1), u.unsqueeze(1).contiguous()).squeeze(1).clamp_max(rate.shape[1] - 1)

    def tell(self, arm: Tensor, kept: Tensor, live: Tensor) -> None:
        """Enter one step of each lane."""
        self.tried.scatter_add_(1, arm.unsqueeze(1), torch.ones_like(self.tried[:, :1]))
        self.kept.scatter_add_(1, arm.unsqueeze(1), kept.float().unsqueeze(1))
