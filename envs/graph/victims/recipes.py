"""Graph neural networks as victims: GCN and SGC for nodes, GIN and GCN for whole graphs. Recipes and factories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.core.victim import Victim
from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.raw import RawGraph
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.models.local import evaluate
from advgym.envs.graph.models.propagation import whole_global
from advgym.envs.graph.models.two_hop import Tables, Weights, tables
from advgym.envs.graph.perturb.dense import DenseRows
from advgym.lib.fit import descend
from advgym.lib.weights import load_or_train

SHIPPED = Path(__file__).parents[1] / "weights"
SCALE = 16.0  # of a small graph's node sums, so that early training steps stay tame
NAMED = ("karate", "sbm", "cora")  # whose name stands for their content and split
KEPT = 4  # clean-graph tables kept per model


class TwoHop(nn.Module):
    """A two-layer model of `GraphRows`, evaluated only where the flips reach; `full` is its ordinary PyG forward."""

    takes_rows = True
    dropout = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._tables: dict[tuple[Any, ...], tuple[Tables, list[Tensor]]] = {}

    def weights(self) -> Weights:
        """The layers as matrices."""
        raise NotImplementedError

    def full(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Scores of every node (N, C) of one graph; x as a model sees it."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """The wider layer."""
        return max(self.weights().w2.shape)

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """Scores of all nodes of n graphs, node-first: (N, n, C); see `Propagation`."""
        w = self.weights()
        scale = (adjacency.degree.to(w.w1.dtype) + 1).rsqrt().unsqueeze(2)

        def propagate(h: Tensor) -> Tensor:
            sent = scale * h
            return scale * (adjacency.sum(sent) + sent)

        hidden = propagate(features.linear(w.w1)) + w.b1
        return propagate((hidden.relu() if w.relu else hidden) @ w.w2) + w.b2

    def forward(self, rows: GraphRows | GlobalRows | RawGraph) -> Tensor:
        """Scores of every row's target, (n, C); of global rows, of every member."""
        if not isinstance(rows, GraphRows):
            return whole_global(self, rows)
        weights = self.weights()
        return evaluate(rows, self._prepared(rows.graph, weights), weights)

    def _prepared(self, graph: Graph, weights: Weights) -> Tables:
        """The tables of a graph, kept while the parameters stay as they are."""
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters()):
            return tables(graph, weights)
        state = tuple((p.data_ptr(), p._version, p.dtype) for p in self.parameters())
        key = (graph.serial, state)
        if key not in self._tables:
            while len(self._tables) >= KEPT:
                self._tables.pop(next(iter(self._tables)))
            # The parameters are held too, so that no later one can appear at the same address.
            self._tables[key] = tables(graph, weights), [p.detach() for p in self.parameters()]
        return self._tables[key][0]


class GCN(TwoHop):
    """Two graph convolutions with a ReLU between (Kipf & Welling, 2017)."""

    def __init__(self, features: int, classes: int, hidden: int = 16, dropout: float = 0.5) -> None:
        super().__init__()
        from torch_geometric.nn import GCNConv

        self.conv1, self.conv2, self.dropout = GCNConv(features, hidden), GCNConv(hidden, classes), dropout

    def weights(self) -> Weights:
        first, second = self.conv1, self.conv2
        return Weights(first.lin.weight.T, first.bias, second.lin.weight.T, second.bias, True)

    def full(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        x = F.dropout(x, self.dropout, self.training)
        x = self.conv1(x, edge_index, edge_weight).relu()
        return self.conv2(F.dropout(x, self.dropout, self.training), edge_index, edge_weight)


class SGC(TwoHop):
    """Two hops of propagation and one linear layer (Wu et al., 2019)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        from torch_geometric.nn import SGConv

        self.conv = SGConv(features, classes, K=2)

    def weights(self) -> Weights:
        w, b = self.conv.lin.weight, self.conv.lin.bias
        return Weights(w.T, torch.zeros_like(b), torch.eye(len(b), dtype=w.dtype, device=w.device), b, False)

    def full(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        return self.conv(x, edge_index, edge_weight)


class Whole(nn.Module):
    """A classifier of `DenseRows`: dense graph layers, sum pooling, an MLP.

    `kind` "gin" is GIN-0 (Xu et al., 2019), "gcn" has graph convolutions (Kipf & Welling, 2017).
    """

    def __init__(self, features: int, classes: int, kind: str = "gin", hidden: int = 32, layers: int = 3) -> None:
        super().__init__()
        from torch_geometric.nn import DenseGCNConv, DenseGINConv

        widths = [features] + [hidden] * layers
        if kind == "gin":
            self.convs = nn.ModuleList(
                DenseGINConv(nn.Sequential(nn.Linear(a, hidden), nn.ReLU(), nn.Linear(hidden, hidden)))
                for a in widths[:-1]
            )
        else:
            self.convs = nn.ModuleList(DenseGCNConv(a, hidden) for a in widths[:-1])
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, rows: DenseRows) -> Tensor:
        """Scores (n, C)."""
        h = rows.x
        for conv in self.convs:
            h = conv(h, rows.adjacency, rows.mask).relu()
        return self.head(h.sum(1) / SCALE)


# -- recipes --------------------------------------------------------------------------------------------------------
@torch.sparse.check_sparse_tensor_invariants(False)  # the matrices are our own
def fit_nodes(
    model: TwoHop, graph: Graph, labels: Tensor, train: Tensor, test: Tensor, val: Tensor | None = None,
    *, epochs: int = 200, lr: float = 0.01, decay: float = 5e-4,
) -> dict[str, Any]:  # fmt: skip
    """Full-batch Adam, weight decay on the first layer; with a validation set the best epoch is kept.

    Features and adjacency are sparse matrices here. Returns the card's figures.
    """
    x, adjacency = graph.inputs_x().to_sparse_coo().coalesce(), _normalised(graph)
    conv1 = getattr(model, "conv1", model)
    first = {id(p) for p in conv1.parameters()}
    groups = [
        {"params": [p for p in model.parameters() if id(p) in first], "weight_decay": decay},
        {"params": [p for p in model.parameters() if id(p) not in first], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.Adam([g for g in groups if g["params"]], lr=lr)

    def loss(nodes: Tensor) -> Tensor:
        return F.cross_entropy(_sparse_forward(model, x, adjacency)[nodes], labels[nodes])

    def accuracy(nodes: Tensor) -> float:
        model.eval()
        with torch.no_grad():
            return float((_sparse_forward(model, x, adjacency)[nodes].argmax(1) == labels[nodes]).float().mean())

    score = None if val is None else lambda *_: accuracy(val)
    descend(model, loss, [[train]] * epochs, optimiser, score=score)
    return {"clean_accuracy": accuracy(test), "train_accuracy": accuracy(train), "test_size": len(test),
            "train_size": len(train)}  # fmt: skip


def _normalised(graph: Graph) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 as a sparse matrix."""
    loops = torch.arange(graph.size, device=graph.device)
    at = torch.cat([graph.edge_index(), torch.stack([loops, loops])], 1)
    scale = (graph.degree + 1).rsqrt()
    return torch.sparse_coo_tensor(at, scale[at[0]] * scale[at[1]], (graph.size, graph.size)).coalesce()


def _sparse_forward(model: TwoHop, x: Tensor, adjacency: Tensor) -> Tensor:
    """`full` with the linear maps before the propagation; dropout falls on the features that are there."""
    w, p = model.weights(), model.dropout if model.training else 0.0
    x = torch.sparse_coo_tensor(x.indices(), F.dropout(x.values(), p), x.shape, is_coalesced=True)
    hidden = torch.sparse.mm(adjacency, torch.sparse.mm(x, w.w1)) + w.b1
    hidden = F.dropout(hidden.relu() if w.relu else hidden, p)
    return torch.sparse.mm(adjacency, hidden @ w.w2) + w.b2


def fit_wholes(
    model: Whole, rows: DenseRows, labels: Tensor, test: DenseRows, truth: Tensor, *, epochs: int, lr: float
) -> dict[str, Any]:
    """Mini-batch Adam on whole graphs. Returns the card's figures."""
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)

    def order(epoch: int) -> Sequence[Tensor]:
        if epoch:
            schedule.step()
        return torch.randperm(len(rows)).split(32)

    descend(model, lambda at: F.cross_entropy(model(rows.take(at)), labels[at]), map(order, range(epochs)), optimiser)
    with torch.no_grad():
        right, seen = model(test).argmax(1) == truth, model(rows).argmax(1) == labels
    return {"clean_accuracy": float(right.float().mean()), "train_accuracy": float(seen.float().mean()),
            "test_size": len(truth), "train_size": len(labels)}  # fmt: skip


# -- factories (rows of tasks.toml) -----------------------------------------------------------------------------------
def node_victim(
    name: str, dataset: str = "", model: str = "gcn", epochs: int = 200, lr: float = 0.01, decay: float = 5e-4,
    hidden: int = 16, seed: int = 0, data: Any = None,
) -> Victim:  # fmt: skip
    """A node classifier on a named dataset (or on `data`, a `NodeData`), trained if it is missing."""
    from advgym.envs.graph.data.datasets import load_nodes

    recipe = {"dataset": dataset, "model": model, "epochs": epochs, "lr": lr, "decay": decay, "hidden": hidden,
              "seed": seed}  # fmt: skip
    found = data if data is not None else load_nodes(dataset)
    embedded = data is None and dataset in NAMED and name == f"{dataset}-{model}"
    if not embedded:
        recipe["content"] = found.digest()
    width, classes = found.graph.features, found.classes

    def build() -> nn.Module:
        return GCN(width, classes, hidden) if model == "gcn" else SGC(width, classes)

    def train(module: nn.Module) -> dict[str, Any]:
        fit = {"epochs": epochs, "lr": lr, "decay": decay}
        return fit_nodes(
            module, found.graph, found.labels, found.nodes["train"], found.nodes["test"], found.nodes.get("val"), **fit
        )

    shipped = SHIPPED / f"{name}.safetensors" if embedded else None
    module, card = load_or_train(name, build, train, recipe=recipe, shipped=shipped)
    return Victim(module, name=name, card=card)


def whole_victim(
    name: str, dataset: str = "mutag", model: str = "gin", epochs: int = 120, lr: float = 0.01, hidden: int = 32,
    seed: int = 0,
) -> Victim:  # fmt: skip
    """A classifier of whole graphs, trained if it is missing."""
    from advgym.envs.graph.data.datasets import load_wholes

    found = load_wholes(dataset)
    recipe = {"dataset": dataset, "model": model, "epochs": epochs, "lr": lr, "hidden": hidden, "seed": seed,
              "content": found.digest()}  # fmt: skip

    def build() -> Whole:
        return Whole(found.x.shape[2], found.classes, model, hidden)

    def train(module: Whole) -> dict[str, Any]:
        parts = {s: (found.rows(found.split[s]), found.labels[found.split[s]]) for s in ("train", "test")}
        return fit_wholes(module, *parts["train"], *parts["test"], epochs=epochs, lr=lr)

    module, card = load_or_train(name, build, train, recipe=recipe)
    return Victim(module, name=name, card=card)
