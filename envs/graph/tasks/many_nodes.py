"""Tasks against many nodes of one graph at once: flip a share of its edges."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from advgym.core.goals import ClassGoal
from advgym.core.task import Spec, Task
from advgym.core.victim import Victim, ask
from advgym.envs.graph import measures
from advgym.envs.graph.constraints.limits import count, limits_of
from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.perturb.global_batch import GlobalBatch, GlobalGoal
from advgym.envs.graph.show import frames, many_nodes
from advgym.envs.graph.tasks.nodes import adapted, data_and_victim, public, surrogate_of
from advgym.errors import AdvgymError

log = logging.getLogger("advgym")
SEEDS = 16  # lanes of the same graph that an evaluation may ask for
SUPPORT = 4  # a relaxed perturbation holds up to so many times the budget


def edges(spec: Spec) -> Task:
    """Flips of a share `eps` of the edges against all test nodes that the victim has right.

    Options of the constraint: `eps`, the budget as a share of the undirected edges; `of`, which ones it is a share of
    ("all", or "targets": those with an end among the members); `targets`, how many members (0 for all).
    """
    data, victim = data_and_victim(spec, knowledge_by_edges=True)
    nodes = members(data, victim, data.nodes["test"], count(spec.threat.constraint, "targets", 0))
    return replace(against(spec, data, victim, nodes), surrogate=surrogate_of(spec, data))


def against(spec: Spec, data: NodeData, victim: Victim, nodes: Tensor) -> Task:
    """The task of flipping edges against `nodes`, int64 (M,): what evasion and poisoning share."""
    options, test = spec.threat.constraint, data.nodes["test"]
    few = bool(options.get("targets", 0))
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


def budget(data: NodeData, nodes: Tensor, options: Any) -> int:
    """The number of undirected flips that `eps` and `of` allow."""
    eps, of = options.get("eps", 0.05), options.get("of", "all")
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 0 < float(eps) <= 1:
        raise AdvgymError(f"eps is a share of the edges in (0, 1], as in eps=0.05, not {eps!r}")
    if of not in ("all", "targets"):
        raise AdvgymError(f"of is 'all' or 'targets' (edges with an end among them), not {of!r}")
    pairs = data.graph.pairs
    if of == "targets":
        pairs = pairs[torch.isin(pairs, nodes).any(1)]
    edits = int(float(eps) * len(pairs) + 1e-9)
    if edits < 1:
        raise AdvgymError(f"eps={eps} of {len(pairs)} edges is less than one flip: ask for at least {1 / len(pairs):g}")
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
