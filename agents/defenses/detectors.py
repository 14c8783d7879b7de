"""What detectors share: thresholds by a false-positive rate, one risk of several statistics, the adaptive gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from advgym import Victim
from advgym.agents.defenses.learning import CHUNK
from advgym.agents.defenses.wrapping import asked

TINY = 1e-9
NEAR = 0.98  # of the threshold: from there on an adaptive attacker's step goes down the risk


def threshold_at(rate: float, clean: Tensor) -> Tensor:
    """Of each statistic (n, k) the least threshold that at most `rate` of the clean rows reach, (k,)."""
    n = len(clean)
    allowed = int(rate * n + 1e-9)
    ordered = clean.sort(dim=0, descending=True).values
    edge = ordered[min(allowed, n - 1)]
    return edge + edge.abs() * 1e-4 + TINY  # a row at the threshold counts as found


class Statistics(nn.Module):
    """Of inputs (n, ...) non-negative float32 (n, k), larger for what is stranger; a module, so it moves along."""

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim, self.inner = victim, victim.module

    def ask(self, x: Tensor) -> Tensor:
        """The victim's scores; one that draws at random draws the same for each."""
        return asked(self.victim, x, torch.zeros(len(x), dtype=torch.int64, device=x.device))


class Risk(nn.Module):
    """One risk in [0, 1] of several statistics: the largest of e / (e + t), .5 exactly at its threshold t.

    Args:
        clean: inputs that thresholds are set on.
        rate: the share of them that is taken for attacks at most, all statistics together.
    """

    limit: Tensor

    def __init__(self, statistics: Statistics, clean: Tensor, rate: float) -> None:
        super().__init__()
        self.statistics = statistics
        with torch.no_grad():
            found = torch.cat([statistics(part) for part in clean.split(CHUNK)])  # type: ignore[no-untyped-call]
        self.register_buffer("limit", threshold_at(rate / found.shape[1], found))

    def forward(self, x: Tensor) -> Tensor:
        """Risk (n,), on the device of its own buffers."""
        e = self.statistics(x.to(self.limit.device))
        return (e / (e + self.limit)).amax(1)


class Watched(nn.Module):
    """The victim's scores; if `adaptive`, with the gradient of an attacker who knows the risk.

    Selective gradients (Bryniarski et al. 2022): a step works on the victim until that is fooled, then down the risk
    while that is near its threshold. Fooled is where the attacker's own gradient would raise the score that is the
    largest already; what attackers of the contract drive up is their surrogate.
    """

    def __init__(self, victim: Victim, risk: Risk, adaptive: bool) -> None:
        super().__init__()
        self.victim, self.risk, self.adaptive, self.inner = victim, risk, adaptive, victim.module

    def forward(self, x: Any, keys: Tensor | None = None) -> Tensor:
        """Scores of x."""
        if not (self.adaptive and torch.is_grad_enabled() and isinstance(x, Tensor) and x.requires_grad):
            return asked(self.victim, x, keys)
        fooled: list[Tensor] = []
        given = _Evade.apply(x, *self._way_down(x), fooled)  # type: ignore[no-untyped-call]
        scores: Tensor = _Read.apply(asked(self.victim, given, keys), fooled)  # type: ignore[no-untyped-call]
        return scores

    def _way_down(self, x: Tensor) -> tuple[Tensor, Tensor]:
        at = x.detach().requires_grad_()
        risk = self.risk(at)
        (g,) = torch.autograd.grad(risk.sum(), at, allow_unused=True)
        return (torch.zeros_like(x) if g is None else -g), risk.detach().to(x.device) >= NEAR / 2


class _Read(torch.autograd.Function):
    """Scores as they are; backward: notes which rows are fooled."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, fooled: list[Tensor]) -> Tensor:
        ctx.save_for_backward(scores)
        ctx.fooled = fooled
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (scores,) = ctx.saved_tensors
        raised = g.gather(-1, scores.argmax(-1, keepdim=True))
        ctx.fooled[:] = [raised.flatten(1).sum(1) > 0]
        return g, None


class _Evade(torch.autograd.Function):
    """x as it is; backward: in rows that are fooled and near the alarm the way down the risk, in the size of g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, near: Tensor, fooled: list[Tensor]) -> Tensor:
        ctx.save_for_backward(down, near)
        ctx.fooled = fooled
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        down, near = ctx.saved_tensors
        size = down.flatten(1).norm(dim=1)
        scale = g.flatten(1).norm(dim=1) / size.clamp_min(TINY)
        use = near & ctx.fooled[0] & (size > TINY)
        wide = (len(g), *[1] * (g.dim() - 1))
        return torch.where(use.view(wide), down * scale.view(wide), g), None, None, None


def watched(victim: Victim, risk: Risk, label: str, *, adaptive: bool) -> Victim:
    """The victim with a risk; its scores stay, and its gradient knows of the risk where `adaptive`.

    A risk that the victim has already stays in force: the larger counts.
    """
    old, half = victim.risk, victim.threshold

    @torch.no_grad()
    def found(x: Any) -> Tensor:
        new = risk(x)
        if old is None:
            return new
        before = torch.as_tensor(old(x)).to(new)
        return torch.maximum(new, torch.where(before >= half, before.clamp_min(0.5), before.clamp_max(0.5) * 0.999))

    model = Watched(victim, risk, adaptive)
    return victim.like(model, name=f"{victim.name}+{label}", risk=found, threshold=0.5)
