"""Inductive node classification: the victim has never seen the test nodes, nor an edge of theirs, while it learned.

The protocol of Gosch et al. (2023) and EvA (2026) on Cora-ML (Bojchevski & Guennemann 2018): of the largest component,
20 nodes of each class train, 20 of each class validate, a stratified tenth of all nodes is attacked, the rest is
unlabelled. The victim is trained on the graph without the tenth and answers on the whole one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from advgym.core.victim import Victim
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.victims.recipes import GCN, SGC, fit_nodes
from advgym.lib.weights import load_or_train


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
