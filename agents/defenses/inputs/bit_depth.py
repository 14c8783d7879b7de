"""Bit-depth reduction (Xu, Evans and Qi 2018)."""

from __future__ import annotations

from advgym import Victim, register_defense
from advgym.agents.defenses.wrapping import before, straight_through
from advgym.lib.settings import Range


@register_defense("bit-depth", domains=("image",), kinds=("field", "edits"), allowed={"bits": Range(1, 8)})
def defend(victim: Victim, task, *, bits: int = 2, adaptive: bool = True) -> Victim:
    """Round pixels in [0, 1] to 2**bits levels before the victim sees them (Xu et al. 2018); straight-through.

    `adaptive=False`: the gradient of rounding, zero.
    """
    top = 2**bits - 1
    return before(
        victim, lambda x: straight_through((x * top).round() / top, x), f"bit-depth({bits})", adaptive=adaptive,
        blocked=True,
    )  # fmt: skip
