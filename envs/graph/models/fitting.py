"""One trainer for all models of the zoo: full-batch Adam with dropout, the best epoch on validation kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.models.propagation import Propagation
from advgym.lib.fit import descend


class Dropped(Features):
    """Clean features of which a share `p` is off, drawn anew from torch's generator by `draw`."""

    def __init__(self, graph: Graph, p: float) -> None:
        super().__init__(graph, 1)
        self._p, self._clean = p, graph.inputs_x().to_sparse_coo().coalesce()

    def draw(self) -> Dropped:
        """Itself, with other features off."""
        clean = self._clean
        value = F.dropout(clean.values(), self._p)
        with torch.sparse.check_sparse_tensor_invariants(False):
            self._x = torch.sparse_coo_tensor(clean.indices(), value, clean.shape, is_coalesced=True)
        return self

    def linear(self, weight: Tensor) -> Tensor:
        """See `Features`."""
        out: Tensor = torch.sparse.mm(self._x.to(weight.dtype), weight)
        return out.unsqueeze(1)

    def dense(self) -> Tensor:
        """See `Features`."""
        return self._x.to_dense().unsqueeze(1)


def fit(
    model: Propagation, data: NodeData, *, epochs: int = 200, lr: float = 0.01, decay: float = 5e-4,
    drop: float = 0.5, warm: int = 0, labels: Tensor | None = None,
    perturb: Callable[[Propagation, int], Tensor] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train in place on the nodes of the split "train"; returns the card's figures.

    Draws from torch's generator: callers seed it (`load_or_train` does, inside a fork).

    Args:
        epochs, lr, decay: of Adam; the decay is on all matrices and no bias.
        drop: dropout of input features.
        warm: epochs before the best one on "val" is looked for; the last epoch is kept where there is no "val".
        labels: int64 (N,) to learn instead of the split's own, -1 for none (self-training); all nodes train.
        perturb: (model, epoch) -> int64 (1, E, 2) flips of the graph to train on (adversarial training).
    """
    graph, nodes = data.graph, data.nodes["train"]
    truth = data.labels
    if labels is not None:
        nodes, truth = (labels >= 0).nonzero()[:, 0], labels
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.Adam(groups, lr=lr)
    none = torch.empty(1, 0, 2, dtype=torch.int64, device=graph.device)
    features = Dropped(graph, drop)
    started = time.perf_counter()
    each = ([none if perturb is None else perturb(model, epoch)] for epoch in range(epochs))

    def loss(flips: Tensor) -> Tensor:
        scores = model.scores(Adjacency(graph, flips), features.draw()).squeeze(1)
        return F.cross_entropy(scores[nodes], truth[nodes]) + getattr(model, "penalty", 0.0)

    def score(epoch: int, flips: Tensor) -> float:
        return accuracy(model, data, "val", flips) if epoch >= warm else -1.0

    best = descend(model, loss, each, optimiser, score=score if "val" in data.nodes else None)
    figures = {"val_accuracy": best} if "val" in data.nodes else {}
    return {
        **figures, "clean_accuracy": accuracy(model, data, "test"), "train_accuracy": accuracy(model, data, "train"),
        "test_size": len(data.nodes["test"]), "train_size": len(data.nodes["train"]),
        "fit_seconds": round(time.perf_counter() - started, 2),
    }  # fmt: skip


@torch.no_grad()
def accuracy(model: Propagation, data: NodeData, split: str, flips: Tensor | None = None) -> float:
    """The share of a split's nodes that a model has right, on the graph with flips int64 (1, E, 2)."""
    model.eval()
    graph, nodes = data.graph, data.nodes[split]
    if flips is None:
        flips = torch.empty(1, 0, 2, dtype=torch.int64, device=graph.device)
    scores = model.scores(Adjacency(graph, flips), Features(graph, 1)).squeeze(1)
    return float((scores[nodes].argmax(1) == data.labels[nodes]).float().mean())
