"""Total variation minimisation (Rudin, Osher and Fatemi 1992; as a defense, Guo et al. 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym import Victim, register_defense
from advgym.agents.defenses.wrapping import before
from advgym.lib.settings import COUNT, POSITIVE

TAU = 0.125  # Chambolle's bound on the step


@register_defense("total-variation", domains=("image",), allowed={"weight": POSITIVE, "steps": COUNT})
def defend(victim: Victim, task, *, weight: float = 0.2, steps: int = 20, adaptive: bool = True) -> Victim:
    """The image y of least TV(y) + |y - x|^2 / (2 weight), by `steps` of Chambolle's projection (2004).

    Backward: through all the steps. `adaptive=False`: the gradient of the undefended victim.
    """

    def smooth(x: Tensor) -> Tensor:
        return chambolle(x, weight, steps)

    return before(victim, smooth, f"total-variation({weight:g})", adaptive=adaptive)


def chambolle(x: Tensor, weight: float, steps: int) -> Tensor:
    """Y of images x (..., H, W), each channel by itself."""
    p = torch.zeros(2, *x.shape, device=x.device, dtype=x.dtype)
    for _ in range(steps):
        g = gradient(divergence(p) - x / weight)
        size = (g.square().sum(0) + 1e-12).sqrt()
        p = (p + TAU * g) / (1 + TAU * size)
    return x - weight * divergence(p)


def gradient(u: Tensor) -> Tensor:
    """Forward differences (2, ..., H, W), 0 at the last row and column."""
    down = F.pad(u[..., 1:, :] - u[..., :-1, :], (0, 0, 0, 1))
    right = F.pad(u[..., :, 1:] - u[..., :, :-1], (0, 1))
    return torch.stack([down, right])


def divergence(p: Tensor) -> Tensor:
    """Minus the adjoint of `gradient`, (..., H, W)."""
    a, b = p[0, ..., :-1, :], p[1, ..., :, :-1]
    return F.pad(a, (0, 0, 0, 1)) - F.pad(a, (0, 0, 1, 0)) + F.pad(b, (0, 1)) - F.pad(b, (1, 0))
