"""One batch of training samples, as the loss of a training-time defense sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from advgym import AdvgymError, AttackEnv, Victim, registry
from advgym.core.batch import Batch
from advgym.core.goals import BundleGoal, ClassGoal
from advgym.core.rng import mix
from advgym.core.task import Task
from advgym.core.victim import ask
from advgym.lib.settings import settings_of


@dataclass(frozen=True)
class Inner:
    """The attack that is played while a victim trains: an agent, its settings, and what it may ask for each sample."""

    agent: str
    settings: dict[str, Any]
    queries: int

    def __call__(self, task: Task, victim: Victim, split: str, ids: list[int], seed: int) -> Tensor:
        """What the agent finds against `victim`, (n, *shape): what it returns where that is valid, else the best held.

        On Fields a success does not end an episode: the loss wants the worst point, not the first. Samples that the
        victim has wrong already are not attacked; their perturbation is the null one, or the agent's start.
        """
        entry = registry.agent(self.agent)
        kind = task.samples(split, ids[:1]).kind
        asks = self.settings.get("steps", self.queries) if kind == "field" else self.queries
        queries = max(min(self.queries, asks), 1)
        threat = replace(task.threat, queries=queries, gradients=queries, knowledge=entry.knowledge,
                         least=kind == "field")  # fmt: skip
        env = AttackEnv(replace(task, victim=victim, threat=threat), proposals=entry.proposals, split=split,
                        assigned=ids)  # fmt: skip
        module = victim.module
        wanted = [p for p in module.parameters() if p.requires_grad] if module is not None else []
        for p in wanted:  # gradients of the input alone
            p.requires_grad_(False)
        try:
            found = entry.attack(env, seed=seed, **self.settings)
        finally:
            for p in wanted:
                p.requires_grad_(True)
        held = env.reset()[0]["perturbation"]  # nothing is dealt anew: these samples were assigned
        if not isinstance(found, Tensor) or found.shape != held.shape or found.dtype != held.dtype:
            return held.detach()
        good = env.threat.check(found.detach()).view(-1, *[1] * (held.dim() - 1))
        return torch.where(good, found.detach(), held)


def inner_of(agent: str, settings: dict[str, Any], queries: int) -> Inner:
    """The inner attack with those of the settings that the agent has."""
    known = settings_of(registry.agent(agent).attack)
    return Inner(agent, {k: v for k, v in settings.items() if k in known and v}, queries)


@dataclass
class Lesson:
    """What a loss may ask about one batch.

    Attributes:
        task, split, ids: the samples; `batch` of them, `labels` of that.
        victim: in training; given: as it was before, frozen.
        seed: of this step; step: its number; total: of them.
        memory: what a loss keeps from step to step.
    """

    task: Task
    split: str
    ids: list[int]
    victim: Victim
    given: Victim
    inner: Inner
    seed: int
    step: int
    total: int
    memory: dict[Any, Any]
    batch: Batch = field(init=False)

    def __post_init__(self) -> None:
        self.batch = self.task.samples(self.split, self.ids)

    @property
    def labels(self) -> Tensor:
        """The truth, (n, ...)."""
        return self.batch.labels

    @property
    def null(self) -> Tensor:
        """The clean perturbation."""
        return self.batch.null()

    def scores(self, p: Tensor | None = None, victim: Victim | None = None) -> Tensor:
        """Scores (n, *scores_shape) of perturbations, of the clean samples for None; differentiable."""
        x = self.batch.inputs(self.batch.look(self.null if p is None else p).form)
        keys = mix(self.batch.ids * 2**20 + self.seed) if self.victim.keyed else None
        found = ask(victim or self.victim, x, self.batch.members, keys)
        return found.reshape(len(self.ids), *self.task.goal.scores_shape)

    def loss(self, scores: Tensor) -> Tensor:
        """The task's own loss against the truth, (n,)."""
        return self.task.goal.loss(scores, self.labels)

    def attacked(self, victim: Victim | None = None) -> Tensor:
        """What the inner attack finds against the victim in training, or another one: (n, *shape)."""
        return self.inner(self.task, victim or self.victim, self.split, self.ids, self.seed)

    def kept(self, key: Any, find: Callable[[], Tensor]) -> Tensor:
        """A tensor (n, ...) that is found once for each sample and kept for later epochs."""
        store = self.memory.setdefault(key, {})
        if any(i not in store for i in self.ids):
            store.update(zip(self.ids, find(), strict=True))
        return torch.stack([store[i] for i in self.ids])

    def needs_field(self, what: str) -> None:
        """Refuse tasks whose perturbations are no real numbers.

        Raises:
            AdvgymError: with what the defense needs.
        """
        if self.batch.kind != "field":
            raise AdvgymError(
                f"{self.task.name} is played by edits and offers no gradient of its inputs, which {what} needs; "
                "take a defense that trains on what an agent finds, as adversarial-training"
            )

    def classes(self, scores: Tensor, what: str) -> tuple[Tensor, Tensor]:
        """(scores (m, classes), labels (m,)), the members of bundles as rows.

        Raises:
            AdvgymError: where an answer is no class.
        """
        goal = self.task.goal.inner if isinstance(self.task.goal, BundleGoal) else self.task.goal
        if not isinstance(goal, ClassGoal) or self.labels.shape != scores.shape[:-1]:
            raise AdvgymError(f"{self.task.name} offers no class for each input, which {what} needs")
        return scores.reshape(-1, scores.shape[-1]), self.labels.reshape(-1)

    def hidden(self, p: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """(scores, the outputs of all layers but the last that have a row for each input).

        Raises:
            AdvgymError: where the victim shows none.
        """
        seen: list[Tensor] = []
        rows = len(self.ids) * self.batch.members

        def keep(module: nn.Module, given: Any, found: Any) -> None:
            if isinstance(found, Tensor) and found.is_floating_point() and found.dim() > 1 and len(found) == rows:
                seen.append(found)

        assert self.victim.module is not None
        layers = [m for m in self.victim.module.modules() if any(True for _ in m.parameters(recurse=False))]
        hooks = [m.register_forward_hook(keep) for m in layers]
        try:
            scores = self.scores(p)
        finally:
            for hook in hooks:
                hook.remove()
        if len(seen) < 2:
            raise AdvgymError(f"victim {self.victim.name!r} of {self.task.name} offers no hidden layers by input")
        return scores, seen[:-1]


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Kullback-Leibler divergence of softmax(q) from softmax(p), over the last axis, summed per row: (n,)."""
    lp, lq = p.log_softmax(-1), q.log_softmax(-1)
    return (lp.exp() * (lp - lq)).flatten(1).sum(1)
