"""Pairs: each sample of one task beside one of another with the same label. Both tasks are had by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from advgym.core.task import make_task
from advgym.core.victim import Victim
from advgym.errors import DataError

MOST = {"train": 4000, "test": 1000}  # pairs of a split, the first ones


@dataclass(frozen=True)
class Channel:
    """What one channel is: its task's box and lattice, and the shape of a sample."""

    name: str
    shape: tuple[int, ...]
    low: float
    high: float
    levels: int


@dataclass(frozen=True)
class Pairs:
    """A split: flat float32 (N, D), both channels one after the other, and labels int64 (N,)."""

    x: Tensor
    labels: Tensor
    channels: tuple[Channel, Channel]

    def take(self, index: Tensor) -> Tensor:
        """The samples at `index`."""
        return self.x[index]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of both channels."""
        return [c.shape for c in self.channels]


def names(parts: tuple[str, ...]) -> tuple[str, ...]:
    """What the channels are called: by the domains of their tasks."""
    return tuple(part.split("/")[0] for part in parts)


@lru_cache(maxsize=4)
def load(parts: tuple[str, str], split: str) -> Pairs:
    """Each sample of the first task's split beside the next of its label of the second task's.

    Raises:
        DataError: for two tasks of one domain, or where a label has no partner.
    """
    if len(parts) != 2 or len(set(names(parts))) != 2:
        raise DataError(f"parts are two tasks of different domains, not {list(parts)}")
    (a, la, first), (b, lb, second) = (_samples(part, split) for part in parts)
    count = torch.bincount(lb, minlength=int(la.max()) + 1)
    if int(count[la.unique()].min()) == 0:
        raise DataError(f"{parts[1]} has no sample of split {split!r} for some label of {parts[0]}")
    order = torch.argsort(lb, stable=True)
    start = count.cumsum(0) - count
    nth = (torch.nn.functional.one_hot(la).cumsum(0).gather(1, la.unsqueeze(1)) - 1).squeeze(1)
    partner = order[start[la] + nth % count[la]]
    return Pairs(torch.cat([a.flatten(1), b[partner].flatten(1)], 1), la, (first, second))


def size(parts: tuple[str, str], split: str) -> int:
    """Pairs of a split."""
    return min(int(_task(parts[0]).sizes[split]), MOST[split])


def _task(name: str):
    # Its samples alone are wanted: no victim is loaded for it.
    return make_task(name, victim=Victim(lambda x: torch.zeros(len(x), 10), name="nobody", access="scores"))


def _samples(name: str, split: str) -> tuple[Tensor, Tensor, Channel]:
    task = _task(name)
    batch = task.samples(split, list(range(min(task.sizes[split], MOST[split]))))
    channel = Channel(names((name,))[0], tuple(batch.shape), batch.low, batch.high, batch.lattice or 0)
    return batch.x, batch.labels, channel
