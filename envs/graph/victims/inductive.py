"""Inductive node classification: the victim has never seen the test nodes, nor an edge of theirs, while it learned.

The protocol of Gosch et al. (2023) and EvA (2026) on Cora-ML (Bojchevski & Guennemann 2018): of the largest component,
20 nodes of each class train, 20 of each class validate, a stratified tenth of all nodes is attacked, the rest is
unlabelled. The victim is trained on the graph without the tenth and answers on the whole one.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core import rng
from advgym.core.victim import Victim
from advgym.envs.graph.data.datasets import NodeData, _folder, load_nodes
from advgym.envs.graph.data.interchange import read_npz
from advgym.envs.graph.inputs.graphs import Graph, check_features, content_hash
from advgym.envs.graph.victims.recipes import GCN, SGC, fit_nodes
from advgym.errors import DataError
from advgym.lib.weights import load_or_train

CORA_ML_SHA256 = "94fe12c2d5ee8054ab219916ea092d6285f51a80975a13d631301163195e094b"  # of edges, features and labels
PER_CLASS, SHARE = 20, 0.1
_SPELLING = re.compile(r"cora-ml(?:#([0-9]{1,9}))?")


def load(name: str) -> NodeData:
    """Cora-ML in an inductive split: "cora-ml" or "cora-ml#SPLIT", a number that the split is drawn by (0 without).

    Raises:
        DataError: for another spelling, or files that are missing or not the public ones.
    """
    found = _SPELLING.fullmatch(name)
    if found is None:
        raise DataError(f"the inductive splits of Cora-ML are spelled cora-ml#0, cora-ml#1, ..., not {name!r}")
    path = _folder("cora-ml", "graph", "npz", "cora_ml.npz")
    size, pairs, x, labels = read_npz(path, largest_component=True)
    if x is None:
        raise DataError(f"{path} holds no features (attr_*)")
    graph = Graph(size, pairs, check_features(x))
    if (digest := content_hash(graph, labels)) != CORA_ML_SHA256:
        raise DataError(f"{path} is not the public Cora-ML (SHA-256 of its content {digest[:12]}...)")
    return NodeData(graph, labels, int(labels.max()) + 1, split(labels, int(found[1] or 0)))


def split(labels: Tensor, seed: int, per_class: int = PER_CLASS, share: float = SHARE) -> dict[str, Tensor]:
    """Disjoint node ids, each list ascending: `per_class` of each class for "train" and "val", "test" by shares.

    Of the test nodes every class gets its part of `share` of all labelled nodes, rounded to the nearest whole node.

    Raises:
        DataError: where a class has too few nodes.
    """
    parts: dict[str, list[Tensor]] = {"train": [], "val": [], "test": []}
    for label in sorted(set(labels[labels >= 0].tolist())):
        nodes = (labels == label).nonzero()[:, 0]
        tested = round(share * len(nodes))
        if len(nodes) < 2 * per_class + tested:
            raise DataError(f"class {label} has {len(nodes)} nodes; the split needs {2 * per_class + tested} of it")
        drawn = nodes[rng.bits(seed, nodes, stream=46).argsort()]
        for name, part in zip(parts, drawn.split([per_class, per_class, len(nodes) - 2 * per_class]), strict=True):
            parts[name].append(part[:tested] if name == "test" else part)
    return {name: torch.cat(part).sort().values for name, part in parts.items()}


def induced(data: NodeData, without: str = "test") -> NodeData:
    """The data without the nodes of one split and their edges; nodes are numbered anew, in their order."""
    gone = torch.zeros(data.graph.size, dtype=torch.bool)
    gone[data.nodes[without]] = True
    place = torch.where(gone, -1, (~gone).cumsum(0) - 1)
    pairs = place[data.graph.pairs]
    graph = Graph(
        int((~gone).sum()), pairs[(pairs >= 0).all(1)], data.graph.x[~gone], row_norm=data.graph.row_norm
    )  # fmt: skip
    nodes = {name: place[part] for name, part in data.nodes.items() if name != without}
    return NodeData(graph, data.labels[~gone], data.classes, nodes, data.class_names)


def inductive_victim(
    name: str, dataset: str = "cora-ml", model: str = "gcn", epochs: int = 200, lr: float = 0.01, decay: float = 5e-3,
    hidden: int = 64, seed: int = 0, data: Any = None,
) -> Victim:  # fmt: skip
    """A GCN or SGC trained on the graph without the test nodes of `dataset` (or of `data`), if it is missing.

    The card's `clean_accuracy` is that of the test nodes in the whole graph.
    """
    found = load_nodes(dataset) if data is None else data
    known = induced(found)
    recipe = {"dataset": dataset, "model": model, "epochs": epochs, "lr": lr, "decay": decay, "hidden": hidden,
              "seed": seed, "inductive": True, "content": found.digest()}  # fmt: skip

    def build() -> nn.Module:
        return (
            GCN(known.graph.features, found.classes, hidden)
            if model == "gcn"
            else SGC(known.graph.features, found.classes)
        )

    def train(module: Any) -> dict[str, Any]:
        nodes = known.nodes
        card = fit_nodes(module, known.graph, known.labels, nodes["train"], nodes["val"], nodes["val"],
                         epochs=epochs, lr=lr, decay=decay)  # fmt: skip
        module.eval()
        with torch.no_grad():
            scores = module.full(found.graph.inputs_x(), found.graph.edge_index())
        test = found.nodes["test"]
        right = float((scores[test].argmax(1) == found.labels[test]).float().mean())
        return {**card, "clean_accuracy": right, "val_accuracy": card["clean_accuracy"], "test_size": len(test)}

    module, card = load_or_train(name, build, train, recipe=recipe)
    return Victim(module, name=name, card=card)
