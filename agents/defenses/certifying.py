"""Going on with a victim's training under another loss, kept in the cache."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from advgym import AdvgymError, Victim
from advgym.core.batch import Batch
from advgym.core.rng import bits
from advgym.core.task import Task
from advgym.lib.content import digest
from advgym.lib.fit import descend
from advgym.lib.weights import load_or_train, weights_hash

Loss = Callable[[nn.Module, Batch, float, int], Tensor]


def trained(
    victim: Victim, task: Task, label: str, loss: Loss, *, samples: int, epochs: int, batch: int, lr: float, seed: int,
    **recipe: Any,
) -> Victim:  # fmt: skip
    """A copy of the victim whose module went on learning; Adam with a rate that falls to zero.

    Args:
        loss: (module, clean samples, share of the training that is over, step) -> what to lessen.
        samples: of the split "train", keyed by the seed; fewer where it has fewer.
        recipe: what else the weights depend on.

    Raises:
        AdvgymError: for a victim that is no module, or a task without a split "train".
    """
    if victim.module is None:
        raise AdvgymError(f"victim {victim.name!r} is no module, so it cannot be trained")
    given = victim.module
    if task.plain is not None:  # one defended victim, whatever budget it is attacked with
        task = replace(task.plain(), victim=victim)
    split = task.check_split("train")  # never what is attacked
    chosen = bits(seed, torch.arange(task.sizes[split])).argsort()[:samples]
    steps = -(-len(chosen) // batch) * epochs

    def train(module: nn.Module) -> dict[str, Any]:
        module.requires_grad_(True)
        optimiser = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr)
        rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / (steps + 1))
        done = iter(range(steps))

        def each() -> Iterator[list[Tensor]]:
            for epoch in range(epochs):
                yield list(chosen[bits(seed, chosen, (), 1 + epoch).argsort()].split(batch))

        def value(ids: Tensor) -> Tensor:
            step = next(done)
            return loss(module, task.samples(split, ids.tolist()), step / steps, step)

        descend(module, value, each(), optimiser, schedule=rate, clip=5.0)
        return {"trained_on": len(chosen)}

    found = {
        "victim": weights_hash(given), "task": task.name, "sizes": dict(task.sizes), "label": label,
        "constraint": dict(task.threat.constraint), "content": _content(task, split, chosen), "samples": samples,
        "epochs": epochs, "batch": batch, "lr": lr, "seed": seed, **recipe,
    }  # fmt: skip
    name = f"{victim.name}-{label}"
    module, card = load_or_train(name, lambda: copy.deepcopy(given), train, recipe=found)
    return victim.like(module, name=name, card={**victim.card, **card})


def _content(task: Task, split: str, ids: Tensor) -> str:
    """The digest of what is learnt from: clean inputs and labels."""
    parts = []
    for some in ids.split(1024):
        clean = task.samples(split, some.tolist())
        parts.append(digest(clean.labels, clean.inputs(clean.look(clean.null()).form)))
    return digest(parts)
