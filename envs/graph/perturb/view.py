"""What policies see of node tasks: nothing of the victim, no label of a test node."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.envs.graph.inputs.graphs import Graph


def node_summary(graph: Graph, target: Tensor, known: Tensor, classes: int) -> Tensor:
    """What describes each target: float32 (B, 4 + classes).

    Log degree, mean log degree of its neighbours, share of features on, mean cosine of its features with its
    neighbours', and the share of neighbours known to be of each class.
    """
    owner, near = graph.neighbours(target)
    degree = graph.degree[target]
    out = torch.zeros(len(target), 4 + classes, device=target.device)
    out[:, 0] = degree.log1p()
    x = (graph.x > 0).float()
    out[:, 2] = x[target].mean(1)
    per = torch.stack([graph.degree[near].log1p(), _cosine(x[target[owner]], x[near])], 1)
    label = torch.nn.functional.one_hot(known[near] + 1, classes + 1)[:, 1:].float()
    mean = torch.zeros(len(target), 2 + classes, device=target.device)
    mean.index_add_(0, owner, torch.cat([per, label], 1))
    mean /= degree.clamp_min(1).unsqueeze(1)
    out[:, 1], out[:, 3:] = mean[:, 0], mean[:, 1:]
    return out


def site_features(graph: Graph, target: Tensor, known: Tensor, classes: int) -> Tensor:
    """Every node as seen from each target: float32 (B, N, 6 + classes).

    Is it the target, is it a neighbour, common neighbours / 4, log degree, share of features on, cosine of features
    with the target's, and its class where known.
    """
    n, size = len(target), graph.size
    every = torch.arange(size, device=target.device)
    near = graph.has(target.unsqueeze(1), every.unsqueeze(0)).float()
    common = near @ graph.has(every.unsqueeze(1), every.unsqueeze(0)).float()
    x = (graph.x > 0).float()
    norm = x.norm(dim=1).clamp_min(1)
    like = (x[target] / norm[target].unsqueeze(1)) @ (x / norm.unsqueeze(1)).T
    label = torch.nn.functional.one_hot(known + 1, classes + 1)[:, 1:].float()
    fixed = torch.cat([graph.degree.log1p().unsqueeze(1), x.mean(1, keepdim=True)], 1)
    own = (every == target.unsqueeze(1)).float()
    seen = torch.stack([own, near, common / 4], 2)
    parts = [seen, fixed.expand(n, -1, -1), like.unsqueeze(2), label.expand(n, -1, -1)]
    return torch.cat(parts, 2)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)
