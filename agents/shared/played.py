"""What training by play depends on: the samples that are played, their tables, and the victim, all by content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from advgym import AdvgymError, registry
from advgym.core.task import Task, make_task
from advgym.lib.content import digest
from advgym.lib.weights import weights_hash

ROWS = 256  # samples at a time
# What the policies that ship were trained on. Of embedded data that a generator draws the name says it all.
RELEASED = {"text/mr-wordswap": "0399a47d76550e36", "graph/karate-edge": "5481ba09f221dbf0"}


def content_of(name: str, options: Mapping[str, Any], fixed: tuple[str, ...] = ()) -> dict[str, str]:
    """What a recipe says beside a task's name: the digest of what is played, unless the name stands for it.

    Args:
        options: of the task: the caller's victim, samples, `train`, threat model.
        fixed: options that training sets by itself.
    """
    for key in fixed:
        if key in options:
            raise AdvgymError(f"{key} is no option of a policy's task: training sets it")
    if not options and registry.task_row(name)[1].get("generator"):
        return {}
    task = make_task(name, **options)
    task.check_split("train")
    own = {"victim", "defenses"} & set(options)
    named = not own or (own == {"victim"} and isinstance(options["victim"], str))
    found = played(task, "train", named=named)
    return {} if RELEASED.get(name) == found else {"content": found}


def played(task: Task, split: str, *, named: bool = False) -> str:
    """The digest of a split, of what its tables offer, of the threat model and of the victim.

    Args:
        named: the victim comes from a registered row, whose recipe stands for it: weights that are trained again
            elsewhere differ in their last digits.
    """
    threat = task.threat
    parts: list[str] = []
    answers = task.victim.module is None  # of a callable nothing else can be read
    for start in range(0, task.sizes[split], ROWS):
        batch = task.samples(split, list(range(start, min(start + ROWS, task.sizes[split]))))
        clean = batch.inputs(batch.look(batch.null()).form)
        said = task.victim(clean, torch.zeros(len(clean), dtype=torch.int64)) if answers and not parts else None
        parts.append(digest(batch.labels, clean, getattr(batch, "payloads", None), getattr(batch, "limit", None), said))
    strings = getattr(task.samples(split, [0]), "strings", None)
    rules = [threat.goal, threat.least, threat.probes, dict(threat.constraint)]
    return digest(parts, None if strings is None else list(strings), rules, _victim(task, named=named))


def _victim(task: Task, *, named: bool) -> Any:
    """A victim by its recipe, or its layers and weights; a callable counts by its answers alone."""
    victim = task.victim
    if named and "recipe" in victim.card:
        return victim.card["recipe"]
    if victim.module is None:
        return None
    return [type(m).__name__ for m in victim.module.modules()], weights_hash(victim.module)
