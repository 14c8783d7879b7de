"""Adversarial training with any agent as the inner attack (Madry et al. 2018, generalised)."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from advgym import AdvgymError, AttackEnv, Victim, register_defense, registry
from advgym.core.rng import bits, mix
from advgym.core.task import Task
from advgym.core.victim import ask
from advgym.lib.content import digest
from advgym.lib.settings import COUNT, POSITIVE
from advgym.lib.weights import load_or_train, weights_hash

_SETTINGS = {"pgd": {"steps": 7, "step_size": 0.25}}  # a shorter inner attack, as is the custom


@register_defense(
    "adversarial-training",
    allowed={"samples": COUNT, "epochs": COUNT, "batch": COUNT, "lr": POSITIVE, "queries": COUNT},
)
def defend(
    victim: Victim, task: Task, *, agent: str = "", samples: int = 768, epochs: int = 2, batch: int = 64,
    lr: float = 1e-3, queries: int = 60, seed: int = 0,
) -> Victim:  # fmt: skip
    """Go on training the victim on what `agent` finds against it, half clean and half attacked.

    The inner attack plays the task itself (with `queries` per sample, on the train split), so it knows no domain. The
    default is `pgd` for Fields and `first-order` for Edits. The result is kept in the cache. The graph victims
    `*-gcn-robust` are another method: trained from the start, on flips of the whole graph, with self-training.
    """
    given = victim.module
    if given is None:
        raise AdvgymError(f"victim {victim.name!r} is no module, so it cannot be trained")
    if task.plain is not None:  # one defended victim, whatever eps, goal and budget it is attacked with
        task = replace(task.plain(), victim=victim)
    split = task.check_split("train")  # never what is attacked
    kind = task.samples(split, [0]).kind
    entry = registry.agent(agent or ("pgd" if kind == "field" else "first-order"))
    recipe = {
        "victim": weights_hash(given), "task": task.name, "sizes": dict(task.sizes), "agent": entry.name,
        "goal": task.threat.goal, "constraint": dict(task.threat.constraint),
        "content": _content(task, split, samples, batch, [seed + e for e in range(epochs)]),
        "samples": samples, "epochs": epochs, "batch": batch, "lr": lr, "queries": queries, "seed": seed,
    }  # fmt: skip

    def train(module: torch.nn.Module) -> dict[str, object]:
        inner = _wrapped(victim, module)
        module.requires_grad_(True)
        optimiser = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr)
        for epoch in range(epochs):
            for ids in _batches(task.sizes[split], samples, batch, seed + epoch):
                _epoch_step(_at(task, inner, entry, queries), entry, ids, split, module, optimiser, seed + epoch)
        return {"inner": entry.name}

    label = f"{victim.name}-at-{entry.name}"
    module, card = load_or_train(label, lambda: copy.deepcopy(given), train, recipe=recipe)
    return _wrapped(victim, module, label, {**victim.card, **card})


def _epoch_step(task, entry, ids, split, module, optimiser, seed) -> None:
    env = AttackEnv(task, proposals=entry.proposals, split=split, assigned=ids)
    module.requires_grad_(False).eval()
    entry.attack(env, seed=seed, **_SETTINGS.get(entry.name, {}))
    clean = env.threat.null()
    held = env.reset()[0]["perturbation"]  # nothing is dealt anew: these samples were assigned
    module.requires_grad_(True)
    optimiser.zero_grad()
    batch = task.samples(split, ids)
    keys = mix(batch.ids * 2**8 + seed) if task.victim.keyed else None  # a victim that draws at random needs them
    losses, shape = [], (len(ids), *task.goal.scores_shape)  # the members of a bundle apart
    for p in (clean, held):
        scores = ask(task.victim, env.threat.apply(p), batch.members, keys).reshape(shape)
        losses.append(task.goal.loss(scores, batch.labels).mean() / 2)
    (losses[0] + losses[1]).backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimiser.step()


def _content(task: Task, split: str, samples: int, batch: int, seeds: list[int]) -> str:
    """The digest of the samples that training will see: clean inputs and labels."""
    ids = sorted({i for seed in seeds for part in _batches(task.sizes[split], samples, batch, seed) for i in part})
    parts = []
    for start in range(0, len(ids), batch):
        clean = task.samples(split, ids[start : start + batch])
        parts.append(digest(clean.labels, clean.inputs(clean.look(clean.null()).form)))
    return digest(parts)


def _at(task: Task, victim: Victim, entry, queries: int) -> Task:
    """The task as the inner attack plays it: against the victim in training, with fewer queries."""
    threat = replace(task.threat, queries=queries, gradients=queries, knowledge=entry.knowledge, least=False)
    return replace(task, victim=victim, threat=threat)


def _wrapped(victim: Victim, module: torch.nn.Module, name: str | None = None, card: dict | None = None) -> Victim:
    twin = copy.copy(victim)
    twin.model, twin.name, twin.card = module, name or victim.name, card or victim.card
    return twin


def _batches(size: int, samples: int, batch: int, seed: int) -> list[list[int]]:
    order = bits(seed, torch.arange(size)).argsort()[:samples].tolist()
    return [order[i : i + batch] for i in range(0, len(order), batch)]
