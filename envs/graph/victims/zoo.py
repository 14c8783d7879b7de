"""Victims and defenses for node tasks: a model and its training recipe by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from advgym.core.victim import Victim
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.models.adversarial import fit_robust
from advgym.envs.graph.models.attention import GAT
from advgym.envs.graph.models.convolutions import APPNP, GCN, GIN, MLP, SAGE
from advgym.envs.graph.models.fitting import fit
from advgym.envs.graph.models.gnnguard import GNNGuard
from advgym.envs.graph.models.low_rank import LowRank
from advgym.envs.graph.models.pro_gnn import ProGNN
from advgym.envs.graph.models.propagation import Propagation
from advgym.envs.graph.models.pruning import Jaccard
from advgym.envs.graph.models.rgcn import RGCN
from advgym.envs.graph.models.rung import RUNG
from advgym.envs.graph.models.soft_median import SoftMedian
from advgym.errors import unknown
from advgym.lib.weights import load_or_train

MODELS: dict[str, type[Propagation]] = {
    "gcn": GCN, "sage": SAGE, "gin": GIN, "appnp": APPNP, "mlp": MLP, "gat": GAT, "rgcn": RGCN, "gnnguard": GNNGuard,
    "rung": RUNG, "svd": LowRank, "jaccard": Jaccard, "soft-median": SoftMedian,
    "pro-gnn": ProGNN,
}  # fmt: skip
# Of training, where it is not the default of `fit`: GAT's of its paper; GIN's decay by validation accuracy on Cora.
RECIPES: dict[str, dict[str, Any]] = {
    "gin": {"decay": 5e-3},
    "gat": {"lr": 0.005, "drop": 0.6, "epochs": 300},
}
# By validation accuracy on one dataset, of two to eight settings each (docs/graph-victims.md): training and model.
TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "cora": {
        "gin": {"drop": 0.8},
        "gnnguard": {"drop": 0.8, "cut": 1e-6},
        "jaccard": {"drop": 0.8, "hidden": 64},
        "soft-median": {"top": 32},
    },
}
FIT = ("epochs", "lr", "decay", "drop", "warm")
ROBUST = ("rate", "start", "every")


def zoo_victim(
    name: str, dataset: str = "", model: str = "sage", adversarial: bool = False, seed: int = 0, data: Any = None,
    **options: Any,
) -> Victim:  # fmt: skip
    """A node classifier of the zoo on a named dataset (or on `data`, a `NodeData`), trained if it is missing.

    Args:
        model: one of MODELS.
        adversarial: train by `fit_robust`.
        options: of the recipe (FIT, and ROBUST with `adversarial`); the others are the model's own. They go before
            RECIPES and TUNED.
    """
    if model not in MODELS:
        raise unknown("model", model, list(MODELS))
    found = data if data is not None else load_nodes(dataset)
    options = {**RECIPES.get(model, {}), **TUNED.get(dataset, {}).get(model, {}), **options}
    training = {k: options.pop(k) for k in (*FIT, *ROBUST) if k in options}
    recipe = {"dataset": dataset, "model": model, "adversarial": adversarial, "seed": seed, "fit": training,
              "options": options, "content": found.digest()}  # fmt: skip

    def build() -> nn.Module:
        return MODELS[model](found.graph.features, found.classes, **options)

    def train(module: nn.Module) -> dict[str, Any]:
        assert isinstance(module, Propagation)
        return (fit_robust if adversarial else fit)(module, found, **training)

    module, card = load_or_train(name, build, train, recipe=recipe)
    return Victim(module, name=name, card=card)
