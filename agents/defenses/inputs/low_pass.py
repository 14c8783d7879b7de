"""A low-pass filter in front of the victim: a windowed sinc, along time or along both sides of an image."""

from __future__ import annotations

from torch import Tensor

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.windows import filtered, sinc
from advgym.agents.defenses.wrapping import before
from advgym.lib.settings import COUNT, Range


@register_defense("low-pass", domains=("image", "speech"), allowed={"cutoff": Range(0, 1, above=True), "taps": COUNT})
def defend(victim: Victim, task, *, cutoff: float = 0.5, taps: int = 63, adaptive: bool = True) -> Victim:
    """Frequencies above `cutoff` (a share of half the sampling rate: .5 is 2 kHz at 8 kHz) are taken out.

    Differentiable as it is. `adaptive=False`: the gradient of the undefended victim.

    Raises:
        AdvgymError: for an even number of taps, which would shift the signal by half a sample.
    """
    if taps % 2 == 0:
        raise AdvgymError(f"taps={taps} is the length of a filter: an odd number, such as 63")
    kernel = sinc(cutoff, taps)

    def keep(x: Tensor) -> Tensor:
        return filtered(x, kernel)

    return before(victim, keep, f"low-pass({cutoff:g})", adaptive=adaptive)
