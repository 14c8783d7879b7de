"""Scores of many perturbed graphs by an exact two-hop model, in runs that stay in cache."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.models.rank import PairProbe
from advgym.envs.graph.models.two_hop import Pass, Tables, Weights

BLOCK = 1 << 21  # elements of the widest intermediate of one pass; small enough to stay in cache


def blocks(rows: GraphRows, width: int) -> list[Tensor]:
    """Indices of rows in runs whose intermediates stay below BLOCK elements (a single row may exceed it)."""
    n = len(rows)
    extra = 2 * rows.flips.shape[1] + (0 if rows.cells is None else rows.cells.shape[1]) + 1
    cost = (rows.graph.count[rows.target] + extra) * (extra * width)
    if rows.probe is not None and rows.probes == "cells":
        cost = cost + rows.probe[0].numel() if n else cost
    every = torch.arange(n, device=rows.target.device)
    total = cost.cumsum(0)
    if not n or int(total[-1]) <= BLOCK:
        return [every]
    part = ((total - cost) // BLOCK).cpu()
    return list(every.split(torch.unique_consecutive(part, return_counts=True)[1].tolist()))


def evaluate(rows: GraphRows, t: Tables, w: Weights) -> Tensor:
    """Scores of every row's target, (n, C)."""
    runs = blocks(rows, w.w1.shape[1])
    parts = []
    for run in runs:
        some = rows if len(runs) == 1 else rows.take(run)
        done = Pass(some, t, w)
        pairs = some.probe is not None and some.probes == "pairs"
        parts.append(PairProbe.apply(done.out, some.probe, done) if pairs else done.out)
    return parts[0] if len(parts) == 1 else torch.cat(parts)
