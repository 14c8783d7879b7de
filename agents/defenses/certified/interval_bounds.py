"""Interval bound propagation over the Linf ball (Gowal et al. 2019): small nets, certified without a draw."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.certifying import trained
from advgym.agents.defenses.intervals import Interval, bounded, certain, margins
from advgym.core.batch import Batch
from advgym.core.field import FieldBatch
from advgym.core.kinds.certificates import Certificate, check_plain
from advgym.core.task import Task
from advgym.lib.settings import COUNT, NATURAL, POSITIVE, SHARE

HALVINGS = 16


class Bounded(nn.Module):
    """A net that answers as before, and bounds its answers over a box."""

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim = victim
        self.inner = victim.module

    def forward(self, x: Tensor) -> Tensor:
        return self.victim(x)

    @torch.no_grad()
    def certificate(self, batch: Batch, *, seed: int = 0) -> Certificate:
        """The largest radius of a bisection at which the worst margin over the ball (and the box) is above 0; Linf."""
        check_plain(batch, "interval-bounds")
        assert isinstance(batch, FieldBatch)
        x = batch.inputs(batch.look(batch.null()).form)
        label = self(x).argmax(1)
        held, wide = torch.zeros(len(x), dtype=torch.float64, device=x.device), float(batch.high - batch.low)
        step = wide
        for _ in range(HALVINGS):
            tried = held + step
            fine = certain(bounded(self._net, ball(x.double(), tried, batch.low, batch.high)), label)
            held = torch.where(fine & (tried <= wide), tried, held)
            step /= 2
        return Certificate(label, held, "linf")

    @torch.no_grad()
    def settled(self, x: Tensor, keys: Tensor) -> Tensor:
        """Its answer, which no draw moves."""
        return self(x).argmax(1)

    @property
    def _net(self) -> nn.Module:
        assert isinstance(self.inner, nn.Module)
        return self.inner


def ball(x: Tensor, eps: Tensor | float, low: float, high: float) -> Interval:
    """The Linf ball around x (n, ...) of radius eps, a number or (n,), cut to the box."""
    wide = eps.view(-1, *[1] * (x.dim() - 1)) if isinstance(eps, Tensor) else eps
    return Interval((x - wide).clamp(low, high), (x + wide).clamp(low, high))


def robust_loss(scores: Interval, clean: Tensor, labels: Tensor, kappa: float) -> Tensor:
    """Kappa times the cross-entropy of the worst margins, the rest that of clean scores."""
    return kappa * F.cross_entropy(-margins(scores, labels), labels) + (1 - kappa) * F.cross_entropy(clean, labels)


@register_defense(
    "interval-bounds", kinds=("field",),
    allowed={"eps": POSITIVE, "kappa": SHARE, "epochs": NATURAL, "samples": COUNT, "batch": COUNT, "lr": POSITIVE},
)  # fmt: skip
def defend(
    victim: Victim, task: Task, *, epochs: int = 0, eps: float = 0.1, kappa: float = 0.5, samples: int = 60000,
    batch: int = 128, lr: float = 1e-3, seed: int = 0,
) -> Victim:  # fmt: skip
    """The victim with bounds on its answers over Linf balls; `advgym certify` prints what they certify.

    Convolutions, linear layers, what rises (relu, pooling ...), batch norm and reshaping are bounded; anything else is
    refused by name. With `epochs` a copy goes on learning on its own worst margins over balls that grow to `eps`
    within half of the training; without, the victim is as it was, and bounds of ordinary nets are loose.
    """
    if victim.module is None:
        raise AdvgymError(f"victim {victim.name!r} is no module: interval bounds cannot be had of it")
    if victim.keyed:
        raise AdvgymError(f"victim {victim.name!r} draws at random: interval bounds cannot be had of it")
    found = task.samples(next(s for s, size in task.sizes.items() if size), [0])
    x: Any = found.inputs(found.look(found.null()).form)
    if not isinstance(found, FieldBatch) or not isinstance(x, Tensor) or x.shape != found.x.shape:
        raise AdvgymError(f"interval bounds cannot be had on {task.name}: its perturbations are not added to a tensor")
    with torch.no_grad():
        bounded(victim.module, ball(x, 0.0, found.low, found.high))
    if epochs:
        low, high = found.low, found.high

        def loss(module: nn.Module, part: Batch, share: float, step: int) -> Tensor:
            x = part.inputs(part.look(part.null()).form)
            now = min(1.0, 2 * share)
            return robust_loss(bounded(module, ball(x, eps * now, low, high)), module(x), part.labels, kappa * now)

        victim = trained(
            victim, task, f"bounds{eps:g}", loss, samples=samples, epochs=epochs, batch=batch, lr=lr, seed=seed,
            eps=eps, kappa=kappa,
        )  # fmt: skip
    return victim.like(Bounded(victim), name=f"{victim.name}+interval-bounds")
