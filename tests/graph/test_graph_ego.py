"""Receptive fields against whole graphs: the same scores and the same gradients, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.envs.graph.inputs import ego
from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.inputs.ego import EgoAdjacency, near_targets, pays
from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.models.propagation import whole_targets
from advgym.envs.graph.victims.zoo import MODELS

WIDTH, C, ROWS, E, K = 5, 3, 6, 3, 2
LOCAL = {"gcn": {"hidden": 4}, "sage": {"hidden": 4}, "gin": {"hidden": 4}, "rgcn": {"hidden": 4}, "mlp": {"hidden": 4},
         "gat": {"hidden": 2, "heads": 2}, "gnnguard": {"hidden": 4}, "appnp": {"hidden": 4, "steps": 2},
         "rung": {"hidden": 4, "steps": 1}, "jaccard": {"hidden": 4, "threshold": 0.3}}  # fmt: skip


def _model(name, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[name](WIDTH, C, **LOCAL[name]).double().eval()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.3 * torch.randn(p.shape, dtype=p.dtype))
    return model.requires_grad_(False)


def _case(seed, size=None):
    """A sparse graph with flips anywhere, around the targets and far away, and feature flips."""
    g = torch.Generator().manual_seed(seed)
    size = size or int(torch.randint(6, 26, (1,), generator=g))
    pairs = torch.triu(torch.rand(size, size, generator=g) < 2.0 / size, 1).nonzero()
    graph = Graph(size, pairs, (torch.rand(size, WIDTH, generator=g) < 0.5).double(), row_norm=bool(seed % 2))
    target = torch.randint(0, size, (ROWS,), generator=g)
    every = torch.ones(size, size).triu(1).nonzero()
    flips, cells = torch.full((ROWS, E, 2), -1), torch.full((ROWS, K, 2), -1)
    for i in range(ROWS):
        k = int(torch.randint(0, E + 1, (1,), generator=g))
        some = every[torch.randperm(len(every), generator=g)[:k]]
        if i % 2:  # at the target, removals among them
            beside = graph.idx[graph.start[target[i]] :][: graph.count[target[i]]]
            other = torch.cat([beside[: k - 1], torch.randperm(size, generator=g)])
            other = other[(other != target[i])].unique()[:k]
            some = torch.stack([target[i].expand(len(other)), other], 1)
        flips[i, : len(some)] = some
        c = torch.randperm(size * WIDTH, generator=g)[: int(torch.randint(0, K + 1, (1,), generator=g))]
        cells[i, : len(c)] = torch.stack([c // WIDTH, c % WIDTH], 1)
    return graph, target, flips, cells, g


@pytest.mark.parametrize("name", list(LOCAL))
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), with_cells=st.booleans())
def test_scores_and_gradients_are_those_of_whole_graphs(name, seed, with_cells):
    graph, target, flips, cells, g = _case(seed)
    model = _model(name, seed)
    cells = cells if with_cells else None
    hard = GraphRows(graph, target, flips, cells=cells)
    assert (near_targets(model, hard) - whole_targets(model, hard)).abs().max() < 1e-10
    cotangent = torch.randn(ROWS, C, generator=g, dtype=torch.float64)
    w = torch.rand(ROWS, E, generator=g, dtype=torch.float64, requires_grad=True)
    cw = torch.rand(ROWS, K, generator=g, dtype=torch.float64, requires_grad=True)
    probe = torch.zeros(ROWS, 2, WIDTH, dtype=torch.float64, requires_grad=True)
    nodes = torch.stack([target, torch.full_like(target, -1)], 1)
    soft = GraphRows(
        graph, target, flips, w, cells, cw if with_cells else None, probe=probe, probe_nodes=nodes, probes="cells"
    )
    found = []
    for evaluate in (near_targets, whole_targets):
        scores = evaluate(model, soft)
        leaves = [w, probe, cw] if with_cells else [w, probe]
        slopes = torch.autograd.grad((scores * cotangent).sum(), leaves, allow_unused=True)
        found.append([scores.detach(), *(torch.zeros(()) if v is None else v for v in slopes)])
    for ours, whole in zip(*found, strict=True):
        assert (ours - whole).abs().max() < 1e-7


@pytest.mark.parametrize("seed", range(4))
def test_a_field_holds_the_perturbed_neighbourhood_and_its_true_degrees(seed):
    graph, target, flips, _, _ = _case(seed, 40)
    rows = GraphRows(graph, target, flips)
    fields, whole = EgoAdjacency(rows, 2), Adjacency(graph, flips)
    row, node = fields.key // 40, fields.key % 40
    assert torch.equal(fields.degree[:, 0], whole.degree[node, row])
    for i in range(ROWS):
        dense = torch.eye(40) + (whole.sum(torch.eye(40).unsqueeze(1)).permute(1, 0, 2)[i] > 0)
        reached = (dense @ dense)[target[i]].nonzero()[:, 0]
        assert torch.equal(node[row == i], reached)
    assert torch.equal(fields.answers(node.view(-1, 1, 1))[:, 0], target)
    inner, values = fields.narrow(node.view(-1, 1, 1))
    assert inner.size < fields.size and torch.equal(values.flatten(), inner.node)
    assert torch.equal(inner.degree[:, 0], whole.degree[inner.node, inner.key // 40])
    assert inner.narrow()[0] is inner
    assert len(fields.source) < len(rows) * len(graph.keys)


def test_small_runs_change_nothing_and_forward_chooses(monkeypatch):
    graph, target, flips, cells, _ = _case(3, 200)
    model = _model("gat", 3)
    rows = GraphRows(graph, target, flips, cells=cells)
    assert pays(model, rows)
    want = whole_targets(model, rows)
    assert (model(rows) - want).abs().max() < 1e-10
    monkeypatch.setattr(ego, "ELEMENTS", 1)
    assert (model(rows) - want).abs().max() < 1e-10
    probe = torch.zeros(ROWS, 1, 200)
    assert not pays(model, GraphRows(graph, target, flips, probe=probe, probe_nodes=target.unsqueeze(1)))
    assert not pays(model, rows.take(torch.zeros(0, dtype=torch.int64))) and not pays(torch.nn.Linear(1, 1), rows)
    dense = Graph(8, torch.ones(8, 8).triu(1).nonzero(), torch.ones(8, WIDTH))
    assert not pays(model, GraphRows(dense, target % 8, flips[:, :0]))
    assert Features(graph, 2).shared
