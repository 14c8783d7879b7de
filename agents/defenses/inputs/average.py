"""Average smoothing: a moving average of waveforms, a box filter of images."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.windows import filtered
from advgym.agents.defenses.wrapping import before
from advgym.lib.settings import COUNT


@register_defense("average", domains=("image", "speech"), allowed={"size": COUNT})
def defend(victim: Victim, task, *, size: int = 3, adaptive: bool = True) -> Victim:
    """Each value becomes the mean of the `size` values around it (size x size of an image), edges repeated.

    Differentiable as it is. `adaptive=False`: the gradient of the undefended victim.

    Raises:
        AdvgymError: for an even size, which has no middle.
    """
    if size % 2 == 0:
        raise AdvgymError(f"size={size} is the width of a window around a value: an odd number, such as 3")
    kernel = torch.full((size,), 1 / size)

    def mean(x: Tensor) -> Tensor:
        return filtered(x, kernel)

    return before(victim, mean, f"average({size})", adaptive=adaptive)
