"""One perturbation for many images: fitted on some, judged on others (Moosavi-Dezfooli et al. 2017)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from advgym.core.batch import pick
from advgym.core.kinds.mapped import MappedBatch


class SharedBatch(MappedBatch):
    """B bundles of M images x (B, M, C, H, W); theta (C, H, W) is added to each of them, within a ball of its own.

    Args:
        kwargs: `radius`, `norm` ("linf" or "l2") and more of `MappedBatch`.
    """

    def __init__(self, ids: Tensor, labels: Tensor, x: Tensor, **kwargs: Any) -> None:
        super().__init__(ids, labels, x, tuple(x.shape[2:]), members=x.shape[1], **kwargs)

    def render(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        return pick(self.x, rows) + theta.unsqueeze(1)

    def words(self, row: int, theta: Tensor) -> str:
        """In a line."""
        size = float(self.measure(theta.unsqueeze(0), None))
        name = {"linf": "L-infinity", "l2": "L2"}.get(self.norm, self.norm)
        return f"{size:.3g} in {name} on each of {self.members} images"

    def view(self) -> dict[str, Tensor]:
        """`clean`: float32 (B, M, C, H, W)."""
        return {"clean": self.x}
