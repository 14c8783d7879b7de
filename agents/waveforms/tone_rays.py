"""Tone rays: a search over directions made of tones by the label alone (our own, after RayS, Chen and Gu 2020)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.common import choose
from advgym.agents.shared.once import wide
from advgym.agents.shared.signals import extent
from advgym.agents.waveforms.tones import with_tone
from advgym.lib.settings import COUNT, Range

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

    As RayS, but the trial direction differs from the best one by a random tone in a random window (see `tones`) in place
    of a flipped block of signs. Each lane asks one point a step: the trial direction at `nearer` times the best radius
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
        new = with_tone(best, span, torch.ones_like(reach), u[:, :, 0], 0.5, 6, 0.01, 0.4).clamp(-1, 1)
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


def _tones_in_turn(like: torch.Tensor, span: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """A direction of PARTS square tones one after another: u (lanes, 6, PARTS)."""
    out, one = torch.zeros_like(like), torch.ones(len(like), device=like.device)
    size = span[:, 1] - span[:, 0]
    for i in range(PARTS):
        part = torch.stack([span[:, 0] + size * i // PARTS, span[:, 0] + size * (i + 1) // PARTS], 1)
        v = torch.stack([0 * one, 0.5 * one, u[:, 2, i], u[:, 3, i], 0 * one, 0 * one], 1)
        out = with_tone(out, part, one, v, 1.0, 1, 0.01, 1.0)
    return out
