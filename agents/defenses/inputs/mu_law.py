"""Mu-law quantisation of a waveform (ITU-T G.711's curve; as a defense, Yang et al. 2019)."""

from __future__ import annotations

import math

import torch

from advgym import Victim, register_defense
from advgym.agents.defenses.wrapping import before, straight_through
from advgym.lib.settings import POSITIVE, Range


@register_defense("mu-law", domains=("speech",), kinds=("field",), allowed={"levels": Range(2), "mu": POSITIVE})
def defend(victim: Victim, task, *, levels: int = 64, mu: float = 255.0, adaptive: bool = True) -> Victim:
    """Compand, round to `levels` levels, expand (Yang et al. 2019); straight-through backward.

    `adaptive=False`: the gradient of rounding, zero.
    """

    def quantise(x: torch.Tensor) -> torch.Tensor:
        compressed = torch.sign(x) * torch.log1p(mu * x.abs()) / math.log1p(mu)
        level = ((compressed + 1) / 2 * (levels - 1)).round() / (levels - 1) * 2 - 1
        y = torch.sign(level) * torch.expm1(level.abs() * math.log1p(mu)) / mu
        return straight_through(y, x)

    return before(victim, quantise, f"mu-law({levels})", adaptive=adaptive, blocked=True)
