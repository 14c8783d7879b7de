"""Poisoning: flip edges before the victim is trained; one query is one training run on the perturbed graph.

Members are test nodes that clean runs have right. The victim is keyed: every query starts a fresh run, and the verdict
is the majority of the verifier's own. Gradients come from a surrogate whose training is differentiable.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor

from advgym.core.task import Spec, Task
from advgym.core.victim import Victim, ask
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.models.training import Fitted, Retrained, Unrolled
from advgym.envs.graph.tasks.many_nodes import Share, against
from advgym.envs.graph.tasks.nodes import named
from advgym.envs.graph.victims.refit import Refitted
from advgym.errors import AdvgymError
from advgym.lib.options import takes

_members: dict[tuple[Any, ...], tuple[Tensor, Any]] = {}


# -- victims ----------------------------------------------------------------------------------------------------------
def retrained_victim(
    name: str, dataset: str = "", model: str = "gcn", data: NodeData | None = None, **options: Any
) -> Victim:
    """A model that is trained for every answer; knowledge up to scores.

    Args:
        model: "gcn", whose runs go side by side (`Retrained`), "sgc" or any model of the zoo (`refit.Refitted`).
        options: of the training (epochs, lr, decay ...) and of the model (hidden ...).
    """
    found = data if data is not None else load_nodes(dataset)
    run: Fitted
    if model == "gcn":
        run = Retrained(found.labels, found.nodes["train"], found.classes, **options)
    else:
        run = Refitted(found, model, **options)
    card = {"model": model, "train_size": len(found.nodes["train"])}
    return Victim(run, name=name, access="scores", keyed=True, retrains=True, card=card)


def unrolled_victim(
    name: str, dataset: str = "", steps: int = 100, lr: float = 0.1, momentum: float = 0.9, exact: bool = True,
    hidden: int = 16, seed: int = 0, data: NodeData | None = None,
) -> Victim:  # fmt: skip
    """A training run with exact meta-gradients (`Unrolled`), or with a first-order part of them (`exact=False`)."""
    found = data if data is not None else load_nodes(dataset)
    model = Unrolled(
        found.labels, found.nodes["train"], found.classes, hidden, steps=steps, lr=lr, momentum=momentum, exact=exact,
        seed=seed,
    )  # fmt: skip
    return Victim(model, name=name, retrains=True, card={"train_size": len(found.nodes["train"])})


# -- the task ---------------------------------------------------------------------------------------------------------
class Poison(Share, kw_only=True):
    """Of `edges`; runs differ by chance, and what one of them has wrong is no success."""

    fresh: Annotated[
        int, Meta(ge=1, le=64, description="clean training runs that must all have a test node right for a member")
    ] = 5


@takes(Poison)
def edges(spec: Spec, options: Poison) -> Task:
    """Flips of a share `eps` of the edges of the graph that the victim is then trained on."""
    data, victim = named(spec)
    if victim is None:
        victim = retrained_victim("own-retrained", data=data)
    elif not isinstance(victim.model, Fitted):
        raise AdvgymError(
            f"{spec.name} trains its victim anew for every query, and {victim.name!r} is trained already: pass none (a "
            "GCN is trained), a name such as 'sbm-retrained-gat', or poison.retrained_victim(name, model=, data=)"
        )
    surrogate = None
    if spec.threat.knowledge == "transfer" and (spec.samples is not None or "surrogate" not in spec.row):
        surrogate = unrolled_victim("own-unrolled", data=data)
    nodes = members(data, victim, data.nodes["test"], options.fresh, options.targets)
    task = against(spec, options, data, victim, nodes)
    return replace(task, surrogate=surrogate, offers=task.offers | {"training"})


@torch.no_grad()
def members(data: NodeData, victim: Victim, nodes: Tensor, fresh: int, many: int = 0) -> Tensor:
    """Those of `nodes` that all of `fresh` training runs on the clean graph have right, the first `many` of them."""
    key = (id(victim.model), data.graph.serial, nodes.numpy().tobytes(), fresh)
    if key not in _members:
        none = torch.full((fresh, 0, 2), -1)
        scores = ask(victim, GlobalRows(data.graph, nodes, none), len(nodes), torch.arange(fresh) - fresh)
        # The model is held too, so that no other can take its id.
        _members[key] = nodes[(scores.argmax(2) == data.labels[nodes]).all(0)], victim.model
    right, _ = _members[key]
    if len(right) < max(many, 1):
        raise AdvgymError(
            f"{fresh} training runs of victim {victim.name!r} agree on {len(right)} of {len(nodes)} test nodes: "
            f"targets is at most that, not {many}"
        )
    return right[:many] if many else right
