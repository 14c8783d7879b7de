"""Graphs as their owner gets them back: one for each perturbation, however many nodes it is asked about."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgym.errors import AdvgymError


def items(batch: Any, row: int, form: Tensor) -> list[dict[str, Any]]:
    """`edges` int64 (m, 2), each undirected edge once, `x` float32 (N, F), `y` int64 (N,), `asked` int64, `names`.

    `y` has the labels of the nodes that are asked about, -1 elsewhere; of tasks on whole graphs `asked` is empty.
    """
    with torch.no_grad():
        seen = batch.inputs(form.unsqueeze(0), torch.tensor([row], device=form.device))
        label = batch.labels[row].reshape(-1).cpu()
        if hasattr(seen, "adjacency") and hasattr(seen, "mask"):
            return [_whole(seen, label)]
        if not hasattr(seen, "flips"):
            raise AdvgymError(f"{type(batch).__name__} does not say what its perturbed graphs are")
        graph = seen.graph
        key = graph.pairs[:, 0] * graph.size + graph.pairs[:, 1]
        flips = seen.flips[0][seen.flips[0][:, 0] >= 0]
        moved = flips.amin(1) * graph.size + flips.amax(1)
        key = torch.cat([key[~torch.isin(key, moved)], moved[~torch.isin(moved, key)]]).sort().values
        x = _features(seen)
        asked = seen.asked.reshape(-1).cpu()
        y = torch.full((graph.size,), -1)
        y[asked] = label
        return [
            {
                "edges": torch.stack([key // graph.size, key % graph.size], 1).cpu().numpy(),
                "x": x.float().cpu().numpy(),
                "y": y.numpy(),
                "asked": asked.numpy(),
                "names": list(graph.names) if graph.names else None,
            }
        ]


def _features(seen: Any) -> Tensor:
    """The features with their flips, and what is added to them, in place."""
    x: Tensor = seen.graph.x.clone()
    if seen.cells is not None:
        node, feature = seen.cells[0][seen.cells[0][:, 0] >= 0].unbind(1)
        x[node, feature] = 1 - x[node, feature]
    if getattr(seen, "probe", None) is not None and seen.probes == "cells":
        there = seen.probe_nodes[0] >= 0
        x[seen.probe_nodes[0][there]] += seen.probe[0][there]
    return x


def _whole(seen: Any, label: Tensor) -> dict[str, Any]:
    """A graph of its own, with its own label."""
    many = int(seen.mask[0].sum())
    edges = seen.adjacency[0, :many, :many].triu(1).nonzero()
    return {
        "edges": edges.cpu().numpy(), "x": seen.x[0, :many].float().cpu().numpy(), "y": label.numpy(),
        "asked": torch.zeros(0, dtype=torch.int64).numpy(), "names": None,
    }  # fmt: skip
