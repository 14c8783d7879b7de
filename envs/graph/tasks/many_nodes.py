"""Tasks against many nodes of one graph at once: flip a share of its edges."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor

from advgym.core.goals import ClassGoal
from advgym.core.task import Spec, Task
from advgym.core.victim import Victim, ask
from advgym.envs.graph import measures
from advgym.envs.graph.constraints.limits import Targets, Unnoticed, limits_of
from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.perturb.global_batch import GlobalBatch, GlobalGoal
from advgym.envs.graph.show import frames, many_nodes
from advgym.envs.graph.tasks.nodes import adapted, data_and_victim, public, surrogate_of
from advgym.errors import AdvgymError
from advgym.lib.options import takes

log = logging.getLogger("advgym")
SEEDS = 16  # lanes of the same graph that an evaluation may ask for
SUPPORT = 4  # a relaxed perturbation holds up to so many times the budget


class Share(Unnoticed, kw_only=True):
    """Of tasks that flip a share of a graph's edges."""

    eps: Annotated[float, Meta(gt=0, le=1, description="the budget, a share of the edges as in eps=0.05")] = 0.05
    of: Annotated[
        Literal["all", "targets"], Meta(description="the edges that eps is a share of; those with an end among targets")
    ] = "all"
    targets: Targets = 0


@takes(Share)
def edges(spec: Spec, options: Share) -> Task:
    """Flips of a share `eps` of the edges against all test nodes that the victim has right."""
    data, victim = data_and_victim(spec, knowledge_by_edges=True)
    nodes = members(data, victim, data.nodes["test"], options.targets)
    return replace(against(spec, options, data, victim, nodes), surrogate=surrogate_of(spec, data))


def against(spec: Spec, options: Share, data: NodeData, victim: Victim, nodes: Tensor) -> Task:
    """The task of flipping edges against `nodes`, int64 (M,): what evasion and poisoning share."""
    test, few = data.nodes["test"], bool(options.targets)
    edits, labels, limits = budget(data, nodes if few else test, options), data.labels[nodes], limits_of(options)

    def deal(split: str, ids: list[int], device: Any) -> GlobalBatch:
        graph, lanes = data.graph.to(device), torch.tensor(ids, dtype=torch.int64, device=device)
        many = labels.to(device).expand(len(ids), -1)
        return GlobalBatch(lanes, many, graph, nodes.to(device), edits=edits, support=SUPPORT * edits, limits=limits)

    inner = ClassGoal(data.classes, spec.threat.goal, data.class_names)
    goal = GlobalGoal(inner, len(nodes), None if few else len(nodes) / len(test))
    return Task(
        spec.name, victim, goal, spec.threat, {"test": SEEDS}, deal, context=public(data),
        show=partial(many_nodes.show, labels=data.labels, goal=inner), line=many_nodes.line,
        draw=partial(frames.draw_classes, labels=data.labels, goal=inner),
        columns=measures.columns(), adapt=adapted, notes=data.notes,
        offers=frozenset({"graph", "members", "edges", "flips"}),
    )  # fmt: skip


def budget(data: NodeData, nodes: Tensor, options: Share) -> int:
    """The number of undirected flips that `eps` and `of` allow."""
    pairs = data.graph.pairs
    if options.of == "targets":
        pairs = pairs[torch.isin(pairs, nodes).any(1)]
    edits = int(options.eps * len(pairs) + 1e-9)
    if edits < 1:
        raise AdvgymError(
            f"eps={options.eps} of {len(pairs)} edges is less than one flip: ask for at least {1 / len(pairs):g}"
        )
    return edits


@torch.no_grad()
def members(data: NodeData, victim: Victim, nodes: Tensor, many: int = 0) -> Tensor:
    """The nodes of `nodes` that the victim has right on the clean graph, the first `many` of them."""
    none = torch.empty(1, 0, 2, dtype=torch.int64)
    scores = ask(victim, GlobalRows(data.graph, nodes, none), len(nodes), torch.zeros(1, dtype=torch.int64))[0]
    right = nodes[scores.argmax(1) == data.labels[nodes]]
    if not len(right):
        raise AdvgymError(f"victim {victim.name!r} has none of the {len(nodes)} test nodes right")
    if many > len(right):
        raise AdvgymError(f"targets={many}: the victim has only {len(right)} of {len(nodes)} test nodes right")
    return right[:many] if many else right
