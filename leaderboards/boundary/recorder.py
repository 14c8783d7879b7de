"""What a defense answered while it was attacked: a keyed tenth of its queries, and all that it said for a verdict.

`leaderboards/runs/second_answer.py` asks the same again in a fresh process. What is kept is keyed by the phase's
secret, so a defense does not know which of its answers will be held against it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.core.batch import take

SHARE = 0.1  # of the queries


@dataclass
class Kept:
    """Rows of one answer, on the CPU. A row is a sample's; a bundle's has an input for each of its members.

    Attributes:
        x: the inputs, without graphs, n * members of them; keys: of a randomised defense, one for each.
        ids: int64 (n,), the samples; null: bool (n,), clean inputs.
        found: scores, and the risk where there is one, (n, [members,] ...).
        leaves: names of the input's float tensors whose gradients were asked for; with `cotangent` they are in `grads`.
    """

    x: Any
    keys: Tensor | None
    ids: Tensor
    null: Tensor
    found: list[Tensor]
    leaves: list[str] = field(default_factory=list)
    cotangent: Tensor | None = None
    grads: list[Tensor] = field(default_factory=list)
    members: int = 1

    def take(self, index: Tensor) -> Kept:
        """The rows at `index`."""
        inputs = inputs_of(index, self.members)
        return Kept(
            take(self.x, inputs), None if self.keys is None else self.keys[inputs], self.ids[index], self.null[index],
            [f[index] for f in self.found], self.leaves, None if self.cotangent is None else self.cotangent[index],
            [g[index] for g in self.grads], self.members,
        )  # fmt: skip


class Recorder:
    """Told by the victim whose inputs come next, and by the guard what was answered.

    Args:
        seed: secret, of the draw of what is kept.
    """

    def __init__(self, seed: int) -> None:
        self.kept: list[Kept] = []
        self._rng = np.random.default_rng(seed)
        self._next: tuple[Tensor, Tensor, bool] | None = None
        self._steps: dict[int, tuple[Kept, Tensor, int]] = {}  # answers that a backward may still name

    def watch(self, ids: Tensor | None, null: Tensor | None, final: bool) -> None:
        """Whose inputs come next: int64 (n,), which of them are clean, whether it is for a verdict."""
        if ids is None:
            self._next = None
        else:
            no = torch.zeros(len(ids), dtype=torch.bool)
            self._next = (ids.cpu(), no if null is None else null.cpu(), final)

    def answered(self, x: Any, keys: Tensor | None, found: list[Tensor], step: int, leaves: list[str]) -> None:
        """Keep some rows of an answer (all of a verdict's)."""
        about, self._next = self._next, None
        if about is None or not len(about[0]) or len(x) % len(about[0]):
            return
        ids, null, final = about
        members = len(x) // len(ids)
        drawn = self._rng.random(len(ids)) < SHARE
        index = torch.from_numpy(np.flatnonzero(drawn | final))
        if not len(index):
            return
        inputs = inputs_of(index, members)
        kept = Kept(
            detached(take(x, inputs.to(getattr(x, "device", "cpu")))), None if keys is None else keys.cpu()[inputs],
            ids[index], null[index], [by_row(f.detach().cpu(), members)[index] for f in found], leaves,
            members=members,
        )  # fmt: skip
        self.kept.append(kept)
        if step >= 0:
            self._steps[step] = (kept, index, len(ids))

    def pulled(self, step: int, cotangent: Tensor, grads: list[Tensor]) -> None:
        """Keep the gradients of those rows; the first backward of an answer is the one that counts."""
        kept, index, rows = self._steps.pop(step, (None, None, 0))
        if kept is None or index is None or any(g.shape[:1] != (rows,) for g in grads):
            return
        kept.cotangent = by_row(cotangent.detach().float().cpu(), kept.members)[index]
        kept.grads = [g.detach().cpu()[index] for g in grads]


def inputs_of(index: Tensor, members: int) -> Tensor:
    """The inputs of the rows at `index`: int64 (n * members,), each row's together."""
    return index if members == 1 else (index.unsqueeze(1) * members + torch.arange(members)).flatten()


def by_row(value: Tensor, members: int) -> Tensor:
    """(n * members, ...) as (n, members, ...); as it is where a row is one input."""
    return value if members == 1 else value.view(-1, members, *value.shape[1:])


def detached(x: Any) -> Any:
    """The same inputs without graphs."""
    if isinstance(x, Tensor):
        return x.detach()
    if isinstance(x, list):
        return x
    bare = {k: v.detach() for k, v in vars(x).items() if isinstance(v, Tensor)}
    if is_dataclass(x) and not isinstance(x, type):
        return replace(x, **bare)
    twin = copy.copy(x)
    twin.__dict__.update(bare)
    return twin
