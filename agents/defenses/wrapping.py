"""What the defenses share: a victim with something in front of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from advgym import Victim


class Before(nn.Module):
    """A transform of the inputs in front of a victim; a module, so that it moves between devices with it."""

    def __init__(self, victim: Victim, transform: Callable[[Any], Any]) -> None:
        super().__init__()
        self.victim, self.transform = victim, transform
        self.inner = victim.module

    def forward(self, x: Any, keys: Tensor | None = None) -> Tensor:
        """Scores of the transformed inputs."""
        return self.victim(self.transform(x), keys) if self.victim.keyed else self.victim(self.transform(x))


def before(victim: Victim, transform: Callable[[Any], Any], label: str) -> Victim:
    """The victim behind `transform`; access, randomness and risk stay what they were."""
    return victim.like(Before(victim, transform), name=f"{victim.name}+{label}")


def straight_through(y: Tensor, x: Tensor) -> Tensor:
    """The value of y with the gradient of x: backward pass differentiable approximation (Athalye et al. 2018)."""
    return y.detach() + (x - x.detach())  # in this order the value is y to the last bit
