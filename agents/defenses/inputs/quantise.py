"""Quantisation of a waveform (Yang et al. 2019)."""

from __future__ import annotations

from advgym import Victim, register_defense
from advgym.agents.defenses.wrapping import before, straight_through
from advgym.lib.settings import Range


@register_defense("quantise", domains=("speech",), allowed={"steps": Range(1, 32768)})
def defend(victim: Victim, task, *, steps: int = 512, adaptive: bool = True) -> Victim:
    """Round samples to multiples of `steps` steps of 16-bit PCM (q of Yang et al. 2019); straight-through.

    `adaptive=False`: the gradient of rounding, zero.
    """
    unit = steps / 32768
    return before(
        victim, lambda x: straight_through((x / unit).round() * unit, x), f"quantise({steps})", adaptive=adaptive,
        blocked=True,
    )  # fmt: skip
