"""Training runs of any model of the zoo as victims of poisoning: one after the other, each from a fresh start.

The graph convolutional network has runs side by side (`training.Retrained`); the others share one trainer (`zoo.fit`),
which keeps the best epoch on validation nodes where a split has some, seen on the poisoned graph.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core import rng
from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.models.fitting import fit
from advgym.envs.graph.models.training import Fitted
from advgym.envs.graph.victims.recipes import SGC, fit_nodes
from advgym.envs.graph.victims.zoo import FIT, MODELS, RECIPES
from advgym.errors import VictimError, unknown

LINEAR = {"lr": 0.2, "decay": 1e-4}  # of SGC


class Refitted(Fitted):
    """Scores after a training run of its own on each graph; the model of a keyed `Victim`.

    A run draws its start and its dropout from its key alone, so it is the same in any company.

    Args:
        data: the graph, its labels and its split.
        model: "sgc" or one of `zoo.MODELS`.
        options: of the training recipe (`zoo.FIT`); the others are the model's own.
    """

    def __init__(self, data: NodeData, model: str, **options: Any) -> None:
        if model != "sgc" and model not in MODELS:
            raise unknown("model", model, ["sgc", *MODELS])
        super().__init__(data.labels, data.nodes["train"], data.classes)
        self.data, self.kind = data, model
        recipe = LINEAR if model == "sgc" else RECIPES.get(model, {})
        self.recipe = {**recipe, **{k: options.pop(k) for k in FIT if k in options}}
        self.options = options

    def forward(self, rows: Any, keys: Tensor | None = None) -> Tensor:
        """Scores of every member, (n * M, C). `keys` int64 (n * M,) or (n,): a graph draws by its first."""
        rows = self._check(rows)
        if rows.weights is not None or rows.cells is not None:
            raise VictimError("a training run takes whole flips of edges, no relaxed ones and no features")
        keys = torch.zeros(rows.many, dtype=torch.int64) if keys is None else keys.view(rows.many, -1)[:, 0]
        seeds = rng.bits(0, keys.cpu(), (), 57).tolist()
        parts = [self._run(flipped(rows.graph, rows.flips[i]), seed)[rows.nodes] for i, seed in enumerate(seeds)]
        return torch.cat(parts) if parts else self.labels.new_zeros(0, self.classes, dtype=torch.float32)

    def _run(self, graph: Graph, seed: int) -> Tensor:
        """Scores of all nodes after one run on `graph`, (N, C)."""
        device = graph.device
        cuda = [device.index or 0] if device.type == "cuda" else []
        data = replace(
            self.data, graph=graph, labels=self.data.labels.to(device),
            nodes={name: nodes.to(device) for name, nodes in self.data.nodes.items()},
        )  # fmt: skip
        with torch.random.fork_rng(devices=cuda), torch.enable_grad():
            torch.manual_seed(seed)
            model = self._fitted(data)
        model.eval()
        with torch.no_grad():
            if isinstance(model, SGC):
                return model.full(graph.inputs_x(), graph.edge_index())
            return model.full(graph)  # type: ignore[operator]

    def _fitted(self, data: NodeData) -> nn.Module:
        graph, nodes = data.graph, data.nodes
        if self.kind == "sgc":
            linear = SGC(graph.features, data.classes, **self.options).to(graph.device)
            fit_nodes(linear, graph, data.labels, nodes["train"], nodes["test"], nodes.get("val"), **self.recipe)
            return linear
        model = MODELS[self.kind](graph.features, data.classes, **self.options).to(graph.device)
        fit(model, data, **self.recipe)
        return model


def flipped(graph: Graph, flips: Tensor) -> Graph:
    """The graph after flips int64 (E, 2) of undirected pairs, -1 is padding."""
    pairs = torch.cat([graph.pairs, flips[flips[:, 0] >= 0].sort(1).values])
    keys, count = (pairs[:, 0] * graph.size + pairs[:, 1]).unique(return_counts=True)
    keys = keys[count == 1]
    pairs = torch.stack([keys // graph.size, keys % graph.size], 1)
    return Graph(graph.size, pairs, graph.x, row_norm=graph.row_norm, names=graph.names)
