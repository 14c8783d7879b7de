"""Spectral subtraction (Boll 1979; Berouti et al. 1979)."""

from __future__ import annotations

from torch import Tensor

from advgym import Victim, register_defense
from advgym.agents.defenses.spectra import TINY, denoised
from advgym.agents.defenses.wrapping import before
from advgym.lib.settings import POSITIVE, SHARE, Range


@register_defense(
    "spectral-subtraction", domains=("speech",),
    allowed={"over": POSITIVE, "floor": Range(0, 1, above=True), "quantile": SHARE},
)  # fmt: skip
def defend(
    victim: Victim, task, *, over: float = 2.0, floor: float = 0.01, quantile: float = 0.2, adaptive: bool = True
) -> Victim:
    """`over` times the noise's power is taken off each cell of the spectrum, down to `floor` of it.

    The noise is the clip's own, the `quantile` of each frequency over its frames. Differentiable as it is, the
    estimate too. `adaptive=False`: the gradient of the undefended victim.
    """

    def gain(power: Tensor, noise: Tensor) -> Tensor:
        return (1 - over * noise / (power + TINY)).clamp_min(floor).sqrt()

    def subtract(x: Tensor) -> Tensor:
        return denoised(x, gain, quantile=quantile)

    return before(victim, subtract, f"spectral-subtraction({over:g})", adaptive=adaptive)
