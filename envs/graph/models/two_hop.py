"""Exact two-hop models on many perturbed graphs at once.

A two-layer model's answer for node v reads only v's two-hop neighbourhood, and a flip moves few numbers in it. With
T = c * (x W1), c = (degree + 1)^-1/2, and the clean sums S = (A + I) T computed once, the pre-activation of node u in a
row whose flips change the degree, the features or the edges of the nodes D is

    h_u = c'_u (S_u + sum_{z in D} (A'_uz T'_z - A_uz T_z)) + b

so only v's neighbours and D are visited: hubs two hops away cost nothing. Everything is differentiable in the weights
of the flips, through degrees too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.rows import GraphRows


class Weights(NamedTuple):
    """A two-layer model: scores = A_hat act(A_hat x W1 + b1) W2 + b2; act is ReLU, or nothing for linear models."""

    w1: Tensor  # (F, H)
    b1: Tensor  # (H,)
    w2: Tensor  # (H, C)
    b2: Tensor  # (C,)
    relu: bool


class Tables(NamedTuple):
    """What depends on the clean graph and the weights alone."""

    raw: Tensor  # (N, H) x W1 of the features as stored
    total: Tensor  # (N,) what they are divided by
    message: Tensor  # (N, H) M
    scale: Tensor  # (N,) c
    sent: Tensor  # (N, H) T = c M
    summed: Tensor  # (N, H) S = (A + I) T


def tables(graph: Graph, weights: Weights) -> Tables:
    """Computed once for each (graph, weights)."""
    dtype = weights.w1.dtype
    x = graph.x.to(dtype)
    raw = x @ weights.w1
    total = x.sum(1).clamp_min(1) if graph.row_norm else torch.ones(graph.size, dtype=dtype, device=graph.device)
    message = raw / total.unsqueeze(1)
    scale = (graph.degree.to(dtype) + 1).rsqrt()
    sent = scale.unsqueeze(1) * message
    source = torch.repeat_interleave(torch.arange(graph.size, device=graph.device), graph.count)
    summed = sent.index_add(0, source, sent[graph.idx])
    return Tables(raw, total, message, scale, sent, summed)


def distinct(values: Tensor) -> Tensor:
    """Each row's distinct non-negative integers, padded with -1 to the longest: (n, w) -> (n, <= w)."""
    if not values.shape[1]:
        return values
    values = values.sort(1, descending=True).values
    repeat = torch.zeros_like(values, dtype=torch.bool)
    repeat[:, 1:] = values[:, 1:] == values[:, :-1]
    values = values.masked_fill(repeat, -1).sort(1, descending=True).values
    return values[:, : int((values >= 0).sum(1).max())] if len(values) else values[:, :0]


class Pass:
    """One forward over rows, with its intermediates, which the ranking of candidates reads."""

    def __init__(self, rows: GraphRows, t: Tables, w: Weights) -> None:
        graph, v, dtype = rows.graph, rows.target, t.message.dtype
        a, b, d = rows.changes(dtype)
        cell_node, feature, df = rows.feature_changes(dtype)
        ends = torch.where(rows.flips[..., 0] >= 0, rows.flips[..., 0], -1), rows.flips[..., 1]
        parts = [*ends, cell_node]
        if (probing := rows.probing("cells")) is not None:
            parts.append(probing[1])
        touched = torch.cat(parts, 1)
        touched = distinct(touched.masked_fill(touched == v.unsqueeze(1), -1))
        self.rows, self.tables, self.weights = rows, t, w
        self.touched = touched = torch.cat([v.unsqueeze(1), touched], 1)  # D: the target first, then all that moves
        self.on = on = touched >= 0
        self.node = node = touched.clamp_min(0)
        here_a = (touched.unsqueeze(2) == a.unsqueeze(1)).to(dtype)  # (n, D, E)
        here_b = (touched.unsqueeze(2) == b.unsqueeze(1)).to(dtype)
        degree = graph.degree[node].to(dtype) + ((here_a + here_b) @ d.unsqueeze(2)).squeeze(2)
        self.scale = torch.where(on, (degree + 1).rsqrt(), 0.0)  # c' of D
        half = (here_a * d.unsqueeze(1)) @ here_b.transpose(1, 2)
        old = graph.has(node.unsqueeze(2), node.unsqueeze(1)) & on.unsqueeze(2) & on.unsqueeze(1)
        old = old.to(dtype) + torch.diag_embed(on.to(dtype))
        self.new = old + half + half.transpose(1, 2)  # A' + I between the nodes of D
        self.message = self._messages(cell_node, feature, df)  # M' of D
        sent = self.scale.unsqueeze(2) * self.message
        before = t.sent[node] * on.unsqueeze(2)
        hidden = t.summed[node] + self.new @ sent - old @ before
        self.hidden = self.scale.unsqueeze(2) * hidden + w.b1  # h of D, (n, D, H)
        self.moved = sent - before
        # v's clean neighbours; those in D are already there and weigh nothing here.
        self.owner, self.near = graph.neighbours(v)
        self.near_hidden, self.near_adjacent = self._elsewhere(self.owner, self.near)
        in_d = (touched[self.owner, 1:] == self.near.unsqueeze(1)).any(1)
        self.near_weight = torch.where(in_d, 0.0, t.scale[self.near])
        act = torch.relu if w.relu else (lambda h: h)
        self.act, self.near_act = act(self.hidden), act(self.near_hidden)
        pooled = ((self.new[:, 0] * self.scale).unsqueeze(1) @ self.act).squeeze(1)
        self.pooled = pooled.index_add(0, self.owner, self.near_weight.unsqueeze(1) * self.near_act)
        self.out = self.scale[:, :1] * self.pooled @ w.w2 + w.b2

    def _messages(self, cell_node: Tensor, feature: Tensor, df: Tensor) -> Tensor:
        """M' of the nodes of D after the feature flips (and probes) of each row."""
        rows, t, w = self.rows, self.tables, self.weights
        probing = rows.probing("cells")
        if not cell_node.shape[1] and probing is None:
            return t.message[self.node]
        raw, total = t.raw[self.node], t.total[self.node]
        here = (self.touched.unsqueeze(2) == cell_node.unsqueeze(1)).to(df.dtype) * df.unsqueeze(1)  # (n, D, K)
        raw = raw + here @ w.w1[feature]
        change = here.sum(2)
        if probing is not None:
            place = (self.touched.unsqueeze(2) == probing[1].unsqueeze(1)) & self.on.unsqueeze(2)
            place = place.to(df.dtype)
            probe = probing[0].to(df.dtype)
            raw = raw + place @ (probe @ w.w1)
            change = change + (place @ probe.sum(2, keepdim=True)).squeeze(2)
        if rows.graph.row_norm:
            # The true sum, not the clamped one, moves: a node may start or end without features.
            true = rows.graph.x.sum(1).to(df.dtype)[self.node] + change
            total = true.clamp_min(1)
        return raw / total.unsqueeze(2)

    def _elsewhere(self, row: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        """(h, adjacency to D) of nodes outside D, in lists (row, node)."""
        graph, t = self.rows.graph, self.tables
        beside = graph.has(node.unsqueeze(1), self.node[row]) & self.on[row]
        beside = beside.to(t.message.dtype)
        moved = (beside.unsqueeze(1) @ self.moved[row]).squeeze(1)
        return t.scale[node].unsqueeze(1) * (t.summed[node] + moved) + self.weights.b1, beside
