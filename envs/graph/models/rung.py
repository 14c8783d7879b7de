"""RUNG: message passing that stops believing neighbours whose scores are far away (Hou, Feng, Derr & Liu, 2024)."""

from __future__ import annotations

from torch import Tensor

from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.inputs.edges import edges
from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.models.convolutions import MLP

CLOSE = 0.1  # distances below it count as it, so that weights stay finite


class RUNG(MLP):
    """An MLP's scores F0, then steps of reweighted least squares under the minimax concave penalty.

    y_vu = |F_v / sqrt(d_v) - F_u / sqrt(d_u)|, W_vu = max(0, 1 / 2y - 1 / 2 gamma),
    F_v <- (sum_u W_vu A_vu F_u / sqrt(d_v d_u) + lam F0_v) / (sum_u W_vu A_vu / d_v + lam)

    An edge longer than gamma weighs nothing, so a flip between strangers is ignored, and so is its gradient.

    Args:
        gamma: where the penalty goes flat; lam: the pull of F0, 1 / 0.9 - 1 in the paper; steps: of the descent.
    """

    listed = True

    def __init__(
        self, features: int, classes: int, hidden: int = 64, dropout: float = 0.5, gamma: float = 3.0,
        lam: float = 1 / 0.9 - 1, steps: int = 10,
    ) -> None:  # fmt: skip
        super().__init__(features, classes, hidden, dropout)
        self.gamma, self.lam, self.steps, self.hops = gamma, lam, steps, steps + 1  # with the degrees of the furthest

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`."""
        start = self.own(features).expand(-1, adjacency.n, -1)
        e = edges(adjacency)
        weight = e.weight.to(start.dtype)
        degree = e.sum(weight).clamp_min(1).unsqueeze(2)
        scale, f = degree.rsqrt(), start
        for _ in range(self.steps):
            even = scale * f
            sent = e.at_source(even)
            y = ((sent - e.at_target(even)).square().sum(1) + CLOSE**2).sqrt()
            believed = weight * (0.5 / y - 0.5 / self.gamma).relu()
            pulled = scale * e.sum(believed.unsqueeze(1) * sent) + self.lam * start
            f = pulled / (e.sum(believed).unsqueeze(2) / degree + self.lam)
        return f
