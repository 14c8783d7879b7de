"""An environment that is over after so many asks: what a cascade gives one of its members to spend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Purse:
    """An environment with a purse of its own: `done` once that is spent, and nobody is `live`.

    Views share the purse. What a member does that asks no leave (`env.victim`, `env.rank`) is not counted here; the
    environment's own budgets bound that.

    Args:
        asks: most proposals of each lane.
    """

    def __init__(self, env, asks: int, purse: list[int] | None = None) -> None:
        self.inner, self.purse = env, purse if purse is not None else [asks]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def done(self) -> bool:
        """Nothing is left of the purse, or of the lanes."""
        return self.purse[0] <= 0 or bool(self.inner.done)

    @property
    def live(self) -> Tensor:
        """Bool (lanes,): those that run, none with an empty purse."""
        live: Tensor = self.inner.live
        return live if self.purse[0] > 0 else torch.zeros_like(live)

    @property
    def asks_left(self) -> Tensor:
        """int64 (lanes,), of the purse and of the lane's own budget."""
        left: Tensor = self.inner.asks_left
        return left.clamp_max(max(self.purse[0], 0))

    def step(self, p: Any) -> tuple:
        """As of the environment."""
        self.purse[0] -= self.inner.proposals or 1
        found: tuple = self.inner.step(p)
        return found

    def view(self, lanes: Any = None, proposals: int | None = None) -> Purse:
        """A view that spends from the same purse."""
        return Purse(self.inner.view(lanes, proposals), 0, self.purse)
