"""Adversarial training against edge flips, with self-training on the nodes without labels (Gosch et al., 2023).

Xu et al. (2019) train a GCN on graphs that a gradient attack has flipped; Gosch et al. show that in a transductive
setting this has to learn from the nodes without labels too, or it memorises the clean graph. So: a plain model gives
every unlabelled node a pseudo-label, then a fresh model is trained on flips that a first-order attack on all those
labels chooses anew. The attack here is one step over all pairs, from the exact gradients of `Tape`.

The wrapper `adversarial-training` is another: it goes on training any victim on what an agent finds in its task.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.inputs.adjacency import Adjacency, Tape
from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.inputs.pairs import top_pairs
from advgym.envs.graph.models.fitting import fit
from advgym.envs.graph.models.propagation import Propagation
from advgym.errors import AdvgymError


def fit_robust(
    model: Propagation, data: NodeData, *, rate: float = 0.2, start: int = 20, every: int = 1, **options: Any
) -> dict[str, Any]:
    """Train in place; returns the card's figures.

    Args:
        rate: flips of each step, as a share of the edges; start: clean epochs before the first; every: epochs that
            share one attack.
        options: of `fit`.
    """
    if getattr(model, "listed", False):
        raise AdvgymError(
            f"{type(model).__name__} weighs edges by both ends: adversarial training needs a model of sums, such as "
            "gcn, sage, gin, appnp, rgcn"
        )
    graph, fresh = data.graph, copy.deepcopy(model.state_dict())
    fit(model, data, **options)
    with torch.no_grad():
        pseudo = model.full(graph).argmax(1)
    pseudo[data.nodes["train"]] = data.labels[data.nodes["train"]]
    model.load_state_dict(fresh)
    many = round(rate * len(graph.pairs))
    none = torch.empty(1, 0, 2, dtype=torch.int64, device=graph.device)
    held = none

    def perturb(model: Propagation, epoch: int) -> Tensor:
        nonlocal held
        if epoch >= start and (epoch - start) % every == 0:
            held = worst_flips(model, data, pseudo, many)
        return held if epoch >= start else none

    options["warm"] = max(options.get("warm", 0), start)
    card = fit(model, data, labels=pseudo, perturb=perturb, **options)
    return {**card, "adversarial_rate": rate}


def worst_flips(model: Propagation, data: NodeData, labels: Tensor, many: int) -> Tensor:
    """The `many` flips of largest first-order gain in tanh-margin loss over all labelled nodes: int64 (1, E, 2).

    The tanh margin (Geisler et al., 2021) spends no flips on nodes that are lost already.
    """
    graph, known = data.graph, (labels >= 0).nonzero()[:, 0]
    none, tape = torch.empty(1, 0, 2, dtype=torch.int64, device=graph.device), Tape(graph.device)
    model.eval()
    scores = model.scores(Adjacency(graph, none, tape=tape), Features(graph, 1)).squeeze(1)[known]
    own = F.one_hot(labels[known], scores.shape[1]).bool()
    logits = torch.log_softmax(scores, 1)
    margin = logits.masked_fill(own, -torch.inf).amax(1) - logits[own]
    torch.autograd.grad(torch.tanh(margin).mean(), tape.leaf)
    with torch.no_grad():
        return top_pairs(graph, *tape.factors(0), many)[0].unsqueeze(0)
