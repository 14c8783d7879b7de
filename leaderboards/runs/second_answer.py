"""A defense is asked again in a fresh process, in another order and other batches: it must say what it said.

In the process that is attacked a defense can tell the evaluator by what it saw before: clean inputs come first, a query
follows from the last one, batches have their sizes. Here a keyed tenth of all that it was asked, and every final
perturbation, come in a keyed order in batches of other sizes, clean inputs last: scores, risks and gradients have to be
those that were scored. Then the verdict is given again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from advgym.core.task import Task
from advgym.core.victim import Victim
from advgym.judge.results import Sample
from advgym.judge.verdict import judge
from advgym.leaderboards.boundary.guarded import with_leaves
from advgym.leaderboards.boundary.recorder import Kept, by_row

REASON = "inconsistent"
NEAR = 1e-4  # of scores and risks
ROUNDING = 1e-5  # of a score, relative: batches of other sizes add up in another order
TURN = 1e-2  # of a gradient, relative to its length
MOST = 64  # rows of a batch


def check_rows(task: Task, split: str, rows: list[Sample], kept: list[Kept], seed: int, device: Any) -> list[Sample]:
    """The rows, with `REASON` and counted as broken where a second answer contradicts the first.

    A sample holds where it was attacked, nothing that was asked about it is answered otherwise now, its final
    perturbation has no success here either, and it is right when clean.

    Args:
        task: behind the defense, in a process that was asked nothing yet.
        rows: of one shard, judged on the samples that were right when the defense was measured.
        kept: what was recorded of that shard.
        seed: of the order, and of a randomised defense's draws.
    """
    if not rows:
        return rows
    bad = contradicted(task.victim.on(device), kept, seed, device)
    targets = [r.target for r in rows] if task.goal.needs_target else None
    found = judge(
        task, split, [r.id for r in rows], [r.perturbation for r in rows], device=device, seed=seed ^ 1, targets=targets
    )
    again = found.success | ~found.right
    return [
        msgspec.structs.replace(r, success=True, first_success=max(r.first_success, 0), reason=REASON)
        if not r.success and (r.id in bad or broken or r.reason == "not attacked")
        else r
        for r, broken in zip(rows, again.tolist(), strict=True)
    ]


def contradicted(victim: Victim, kept: list[Kept], seed: int, device: Any) -> set[int]:
    """The samples of which something is answered otherwise now."""
    size = _scale(kept)
    slope = max((float(_norms(g).max()) for k in kept for g in k.grads if len(g)), default=0.0)
    bad: set[int] = set()
    for part in _dealt(kept, np.random.default_rng(seed & 0xFFFFFFFFFFFFFFFF)):
        bad |= set(part.ids[~_same(victim, part, size, slope, device)].tolist())
    return bad


def _dealt(kept: list[Kept], rng: np.random.Generator) -> Iterator[Kept]:
    """All rows in a keyed order, in batches of keyed sizes, clean inputs last."""
    for clean in (False, True):
        some = [k.take(index) for k in kept if len(index := (k.null == clean).nonzero().squeeze(1))]
        plain = [k for k in some if isinstance(k.x, Tensor) and not k.grads]
        others = [k for k in some if not (isinstance(k.x, Tensor) and not k.grads)]
        parts = [p for k in [*_joined(plain), *others] for p in _cut(k, rng)]
        for i in rng.permutation(len(parts)):
            yield parts[i]


def _joined(plain: list[Kept]) -> list[Kept]:
    """Rows of all answers together, where inputs are tensors of one shape."""
    by: dict[Any, list[Kept]] = {}
    for k in plain:
        by.setdefault((tuple(k.x.shape[1:]), k.x.dtype, k.members), []).append(k)
    return [
        Kept(
            torch.cat([k.x for k in same]), _keys(same),
            torch.cat([k.ids for k in same]), torch.cat([k.null for k in same]),
            [torch.cat(f) for f in zip(*(k.found for k in same), strict=True)], members=same[0].members,
        )
        for same in by.values()
    ]  # fmt: skip


def _keys(same: list[Kept]) -> Tensor | None:
    keys = [k.keys for k in same if k.keys is not None]
    assert len(keys) in (0, len(same))  # a defense draws at random, or it does not
    return torch.cat(keys) if keys else None


def _cut(k: Kept, rng: np.random.Generator) -> Iterator[Kept]:
    order = torch.from_numpy(rng.permutation(len(k.ids)))
    while len(order):
        many = int(rng.integers(1, MOST + 1))
        yield k.take(order[:many])
        order = order[many:]


def _same(victim: Victim, k: Kept, size: float, slope: float, device: Any) -> Tensor:
    """Bool (n,): rows that are answered as before."""
    x = k.x.to(device) if isinstance(k.x, Tensor) else k.x
    keys = None if k.keys is None else k.keys.to(device)
    x, leaves = with_leaves(x, k.leaves if k.grads else [])
    with torch.set_grad_enabled(bool(leaves)):
        scores = victim(x, keys) if victim.keyed else victim(x)
    same = _alike(k.found[0], by_row(scores.detach().cpu(), k.members), size)
    if len(k.found) > 1 and victim.risk is not None:
        risk, before = by_row(torch.as_tensor(victim.risk(x)).cpu(), k.members), k.found[1]
        near = ((risk - before).abs() <= NEAR) & ((risk < victim.threshold) == (before < victim.threshold))
        same &= near.reshape(len(near), -1).all(1)
    if leaves and k.cotangent is not None and scores.requires_grad:
        cotangent = k.cotangent.reshape(scores.shape).to(scores.device)
        grads = torch.autograd.grad(scores, leaves, cotangent, allow_unused=True)
        for old, new in zip(k.grads, grads, strict=True):
            now = torch.zeros_like(old) if new is None else new.cpu()
            longest = torch.maximum(_norms(old), _norms(now)).clamp_min(NEAR * slope)
            same &= _norms(old - now) <= TURN * longest + 1e-12
    return same


def _alike(old: Tensor, new: Tensor, size: float) -> Tensor:
    """Scores that agree, and say the same class: only what is a tie but for rounding may fall the other way."""
    near = (old - new).abs() <= NEAR * min(1.0, size) + ROUNDING * old.abs()
    same = near.flatten(1).all(1)
    first, second = old.argmax(-1, keepdim=True), new.argmax(-1, keepdim=True)
    a, b = old.gather(-1, first), old.gather(-1, second)
    tie = (a - b) <= NEAR * torch.maximum(a.abs(), b.abs()).clamp_max(1.0)
    return same & ((first == second) | tie).flatten(1).all(1)


def _scale(kept: list[Kept]) -> float:
    """How far scores usually lie from the middle of their row: a defense that shrinks them all hides nothing by it."""
    every = [k.found[0].flatten(1) for k in kept if len(k.ids)]
    spread = [(s - s.median(1, keepdim=True).values).abs().mean(1) for s in every]
    return float(torch.cat(spread).median()) if spread else 1.0


def _norms(g: Tensor) -> Tensor:
    return torch.linalg.vector_norm(g.flatten(1), dim=1)
