"""A band-pass filter in front of a recogniser: the band of a telephone, or any other."""

from __future__ import annotations

from torch import Tensor

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.windows import band, filtered, frequency
from advgym.agents.defenses.wrapping import before
from advgym.lib.settings import COUNT, NATURAL, POSITIVE


@register_defense("band-pass", domains=("speech",), allowed={"low": NATURAL, "high": POSITIVE, "taps": COUNT})
def defend(
    victim: Victim, task, *, low: float = 200.0, high: float = 3400.0, taps: int = 127, adaptive: bool = True
) -> Victim:
    """Frequencies from `low` to `high`, in Hz, are let through; the rate is the task's, 8,000 where it says none.

    Differentiable as it is. `adaptive=False`: the gradient of the undefended victim.

    Raises:
        AdvgymError: for a band without width below half the rate, or an even number of taps.
    """
    rate = 8000.0 if task is None else float(task.context.get("rate", 8000))
    if not low < min(high, rate / 2):
        raise AdvgymError(f"low={low:g}, high={high:g}: want low < high in Hz, and low below half the rate of {rate:g}")
    if taps % 2 == 0:
        raise AdvgymError(f"taps={taps} is the length of a filter: an odd number, such as 127")
    kernel = band(frequency(low, rate), frequency(high, rate), taps)

    def keep(x: Tensor) -> Tensor:
        return filtered(x, kernel)

    return before(victim, keep, f"band-pass({low:g}-{high:g})", adaptive=adaptive)
