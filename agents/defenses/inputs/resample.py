"""Resampling down and up again (Yang et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import Victim, register_defense
from advgym.agents.defenses.windows import filtered, sinc
from advgym.agents.defenses.wrapping import before
from advgym.lib.settings import Range


@register_defense("resample", domains=("speech",), allowed={"factor": Range(2, 16)})
def defend(victim: Victim, task, *, factor: int = 2, adaptive: bool = True) -> Victim:
    """One of `factor` samples is kept, after a low-pass, and the others are interpolated from those.

    Linear, so differentiable as it is. `adaptive=False`: the gradient of the undefended victim.
    """
    kernel = sinc(1 / factor, 32 * factor + 1)

    def down_and_up(x: Tensor) -> Tensor:
        kept = torch.arange(x.shape[-1], device=x.device) % factor == 0
        return filtered(filtered(x, kernel) * kept, kernel) * factor

    return before(victim, down_and_up, f"resample(1/{factor})", adaptive=adaptive)
