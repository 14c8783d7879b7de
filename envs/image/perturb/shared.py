"""One perturbation for many images: fitted on some, judged on others (Moosavi-Dezfooli et al. 2017)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from advgym.core.batch import pick
from advgym.core.mapped import MappedBatch


class SharedBatch(MappedBatch):
    """B bundles of M images x (B, M, C, H, W); theta (C, H, W) is added to each of them, within a ball of its own.

    Args:
        held, held_labels: float32 (B, M, C, H, W) and int64 (B, M), what a verdict takes in their place; None for the
            same images.
        kwargs: `radius`, `norm` ("linf" or "l2") and more of `MappedBatch`.
    """

    def __init__(
        self, ids: Tensor, labels: Tensor, x: Tensor, *, held: Tensor | None = None,
        held_labels: Tensor | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(ids, labels, x, tuple(x.shape[2:]), members=x.shape[1], **kwargs)
        self._held, self._held_labels = held, held_labels

    def render(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        return pick(self.x, rows) + theta.unsqueeze(1)

    def judged(self, keys: Tensor) -> SharedBatch:
        """The bundles of those images that were held out."""
        if self._held is None or self._held_labels is None:
            return self
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.x, twin.labels = self._held, self._held_labels
        return twin

    def words(self, row: int, theta: Tensor) -> str:
        """In a line."""
        size = float(self.measure(theta.unsqueeze(0), None))
        name = {"linf": "L-infinity", "l2": "L2"}.get(self.norm, self.norm)
        return f"{size:.3g} in {name} on each of {self.members} images"

    def view(self) -> dict[str, Tensor]:
        """`clean`: float32 (B, M, C, H, W)."""
        return {"clean": self.x}
