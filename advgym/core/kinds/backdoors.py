"""The task of a backdoor, in any domain: a domain gives the data, the trigger and what is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor

from advgym.core import rng
from advgym.core.goals import ClassGoal
from advgym.core.kinds.poison import BackdoorGoal, RelabelBatch, Trigger, TriggeredBatch
from advgym.core.kinds.retraining import Retrained
from advgym.core.task import Spec, Task
from advgym.core.victim import Victim
from advgym.errors import AdvgymError
from advgym.lib.options import Options

Pairs = tuple[Tensor, Tensor]  # inputs float32 (N, *shape), labels int64 (N,)


class Poisoning(Options, kw_only=True):
    """What every backdoor states."""

    share: Annotated[float, Meta(gt=0, le=1, description="of the training rows, of clean labels of the class's rows")]
    members: Annotated[int, Meta(ge=2, le=1000, description="inputs with the trigger that one answer is about")]
    eps: Annotated[float, Meta(ge=0, le=1, description="radius of what is added, of clean labels; 0: others")] = 0.0


def check_victim(spec: Spec, victim: Victim, rows: int) -> Victim:
    """The victim, if it is a training run on so many rows."""
    model = victim.model
    if not isinstance(model, Retrained):
        raise AdvgymError(
            f"{spec.name} trains its victim anew for every query, and {victim.name!r} is trained already: pass none, "
            "or a victim named *-retrained"
        )
    if len(model.labels) != rows:
        raise AdvgymError(
            f"victim {victim.name!r} learns from {len(model.labels)} rows, and {spec.name} has {rows}: pass none"
        )
    return victim


def backdoor(
    spec: Spec, victim: Victim, train: Pairs, test: Pairs, trigger: Trigger, options: Poisoning, *,
    names: Sequence[str] = (), line: Callable[..., str] | None = None,
) -> Task:  # fmt: skip
    """One sample for each class: inputs with the trigger shall be taken for it by what is trained on the poisoned rows.

    Its members are `members` test inputs of other classes; the verdict is on as many others.
    """
    share, members, eps = options.share, options.members, options.eps or None
    if eps is None and share > 0.5:
        raise AdvgymError(f"share={share:g}: of all rows at most half are relabelled, share=0.5")
    (x, known), (tx, truth) = train, test
    classes = victim.card["classes"]
    least = int(torch.bincount(known, minlength=classes).min())
    poisons = int(share * (len(known) if eps is None else least) + 1e-9)
    if poisons < 1:
        raise AdvgymError(f"share={share:g} is less than one row: ask for more, or give more rows to train on")
    order = rng.bits(0, torch.arange(len(truth)), (), 58).argsort()
    others = [order[truth[order] != c] for c in range(classes)]
    if min(map(len, others)) < 2 * members:
        most = min(map(len, others)) // 2
        raise AdvgymError(f"members={members}: there are test inputs for {most} to ask about, and as many to judge on")
    first = torch.arange(len(known))
    rows = [first[known == c][:poisons] for c in range(classes)] if eps is not None else []
    held: dict[str, Pairs] = {}

    def dealt(ids: list[int], device: Any, start: int) -> RelabelBatch | TriggeredBatch:
        if str(device) not in held:
            held[str(device)] = (x.to(device), known.to(device))
        xs, labels = held[str(device)]
        index = torch.stack([others[i][start : start + members] for i in ids])
        lanes = torch.tensor(ids, dtype=torch.int64, device=device)
        asked, true = tx[index].to(device), truth[index].to(device)
        here = trigger._replace(cover=trigger.cover.to(device), paint=trigger.paint.to(device))
        if eps is None:
            return RelabelBatch(lanes, true, xs, labels, asked, here, classes=classes, poisons=poisons)
        sites = torch.stack([rows[i] for i in ids]).to(device)
        return TriggeredBatch(lanes, true, sites, xs[sites], labels[sites], asked, here, radius=eps)

    def deal(split: str, ids: list[int], device: Any = "cpu") -> RelabelBatch | TriggeredBatch:
        return dealt(ids, device, 0)

    def unseen(split: str, ids: list[int], device: Any = "cpu") -> RelabelBatch | TriggeredBatch:
        return dealt(ids, device, members)

    inner = ClassGoal(classes, spec.threat.goal, list(names) or None)
    return Task(
        spec.name, victim, BackdoorGoal(inner, members, every=True), spec.threat, {"test": classes}, deal,
        unseen=unseen,
        context={"inputs": x, "labels": known, "classes": classes}, line=line,
        offers=frozenset({"training", "relabelled" if eps is None else "triggered"}),
    )  # fmt: skip
