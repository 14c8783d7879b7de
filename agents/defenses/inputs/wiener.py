"""A Wiener filter in the short-time spectrum (Lim and Oppenheim 1979)."""

from __future__ import annotations

from torch import Tensor

from advgym import Victim, register_defense
from advgym.agents.defenses.spectra import TINY, denoised
from advgym.agents.defenses.wrapping import before
from advgym.lib.settings import POSITIVE, SHARE


@register_defense("wiener", domains=("speech",), allowed={"over": POSITIVE, "floor": SHARE, "quantile": SHARE})
def defend(
    victim: Victim, task, *, over: float = 2.0, floor: float = 0.05, quantile: float = 0.2, adaptive: bool = True
) -> Victim:
    """Each cell of the spectrum times S / (S + N), at least `floor`: N is `over` times the noise, S what is above it.

    The noise is the clip's own, the `quantile` of each frequency over its frames. Differentiable as it is, the
    estimate too. `adaptive=False`: the gradient of the undefended victim.
    """

    def gain(power: Tensor, noise: Tensor) -> Tensor:
        signal = (power - over * noise).clamp_min(0)
        return ((signal + TINY) / (signal + over * noise + TINY)).clamp_min(floor)

    def clean(x: Tensor) -> Tensor:
        return denoised(x, gain, quantile=quantile)

    return before(victim, clean, f"wiener({over:g})", adaptive=adaptive)
