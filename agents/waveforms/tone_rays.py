"""Tone rays: a search over directions made of tones by the label alone (our own, after RayS, Chen and Gu 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose
from advgym.agents.shared.once import wide
from advgym.agents.shared.signals import extent
from advgym.lib.settings import COUNT, Range

LOWEST = 0.01  # cycles per sample
PARTS = 8  # tones that a first direction is made of, one after another


@register_agent(
    "tone-rays",
    kind="field",
    knowledge="decision",
    needs=("waveform",),
    allowed={"start": Range(1, 100), "nearer": Range(0.5, 0.999), "halvings": COUNT},
)
def attack(env, *, start=8.0, nearer=0.97, halvings=3, seed=0):
    """The radius at which a direction succeeds falls while windows of it are filled with other tones.

    As RayS, but the trial direction differs from the best one by a random tone in a random window (see `tones`), not by
    a flipped block of signs. Each lane asks one point a step: the trial direction at `nearer` times the best radius
    and, where that succeeds, a bisection of `halvings` steps. Until something succeeds at `start` times the radius of
    the ball, directions of tones one after another are drawn anew.
    """
    env.reset(seed=seed)
    reach, span, held = env.threat.reach, extent(env), env.threat.null()
    best = torch.zeros_like(held)
    radius = start * reach  # at which `best` succeeds, once it is known
    known = torch.zeros_like(reach, dtype=torch.bool)
    left = torch.zeros_like(reach, dtype=torch.int64)  # halvings to go
    low, high, trial, step = torch.zeros_like(reach), radius, best, 0
    while not env.done:
        u = env.draws(seed + 7_919 * step).uniform(6, PARTS)
        new = with_tone(best, span, u[:, :, 0])
        if not bool(known.all()):
            new = choose(known, new, _tones_in_turn(held, span, u))
        trial = choose(left > 0, trial, new)
        at = torch.where(left > 0, (low + high) / 2, torch.where(known, nearer * radius, radius))
        p = trial * wide(at, trial)
        p = choose(at <= reach, env.threat.project(p), p)
        obs, *_ = env.step(p)
        hit = obs["success"] & obs["evaluated"]
        held = choose(hit & obs["valid"], p, held)
        asking = left > 0
        opens = hit & ~asking
        low = torch.where(opens, at / 2, torch.where(asking & ~hit, at, low))
        high = torch.where(hit, at, high)
        best, radius = choose(hit, trial, best), torch.where(hit, at, radius)
        known = known | hit
        left = torch.where(opens, halvings, (left - 1).clamp_min(0))
        step += 1
        if env.knowledge == "transfer" and step >= env.threat.model.queries // 2:
            break
    return held


def with_tone(rows: Tensor, span: Tensor, u: Tensor) -> Tensor:
    """Directions (lanes, *shape) with a tone in a window of each lane, in [-1, 1]; u (lanes, 6) are uniform numbers.

    The window is 1/2 to 1/64 of the span; the tone is a square wave in its place, or a sine of 1 or 2 on top.
    """
    time = torch.arange(rows.shape[-1], device=rows.device)
    size = (span[:, 1] - span[:, 0]).float()
    width = (size * 0.5 ** (1 + (u[:, 0] * 6).floor())).clamp_min(16)
    inside = (time - (span[:, 0] + u[:, 1] * size).unsqueeze(1)).abs() < width.unsqueeze(1) / 2
    tone = wide_tone(rows, u[:, 2], u[:, 3])
    on_top = rows + tone * wide(1 + (u[:, 5] > 0.5).float(), rows)
    new = torch.where(wide(u[:, 4] < 0.4, rows), tone.sign(), on_top)
    return torch.where(inside.view(len(rows), *[1] * (rows.dim() - 2), -1), new, rows).clamp(-1, 1)


def wide_tone(like: Tensor, pitch: Tensor, phase: Tensor) -> Tensor:
    """Sines along the last axis, (lanes, 1, ..., samples): pitch in [0, 1) from LOWEST to 1/2 cycle per sample."""
    time = torch.arange(like.shape[-1], device=like.device)
    f = LOWEST * (0.5 / LOWEST) ** pitch
    tone = torch.sin(2 * math.pi * (f.unsqueeze(1) * time + phase.unsqueeze(1)))
    return tone.view(len(like), *[1] * (like.dim() - 2), -1)


def _tones_in_turn(like: Tensor, span: Tensor, u: Tensor) -> Tensor:
    """A direction of PARTS square tones one after another: u (lanes, 6, PARTS)."""
    time = torch.arange(like.shape[-1], device=like.device)
    size = (span[:, 1] - span[:, 0]).clamp_min(1).unsqueeze(1)
    part = ((time - span[:, :1]) * PARTS).div(size, rounding_mode="floor").clamp(0, PARTS - 1)
    f = LOWEST * (0.5 / LOWEST) ** u[:, 2].gather(1, part)
    tone = torch.sin(2 * math.pi * (f * time + u[:, 3].gather(1, part))).sign()
    return tone.view(len(like), *[1] * (like.dim() - 2), -1).expand_as(like)
