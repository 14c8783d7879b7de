"""Training on labels, for whatever learns from them: the loop, and the share that is right after it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger("advgym")


def descend(
    module: nn.Module, loss: Callable[[Any], Tensor], epochs: Iterable[Sequence[Any]], optimiser: torch.optim.Optimizer,
    *, schedule: torch.optim.lr_scheduler.LRScheduler | None = None, clip: float = 0.0,
    score: Callable[[int, Any], float] | None = None,
) -> float:  # fmt: skip
    """Train in place and leave the module in eval mode; returns the best score, -1 where there is none.

    Args:
        loss: of a batch, whatever a batch is.
        epochs: each epoch's batches, asked for when the epoch before is over.
        schedule: of the rate, stepped after every batch.
        clip: the gradient's largest norm, 0 for any.
        score: (epoch, its last batch) -> how good the module is now; the best epoch's weights are kept.
    """
    best, kept = -1.0, None
    for epoch, batches in enumerate(epochs):
        total = 0.0
        module.train()
        for batch in batches:
            optimiser.zero_grad()
            value = loss(batch)
            value.backward()  # type: ignore[no-untyped-call]
            if clip:
                nn.utils.clip_grad_norm_(module.parameters(), clip)
            optimiser.step()
            if schedule is not None:
                schedule.step()
            total += value.item()
        log.debug("epoch %d: loss %.3f", epoch, total / max(len(batches), 1))
        if score is not None and (now := score(epoch, batches[-1])) > best:
            best, kept = now, {k: v.clone() for k, v in module.state_dict().items()}
    if kept is not None:
        module.load_state_dict(kept)
    module.eval()
    return best


@torch.no_grad()
def accuracy(module: nn.Module, x: Any, labels: Tensor, chunk: int = 500) -> float:
    """The share of right answers to inputs `x`, whose `take(index)` are those at an index."""
    right = 0
    for index in torch.arange(len(labels)).split(chunk):  # type: ignore[no-untyped-call]
        right += int((module(x.take(index)).argmax(1) == labels[index]).sum())
    return right / len(labels)
