"""What the defenses share: a victim with something in front of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from advgym import Victim
from advgym.core.victim import DRAWS


class Before(nn.Module):
    """A transform of the inputs in front of a victim; a module, so that it moves between devices with it."""

    def __init__(self, victim: Victim, transform: Callable[..., Any], drawn: bool = False) -> None:
        super().__init__()
        self.victim, self.transform, self.drawn = victim, transform, drawn
        self.inner = victim.module

    def forward(self, x: Any, keys: Tensor | None = None) -> Tensor:
        """Scores of the transformed inputs."""
        return asked(self.victim, self.transform(x, keys) if self.drawn else self.transform(x), keys)


class Naive(Before):
    """The same scores with the gradient that an attacker has who does not reckon with the transform."""

    def __init__(self, victim: Victim, transform: Callable[..., Any], blocked: bool, drawn: bool = False) -> None:
        super().__init__(victim, transform, drawn)
        self.blocked = blocked

    def forward(self, x: Any, keys: Tensor | None = None) -> Tensor:
        """Scores of the transformed inputs, backward of zeros or of the undefended victim."""
        with torch.no_grad():
            y = super().forward(x, keys)
        if not (torch.is_grad_enabled() and isinstance(x, Tensor) and x.requires_grad):
            return y
        if self.blocked:
            none = (x.flatten(1) * 0).sum(1)
            return y + none.view(-1, *[1] * (y.dim() - 1))
        return straight_through(y, asked(self.victim, x, keys))


def asked(victim: Victim, x: Any, keys: Tensor | None) -> Tensor:
    """The victim's scores, with keys where it draws at random."""
    return victim(x, keys) if victim.keyed else victim(x)


def before(
    victim: Victim, transform: Callable[..., Any], label: str, *, adaptive: bool = True, blocked: bool = False,
    drawn: bool = False,
) -> Victim:  # fmt: skip
    """The victim behind `transform`; access, randomness and risk stay what they were.

    Args:
        transform: with the backward pass that an adaptive attacker would give it.
        adaptive: False: gradients are those that a naive attacker sees. Zeros where the transform rounds (`blocked`),
            else the undefended victim's at the same input.
        drawn: the transform draws at random, from keys int64 (n,) that it takes too; an answer is then the mean of
            several draws, and so is its gradient (expectation over transformation, Athalye et al. 2018).
    """
    model = Before(victim, transform, drawn) if adaptive else Naive(victim, transform, blocked, drawn)
    name = f"{victim.name}+{label}{'' if adaptive else ',naive'}"
    if not drawn or victim.keyed:
        return victim.like(model, name=name)
    return victim.like(model, name=name, keyed=True, draws=DRAWS)


def straight_through(y: Tensor, x: Tensor) -> Tensor:
    """The value of y with the gradient of x: backward pass differentiable approximation (Athalye et al. 2018)."""
    return y.detach() + (x - x.detach())  # in this order the value is y to the last bit
