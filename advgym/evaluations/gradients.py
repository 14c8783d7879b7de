"""Checks beside the samples: whether gradients come back, point uphill, and whether scores move at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.env import AttackEnv
from advgym.core.field import FieldBatch
from advgym.core.keyed import CLEAN
from advgym.core.rng import veiled
from advgym.core.task import Task
from advgym.core.victim import Victim, ask
from advgym.errors import VictimError
from advgym.judge.checks import flag

FEW = 16  # samples that are looked at
POINTS = 8  # beside each
NEAR = 0.05  # of the radius, or a step of the lattice: where scores should not leap
UPHILL = 0.02  # of the radius: the step along the gradient
UNSTABLE = 0.5  # mean change of a score, in parts of the spread of the scores


def checks(task: Task, split: str, right: list[int], device: Any) -> list[str]:
    """The flags of one victim; nothing of poisoning, where an answer is a training run."""
    victim = task.victim.on(device)
    if victim.retrains or not right:
        return []
    batch = task.samples(split, right[:FEW], device)
    found = [flag("dynamic")] if _dynamic(victim, batch) else []
    if not isinstance(batch, FieldBatch) or batch.members > 1:
        return found
    probe = _Probe(task, victim, batch)
    if victim.access != "labels":
        found += _beside(probe)
    if task.threat.knowledge == "white-box":
        found += _slopes(probe)
    return found


def none_of(task: Task, split: str, ids: list[int], device: Any) -> str:
    """Why a victim that says it has gradients gives none; "" where it gives some."""
    try:
        env = AttackEnv(task, split=split, device=device, assigned=ids[:1])
        env.reset(seed=0)
        if env.kind == "edits":
            env.rank(env.threat.null(), k=1)
            return ""
        p = env.threat.null().requires_grad_()
        obs, *_ = env.step(p)
        torch.autograd.grad(obs["surrogate"].sum(), p)
    except (VictimError, RuntimeError) as error:
        return str(error.__cause__ or error).splitlines()[0][:120]
    return ""


class _Probe:
    """The surrogate and the scores of perturbations of a few samples, against the victim's own clean answers."""

    def __init__(self, task: Task, victim: Victim, batch: FieldBatch) -> None:
        self.task, self.victim, self.batch = task, victim, batch
        self.keys = veiled(0, CLEAN, batch.ids) if victim.keyed else None
        with torch.no_grad():
            clean = torch.nan_to_num(self.scores(batch.null()))
        self.ref = task.goal.output(clean)
        self.target = task.goal.targets(0, batch.ids, self.ref) if task.goal.needs_target else None

    def scores(self, p: Tensor) -> Tensor:
        return ask(self.victim, self.batch.inputs(self.batch.look(p).form), self.batch.members, self.keys)

    def loss(self, p: Tensor) -> Tensor:
        return self.task.goal.judge(self.scores(p), self.ref, self.target)[1]

    def flat(self, p: Tensor) -> Tensor:
        """Scores (n, all of them)."""
        scores = self.scores(p)
        return scores.reshape(len(scores), -1)

    def near(self, seed: int) -> Tensor:
        """A random perturbation that is small, and not rounded away."""
        batch = self.batch
        small = self.within(NEAR, seed)
        if batch.lattice is None:
            return small
        step = torch.full_like(small, 1 / batch.lattice)
        return batch.project(torch.maximum(small.abs(), step) * small.sign())

    def within(self, share: float, seed: int) -> Tensor:
        """A random perturbation of that share of the radius."""
        return self.batch.random(seed) * share


def _beside(probe: _Probe) -> list[str]:
    """How much scores move over random points close by, and how many different answers are given."""
    with torch.no_grad():
        base = probe.flat(probe.batch.null())
        spread = (base.amax(1) - base.amin(1)).clamp_min(1e-6)
        near = [((probe.flat(probe.near(200 + i)) - base).abs().amax(1) / spread).clamp_max(1) for i in range(POINTS)]
        rows = torch.cat([probe.flat(probe.within(1.0, 100 + i)) for i in range(POINTS)])
    found = []
    change = float(torch.stack(near).nanmean().nan_to_num(0.0))
    if change > UNSTABLE:
        found.append(flag("unstable-loss", change=f"{change:.2f}"))
    many = len(torch.unique(rows, dim=0))
    if len(rows) >= 32 and many <= len(rows) // 8:
        found.append(flag("coarse", many=many, asked=len(rows)))
    return found


def _slopes(probe: _Probe) -> list[str]:
    """Gradients at a random point of the ball: none, zero, or pointing downhill."""
    p = probe.within(0.5, 300).requires_grad_()
    loss = probe.loss(p)
    (g,) = torch.autograd.grad(loss.sum(), p)
    flat = g.reshape(len(g), -1)
    size = flat.abs().amax(1)
    dead = ~(torch.isfinite(flat).all(1) & (size > 1e-12))
    found = (
        [flag("zero-gradients", share=f"{float(dead.float().mean()):.0%}")] if float(dead.float().mean()) > 0.1 else []
    )
    alive = ~dead
    if int(alive.sum()) < 4 or probe.victim.keyed:
        return found
    wide = probe.batch.reach.view(-1, *[1] * (p.dim() - 1))
    with torch.no_grad():
        step = probe.batch.steepest(g.nan_to_num()) * wide
        rises = torch.zeros_like(loss)
        for length in (UPHILL, 5 * UPHILL):  # a small step may round to none on a lattice
            rises = torch.maximum(rises, (probe.loss(p + length * step) > loss).float())
    falls = 1 - float(rises[alive].mean())
    if falls > 0.5:
        found.append(flag("wrong-gradients", share=f"{falls:.0%}", many=int(alive.sum())))
    return found


def _dynamic(victim: Victim, batch: Batch) -> bool:
    """Whether the victim itself differentiates while it answers."""
    if victim.module is None:
        return False
    calls: list[str] = []
    x = batch.inputs(batch.look(batch.null()).form)
    keys = veiled(0, CLEAN, batch.ids) if victim.keyed else None
    with _watched(calls):
        try:
            with torch.no_grad():
                ask(victim, x, batch.members, keys)
        except Exception:  # it cannot without: that shows it, too
            return bool(calls)
    return bool(calls)


@contextmanager
def _watched(calls: list[str]) -> Iterator[None]:
    """Entry points of autograd note that they were called."""
    places = [(torch.autograd, "grad"), (torch.autograd, "backward"), (torch.Tensor, "backward")]
    kept = [(owner, name, getattr(owner, name)) for owner, name in places]

    def noted(name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return function(*args, **kwargs)

        return call

    try:
        for owner, name, function in kept:
            setattr(owner, name, noted(name, function))
        yield
    finally:
        for owner, name, function in kept:
            setattr(owner, name, function)
