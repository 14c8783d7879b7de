"""Tasks on graphs, built from the rows of tasks.toml."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.goals import ClassGoal
from advgym.core.task import Spec, Task
from advgym.core.victim import Victim, first_answer
from advgym.envs.graph import measures
from advgym.envs.graph.constraints.limits import Cooccurrence, Flips, Influence, Unnoticed, limits_of
from advgym.envs.graph.data.datasets import load_nodes, load_wholes
from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.data.own import own_graph, unseen
from advgym.envs.graph.inputs.graphs import Graph, check_binary
from advgym.envs.graph.inputs.rows import GraphRows, randomise_cells, randomise_edges
from advgym.envs.graph.perturb.batches import EdgeBatch, FeatureBatch, NodeBatch
from advgym.envs.graph.perturb.dense import WholeBatch, randomise_dense
from advgym.envs.graph.show import frames, neighbourhood
from advgym.envs.graph.victims.modules import caching
from advgym.envs.graph.victims.recipes import node_victim
from advgym.envs.graph.victims.stacked import Stacked
from advgym.errors import AdvgymError, DataError
from advgym.lib.given import check_radius
from advgym.lib.options import Options, takes

log = logging.getLogger("advgym")
TRAIN = "all its labelled nodes are attacked: give the graph training nodes (`split` of its nodes, or train_mask)"
PUBLIC = 1 << 21  # features of larger graphs are not repeated in the context


class Edges(Unnoticed, kw_only=True):
    """Of `edges`."""

    edits: Flips
    influence: Influence = False


class Features(Options, kw_only=True):
    """Of `features`."""

    edits: Flips
    influence: Influence = False
    cooccurrence: Cooccurrence = False


class Wholes(Options):
    """Of `wholes`."""

    edits: Flips


@takes(Edges)
def edges(spec: Spec, options: Edges) -> Task:
    """Edge flips around one node of a graph."""
    return _nodes(spec, options, EdgeBatch)


@takes(Features)
def features(spec: Spec, options: Features) -> Task:
    """Flips of binary node features."""
    return _nodes(spec, options, FeatureBatch)


def _nodes(spec: Spec, options: Edges | Features, kind: type[NodeBatch]) -> Task:
    data, victim = data_and_victim(spec, knowledge_by_edges=kind is EdgeBatch)
    edits, influence, limits = options.edits, options.influence, limits_of(options)
    size = data.graph.size - int(influence)  # under influence the target itself stays as it is
    every = (size * (size - 1) // 2 if influence else size - 1) if kind is EdgeBatch else data.graph.features
    if edits != spec.row.get("constraint", {}).get("edits"):  # asked for: a row's own may cover a tiny graph
        check_radius("edits", edits, most=every * (size if influence and kind is FeatureBatch else 1))
    if kind is FeatureBatch:
        check_binary(data.graph.x, data.graph.names)
    dealt = apart(data)
    deal = dealer(data, dealt, kind, edits=edits, influence=influence, limits=limits)
    context = public(data)
    goal = ClassGoal(data.classes, spec.threat.goal, data.class_names)
    return Task(
        spec.name,
        victim,
        goal,
        spec.threat,
        {split: len(nodes) for split, nodes in dealt.items()},
        deal,
        context=context,
        randomise=randomise_edges if kind is EdgeBatch else randomise_cells,
        show=partial(neighbourhood.show_node, labels=data.labels, goal=goal),
        draw=partial(frames.draw_node, labels=data.labels),
        line=partial(neighbourhood.line_node, goal=goal),
        columns=measures.columns(),
        tells=partial(measures.tells, data, dealt),
        surrogate=surrogate_of(spec, data),
        adapt=adapted,
        notes=data.notes,
        lacks=lacking(dealt),
        offers=frozenset({"graph", "target", "flips"} | ({"edges"} if kind is EdgeBatch else set())),
    )


def dealer(data: NodeData, dealt: dict[str, Tensor], kind: type[NodeBatch], **settings: Any) -> Callable[..., Batch]:
    """What deals a task's targets, the nodes `dealt` of each split, as batches of a kind with its settings."""
    known = known_labels(data)

    def deal(split: str, ids: list[int], device: Any) -> NodeBatch:
        identity = torch.tensor(ids, dtype=torch.int64)
        target = dealt[split][identity]
        identity, labels, target = (t.to(device) for t in (identity, data.labels[target], target))
        return kind(identity, labels, data.graph.to(device), target, known.to(device), data.classes, **settings)

    return deal


def apart(data: NodeData) -> dict[str, Tensor]:
    """The nodes of each split: in "train" none that is attacked, and no such split where none is left."""
    train = data.nodes["train"]
    rest = train[~torch.isin(train, data.nodes["test"])]
    return {split: nodes for split, nodes in {**data.nodes, "train": rest}.items() if split != "train" or len(rest)}


def lacking(nodes: Mapping[str, Tensor]) -> dict[str, str]:
    """What would give the split "train", where there is none."""
    return {} if "train" in nodes else {"train": TRAIN}


def known_labels(data: NodeData) -> Tensor:
    """The labels that an attacker knows, int64 (N,): those of training nodes; -1 elsewhere."""
    known = torch.full_like(data.labels, -1)
    if not torch.equal(data.nodes["train"], data.nodes["test"]):
        known[data.nodes["train"]] = data.labels[data.nodes["train"]]
    return known


def public(data: NodeData) -> dict[str, Any]:
    """What everybody knows of a graph: `env.context`."""
    graph = data.graph
    return {
        "edge_index": graph.edge_index(),
        "x": graph.x if graph.x.numel() <= PUBLIC else None,
        "num_nodes": graph.size,
        "labels": known_labels(data),
    }


def named(spec: Spec) -> tuple[NodeData, Victim | None]:
    """The graph, and the caller's victim or the one that the row names.

    None where one is to be made for the caller's own graph: its training nodes are then no samples.
    """
    data = own_graph(spec.samples) if spec.samples is not None else load_nodes(spec.load_dataset())
    victim = spec.victim
    if victim is None and spec.samples is None and "victim" in spec.row:
        victim = spec.load_victim()
    if victim is None:
        data = replace(data, nodes=unseen(data))
    return data, victim


def data_and_victim(spec: Spec, *, knowledge_by_edges: bool) -> tuple[NodeData, Victim]:
    """The graph and a victim that answers rows about it.

    With `knowledge_by_edges` gradients are by edges: a model that takes no edge_weight has none.
    """
    data, victim = named(spec)
    if victim is None:
        log.warning("no victim was given: training a GCN on %d nodes of this graph", len(data.nodes["train"]))
        victim = node_victim("own-gcn", data=data)
    else:
        victim = adapted(victim, edges=knowledge_by_edges, graph=data.graph)
    return _fit_classes(data, victim), victim


def adapted(victim: Victim, *, edges: bool = True, graph: Graph | None = None) -> Victim:
    """A victim that answers rows of graphs: itself where it does, a PyG-style model stacked."""
    rows = getattr(victim.model, "takes_rows", False) or victim.keyed
    return victim if rows else _stacked(victim, graph, edges=edges)


def surrogate_of(spec: Spec, data: NodeData) -> Victim | None:
    """Under transfer, the row's surrogate for the caller's own graph: an SGC that is trained on it; None otherwise."""
    if spec.threat.knowledge != "transfer" or spec.samples is None or "surrogate" not in spec.row:
        return None
    return node_victim("own-sgc", model="sgc", lr=0.2, data=replace(data, nodes=unseen(data)))


def _stacked(victim: Victim, graph: Graph | None, *, edges: bool) -> Victim:
    """A PyG-style model of (x, edge_index, edge_weight=None) as a victim of this task."""
    model, card = Stacked(victim.model, victim.name), victim.card
    access = victim.access
    if kept := caching(victim.model):
        log.warning("victim %r caches the first graph it sees: off while it is asked, in %s", victim.name, kept)
        card = {**card, "caching_off": kept}
    if access == "gradients" and edges and not model.weighted and not (graph is not None and model.sums(graph)):
        access = "scores"
        log.warning("victim %r takes no edge_weight: no gradients by edges, knowledge is 'score' at most", victim.name)
    return victim.like(model, access=access, card=card)


@torch.no_grad()
def _fit_classes(data: NodeData, victim: Victim) -> NodeData:
    """One clean answer: the classes are the victim's, and one of another graph is refused before any attack."""
    if isinstance(victim.model, Stacked):
        classes = victim.on("cpu").model.clean(data.graph).shape[1]  # type: ignore[attr-defined]
    else:
        rows = GraphRows(data.graph, data.nodes["test"][:1], torch.empty(1, 0, 2, dtype=torch.int64))
        what = f"this graph of {data.graph.size} nodes with {data.graph.features} features (made for another graph?)"
        classes = first_answer(victim.on("cpu"), rows, torch.zeros(1, dtype=torch.int64), what).shape[1]
    if classes < data.classes:
        raise DataError(f"the victim tells {classes} classes apart, but the labels go up to {data.classes - 1}")
    return replace(data, classes=classes, class_names=data.class_names if classes == data.classes else None)


@takes(Wholes)
def wholes(spec: Spec, options: Wholes) -> Task:
    """Edge flips in whole graphs."""
    if spec.samples is not None:
        raise AdvgymError(f"task {spec.name!r} takes no samples=: pass dataset= the path of a text file of graphs")
    name = spec.load_dataset()
    data = load_wholes(name)
    victim = spec.load_victim()

    def deal(split: str, ids: list[int], device: Any) -> WholeBatch:
        identity = torch.tensor(ids, dtype=torch.int64)
        at = data.split[split][identity]
        return WholeBatch(
            identity.to(device), data.labels[at].to(device), data.x[at].to(device), data.adjacency[at].to(device),
            data.count[at].to(device), options.edits,
        )  # fmt: skip

    goal = ClassGoal(data.classes, spec.threat.goal, data.class_names)
    return Task(
        spec.name,
        victim,
        goal,
        spec.threat,
        {split: len(index) for split, index in data.split.items()},
        deal,
        context={"nodes_max": data.x.shape[1], "tags": data.x.shape[2]},
        randomise=randomise_dense,
        show=partial(neighbourhood.show_whole, goal=goal),
        draw=frames.draw_whole,
        line=partial(neighbourhood.line_whole, goal=goal),
        notes=data.notes,
        tells=lambda split, ids: {"nodes": data.count[data.split[split][torch.tensor(ids)]].tolist()},
    )
