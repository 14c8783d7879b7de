"""The local evaluation against PyG's full forward, in float64, on anything hypothesis can draw."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advgym.envs.graph.inputs import graphs
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.models import local, rank
from advgym.envs.graph.victims.recipes import GCN, SGC
from advgym.envs.graph.victims.stacked import Stacked

F, C, E, K = 5, 3, 4, 3


class Full(nn.Module):
    """A PyG-style view of our models: nothing local."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, edge_index, edge_weight=None):
        return self.model.full(x, edge_index, edge_weight)


def _model(seed, kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (GCN(F, C, 8) if kind == "gcn" else SGC(F, C)).double().eval()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.3 * torch.randn(p.shape, dtype=p.dtype))
    return model.requires_grad_(False)


def _case(seed, n=6):
    """A random graph, rows that are direct or not, with deletions, additions, isolated targets and feature flips."""
    g = torch.Generator().manual_seed(seed)
    size = int(torch.randint(3, 14, (1,), generator=g))
    density = float(torch.rand((), generator=g)) * 0.5
    pairs = torch.triu(torch.rand(size, size, generator=g) < density, 1).nonzero()
    x = (torch.rand(size, F, generator=g) < 0.4).double()
    graph = Graph(size, pairs, x, row_norm=bool(seed % 2))
    target = torch.randint(0, size, (n,), generator=g)
    every = torch.ones(size, size).triu(1).nonzero()
    flips, cells = torch.full((n, E, 2), -1), torch.full((n, K, 2), -1)
    for i in range(n):
        k = int(torch.randint(0, E + 1, (1,), generator=g))
        if i % 3 == 0:  # direct
            other = torch.randperm(size, generator=g)
            other = other[other != target[i]][:k]
            chosen = torch.stack([target[i].expand(len(other)), other], 1)
        elif i % 3 == 1:  # anywhere
            chosen = every[torch.randperm(len(every), generator=g)[:k]]
        else:  # cut the target off
            near = graph.idx[graph.start[target[i]] :][: graph.count[target[i]]][:E]
            chosen = torch.stack([near, target[i].expand(len(near))], 1)
        flips[i, : len(chosen)] = chosen
        c = torch.randperm(size * F, generator=g)[: int(torch.randint(0, K + 1, (1,), generator=g))]
        cells[i, : len(c)] = torch.stack([c // F, c % F], 1)
    return graph, target, flips, cells, g


CASES = {"seed": st.integers(0, 10**6), "kind": st.sampled_from(["gcn", "sgc"]), "with_cells": st.booleans()}


@settings(max_examples=40, deadline=None)
@given(**CASES)
def test_scores_and_weight_gradients_are_those_of_the_full_forward(seed, kind, with_cells):
    graph, target, flips, cells, g = _case(seed)
    model = _model(seed, kind)
    full = Stacked(Full(model))
    cells = cells if with_cells else None
    hard = GraphRows(graph, target, flips, cells=cells)
    torch.testing.assert_close(model(hard), full(hard), rtol=0, atol=1e-10)

    w = torch.rand(len(target), E, generator=g, dtype=torch.float64, requires_grad=True)
    cw = torch.rand(len(target), K, generator=g, dtype=torch.float64, requires_grad=True)
    soft = GraphRows(graph, target, flips, w, cells, cw if with_cells else None)
    cotangent = torch.randn(len(target), C, generator=g, dtype=torch.float64)
    grads = []
    for one in (model, full):
        scores = one(soft)
        leaves = [w, cw] if with_cells else [w]
        found = torch.autograd.grad((scores * cotangent).sum(), leaves, allow_unused=True)
        grads.append((scores.detach(), *(torch.zeros(1) if v is None else v for v in found)))
    for ours, theirs in zip(*grads, strict=True):
        assert (ours - theirs).abs().max() < 1e-10


@settings(max_examples=40, deadline=None)
@given(**CASES, probes=st.sampled_from(["pairs", "cells"]))
def test_candidate_gradients_are_those_of_dense_autograd(seed, kind, with_cells, probes):
    graph, target, flips, cells, g = _case(seed)
    model = _model(seed, kind)
    cells = cells if with_cells else None
    other = (target + 1) % graph.size
    nodes = torch.stack([target, other, torch.full_like(target, -1)], 1)
    cotangent = torch.randn(len(target), C, generator=g, dtype=torch.float64)
    grads = []
    listed, summed = Stacked(Full(model)), Stacked(Full(model))
    listed._summed = False
    for one in (model, listed, summed):
        probe = torch.zeros(
            *nodes.shape, graph.size if probes == "pairs" else F, dtype=torch.float64, requires_grad=True
        )
        rows = GraphRows(graph, target, flips, cells=cells, probe=probe, probe_nodes=nodes, probes=probes)
        grads.append(torch.autograd.grad((one(rows) * cotangent).sum(), probe)[0])
    if probes == "pairs":
        every = torch.arange(graph.size).view(1, 1, -1)
        loops = nodes.unsqueeze(2) == every
        seen_from_elsewhere = (nodes != target.unsqueeze(1)).unsqueeze(2) & (every == target.view(-1, 1, 1))
        grads = [v.masked_fill(loops | seen_from_elsewhere, 0) for v in grads]
    assert (grads[0] - grads[1]).abs().max() < 1e-10
    assert (grads[0] - grads[2]).abs().max() < 1e-6  # degrees of an `Adjacency` are float32


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_small_blocks_and_graphs_without_bitmap_change_nothing(seed, monkeypatch):
    graph, target, flips, cells, _ = _case(seed, n=24)
    model = _model(seed, "gcn")
    probe = torch.zeros(24, 1, graph.size, dtype=torch.float64, requires_grad=True)
    rows = GraphRows(graph, target, flips, cells=cells, probe=probe, probe_nodes=target.unsqueeze(1))
    before = model(rows)
    (slope,) = torch.autograd.grad(before.sum(), probe)
    monkeypatch.setattr(local, "BLOCK", 64)
    monkeypatch.setattr(rank, "PAIRS", 16)
    monkeypatch.setattr(graphs, "BITMAP", 0)
    monkeypatch.setattr(graphs, "GATHER", 16)
    bare = Graph(graph.size, graph.pairs, graph.x, row_norm=graph.row_norm)
    rows = GraphRows(bare, target, flips, cells=cells, probe=probe, probe_nodes=target.unsqueeze(1))
    torch.testing.assert_close(model(rows), before, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(model(rows).sum(), probe)[0], slope, rtol=0, atol=1e-12)
    every = torch.arange(graph.size)
    a, b = every.unsqueeze(1), every.unsqueeze(0)
    assert torch.equal(bare.alike(a, b, 0.3), graph.alike(a, b, 0.3))
    assert torch.equal(bare.pruned(0.3).pairs, graph.pruned(0.3).pairs)


def test_no_rows_and_changed_parameters():
    graph, target, flips, _, _ = _case(5)
    model = _model(5, "gcn")
    rows = GraphRows(graph, target, flips)
    assert model(rows.take(torch.zeros(0, dtype=torch.int64))).shape == (0, C)
    first = model(rows)
    with torch.no_grad():
        model.conv1.bias.add_(1.0)
    assert not torch.allclose(model(rows), first)  # the kept tables are not stale
    torch.testing.assert_close(model(rows), Stacked(Full(model))(rows), rtol=0, atol=1e-10)


def test_parameters_get_gradients_when_they_want_them():
    graph, target, flips, _, _ = _case(6)
    model = _model(6, "gcn").requires_grad_(True)
    rows = GraphRows(graph, target, flips)
    ours = torch.autograd.grad(model(rows).square().sum(), list(model.parameters()))
    theirs = torch.autograd.grad(Stacked(Full(model))(rows).square().sum(), list(model.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
