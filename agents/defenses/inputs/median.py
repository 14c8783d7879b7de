"""Median smoothing (of images: Xu, Evans and Qi 2018; of waveforms: Yang et al. 2019)."""

from __future__ import annotations

from torch import Tensor

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.windows import windowed
from advgym.agents.defenses.wrapping import before
from advgym.lib.settings import COUNT


@register_defense("median", domains=("image", "speech"), allowed={"size": COUNT})
def defend(victim: Victim, task, *, size: int = 3, adaptive: bool = True) -> Victim:
    """Each value becomes the median of the `size` values around it (size x size of an image), edges repeated.

    Backward: to the value that is the median, its true derivative. `adaptive=False`: the undefended victim's.

    Raises:
        AdvgymError: for an even size, which has no middle.
    """
    if size % 2 == 0:
        raise AdvgymError(f"size={size} is the width of a window around a value: an odd number, such as 3")

    def median(x: Tensor) -> Tensor:
        return windowed(x, size).median(-1).values

    return before(victim, median, f"median({size})", adaptive=adaptive)
