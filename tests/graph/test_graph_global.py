"""Global attacks against a dense float64 forward: answers, gradients of weights, and the best of all pairs."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import advgym
from advgym.envs.graph.data.datasets import load_nodes, sbm
from advgym.envs.graph.inputs.adjacency import Adjacency, Tape
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.inputs.pairs import top_pairs
from advgym.envs.graph.perturb.global_batch import GlobalBatch
from advgym.envs.graph.victims.recipes import GCN, SGC
from advgym.envs.graph.victims.stacked import Stacked
from advgym.errors import AdvgymError


def dense(graph, flips=None, weights=None):
    """The perturbed adjacency of one row, float64 (N, N)."""
    out = torch.zeros(graph.size, graph.size, dtype=torch.float64)
    out[graph.pairs[:, 0], graph.pairs[:, 1]] = 1
    out = out + out.T
    for e, (a, b) in enumerate([] if flips is None else flips.tolist()):
        if a >= 0:
            w = 1.0 if weights is None else weights[e]
            change = (1 - 2 * float(graph.has(torch.tensor(a), torch.tensor(b)))) * w
            at = torch.tensor([a, b]), torch.tensor([b, a])
            out = out.index_put(at, torch.as_tensor(change, dtype=torch.float64).expand(2), accumulate=True)
    return out


def forward(model, graph, adjacency):
    """Textbook GCN or SGC in float64."""
    w = copy.deepcopy(model).double().weights()
    full = adjacency + torch.eye(graph.size, dtype=torch.float64)
    scale = full.sum(1).rsqrt()
    hat = scale.unsqueeze(1) * full * scale
    hidden = hat @ (graph.inputs_x().double() @ w.w1) + w.b1
    return hat @ ((hidden.relu() if w.relu else hidden) @ w.w2) + w.b2


def some_flips(graph, rows, many, seed):
    generator = torch.Generator().manual_seed(seed)
    out = torch.full((rows, many, 2), -1)
    for r in range(rows):
        a, b = torch.randint(0, graph.size, (2, 4 * many), generator=generator)
        pairs = torch.stack([a, b], 1)[a != b].sort(1).values.unique(dim=0)
        pairs = pairs[torch.randperm(len(pairs), generator=generator)][: many - r % 2]
        out[r, : len(pairs)] = pairs
        out[r, 0] = graph.pairs[(seed + 7 * r) % len(graph.pairs)]  # a removal
        same = (out[r, 1:] == out[r, 0]).all(1)
        out[r, 1:][same] = -1
    return out


@pytest.fixture(scope="module", params=["gcn", "sgc"])
def setup(request):
    data = sbm(size=60, features=20, inside=0.2, outside=0.05)
    torch.manual_seed(3)
    model = GCN(20, 3, 8) if request.param == "gcn" else SGC(20, 3)
    return data, model.eval()


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 4), many=st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_answers_are_those_of_the_dense_forward(setup, seed, rows, many):
    data, model = setup
    flips = some_flips(data.graph, rows, many, seed)
    nodes = data.nodes["test"]
    got = model(GlobalRows(data.graph, nodes, flips)).detach().view(rows, len(nodes), -1)
    for r in range(rows):
        want = forward(model, data.graph, dense(data.graph, flips[r]))[nodes]
        assert torch.allclose(got[r].double(), want, atol=1e-5)


def test_gradients_of_weights_are_those_of_the_dense_forward(setup):
    data, model = setup
    flips, nodes = some_flips(data.graph, 1, 9, 5), data.nodes["test"]
    weights = torch.linspace(0.1, 0.9, 9, requires_grad=True).unsqueeze(0)
    weights.retain_grad()
    model(GlobalRows(data.graph, nodes, flips, weights)).square().sum().backward()
    free = weights.detach()[0].double().requires_grad_()
    forward(model, data.graph, dense(data.graph, flips[0], free))[nodes].square().sum().backward()
    assert torch.allclose(weights.grad[0].double(), free.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("relaxed", [False, True])
def test_the_ranking_is_that_of_the_dense_gradient(setup, relaxed):
    data, model = setup
    graph, nodes = data.graph, data.nodes["test"]
    flips = some_flips(graph, 1, 6, 11)
    weights = torch.full((1, 6), 0.3) if relaxed else None
    batch = GlobalBatch(torch.tensor([0]), data.labels[nodes][None], graph, nodes, edits=6, support=6)
    x, leaves = batch.leaves(flips) if weights is None else batch.relaxed_leaves(flips, weights)
    truth = data.labels[nodes]
    grads = torch.autograd.grad(cross_entropy(model(x), truth), leaves)
    edits, gains = batch.rank_by(flips, list(grads), 40)
    adjacency = dense(graph, flips[0], None if weights is None else weights[0].double()).requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(forward(model, graph, adjacency)[nodes], truth), adjacency)
    every = torch.arange(graph.size)
    slope = (slope + slope.T) * (1 - 2 * graph.has(every.unsqueeze(1), every).double())
    for a, b in flips[0][flips[0, :, 0] >= 0].tolist():
        slope[a, b] = slope[b, a] = -torch.inf
    slope = slope.masked_fill(every.unsqueeze(1) >= every, -torch.inf)
    value = slope.flatten().topk(40).values
    assert torch.allclose(gains[0].double(), value, atol=1e-6)
    assert (edits[0, :, 0] < edits[0, :, 1]).all()
    assert torch.allclose(slope[edits[0, :, 0], edits[0, :, 1]], value, atol=1e-6)


@given(seed=st.integers(0, 1000), k=st.integers(1, 300), some=st.booleans())
@settings(max_examples=25, deadline=None)
def test_tiles_find_the_best_of_all_pairs(seed, k, some):
    graph = sbm(size=120, seed=seed % 5).graph
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, 120, 5, generator=generator, dtype=torch.float64)
    rows = torch.randperm(120, generator=generator)[:17].sort().values if some else None
    closed = graph.pairs[:9]
    pairs, gains = top_pairs(graph, left, right, k, closed=closed, rows=rows)
    table = left @ right.T
    table = table + table.T
    every = torch.arange(120)
    table = table * (1 - 2 * graph.has(every.unsqueeze(1), every).double())
    table[closed[:, 0], closed[:, 1]] = -torch.inf
    table = table.masked_fill(every.unsqueeze(1) >= every, -torch.inf)
    if rows is not None:
        inside = torch.isin(every, rows)
        table = table.masked_fill(~(inside.unsqueeze(1) | inside), -torch.inf)
    value = table.flatten().topk(min(k, int(table.isfinite().sum()))).values
    assert torch.allclose(gains, value)
    assert torch.allclose(table[pairs[:, 0], pairs[:, 1]], value)


def test_sums_can_be_differentiated_twice():
    graph = sbm(size=12, features=4, inside=0.5).graph
    flips = graph.pairs[:3].unsqueeze(0)
    weights = torch.tensor([[0.2, 0.5, 0.7]], dtype=torch.float64, requires_grad=True)
    h = torch.randn(12, 1, 3, dtype=torch.float64, requires_grad=True)

    def sums(h, weights):
        adjacency = Adjacency(graph, flips, weights)
        return adjacency.sum(torch.tanh(adjacency.sum(h))) / (adjacency.degree + 1).unsqueeze(2)

    assert torch.autograd.gradcheck(sums, (h, weights))
    assert torch.autograd.gradgradcheck(sums, (h, weights))


def test_a_model_of_ones_own_answers_globally():
    data = load_nodes("karate")
    model = advgym.make_task("graph/karate-global").victim.model
    own = Stacked(model.full)
    flips = some_flips(data.graph, 3, 4, 2)
    rows = GlobalRows(data.graph, data.nodes["test"], flips)
    assert torch.allclose(own(rows), model(rows), atol=1e-5)
    assert torch.equal(rows.take(torch.arange(len(rows))).flips, flips)
    with pytest.raises(AdvgymError, match="taken together"):
        rows.take(torch.arange(len(rows) - 1))


def test_a_foreign_model_ranks_a_block_of_pairs_as_ours_ranks_them_all():
    data = load_nodes("karate")
    model = advgym.make_task("graph/karate-global").victim.model
    nodes, flips = data.nodes["test"], some_flips(data.graph, 2, 4, 2)
    found = []
    for victim in (model, Stacked(model.full)):  # 561 pairs: the block is all of them
        batch = GlobalBatch(torch.arange(2), data.labels[nodes].expand(2, -1), data.graph, nodes, edits=4, support=4)
        x, leaves = batch.leaves(flips)
        loss = cross_entropy(victim(x), data.labels[nodes].repeat(2))
        found.append(batch.rank_by(flips, list(torch.autograd.grad(loss, leaves)), 30)[1])
    assert torch.allclose(found[0], found[1], atol=1e-6)


def test_pruned_pairs_gain_nothing():
    data = sbm(size=60, features=20, inside=0.2, outside=0.05)
    torch.manual_seed(3)
    model, nodes = GCN(20, 3, 8).eval(), data.nodes["test"]
    flips = some_flips(data.graph, 1, 5, 4)
    batch = GlobalBatch(torch.tensor([0]), data.labels[nodes][None], data.graph, nodes, edits=5, support=5)
    x, leaves = batch.leaves(flips)
    pruned = x.prune(0.2)
    keep = data.graph.alike(*torch.meshgrid(torch.arange(60), torch.arange(60), indexing="ij"), 0.2)
    adjacency = dense(data.graph, flips[0]) * keep
    want = forward(model, data.graph, adjacency)[nodes]
    assert torch.allclose(model(pruned).detach().double(), want, atol=1e-5)
    truth = data.labels[nodes]
    edits, gains = batch.rank_by(flips, list(torch.autograd.grad(cross_entropy(model(pruned), truth), leaves)), 30)
    free = adjacency.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(forward(model, data.graph, free)[nodes], truth), free)
    a, b = edits[0].T
    want = (slope[a, b] + slope[b, a]) * (1 - 2 * data.graph.has(a, b).double()) * keep[a, b]
    assert torch.allclose(gains[0].double(), want, atol=1e-6)
    assert (gains[0] > 0).sum() > 5


def test_budgets_and_members():
    task = advgym.make_task("graph/karate-global", eps=0.1)
    batch = task.samples("test", [0])
    assert int(batch.limit[0]) == 7  # 78 edges
    assert batch.price == 1 and batch.members == task.goal.members
    result = advgym.attack("graph/karate-global", "random-search", episodes=2, lanes=2, queries=20)
    assert result.members_rate is not None and result.queries_mean == 20
    with pytest.raises(AdvgymError, match="less than one flip"):
        advgym.make_task("graph/karate-global", eps=0.001)
    with pytest.raises(AdvgymError, match="above 0 and at most 1"):
        advgym.make_task("graph/karate-global", eps=2)
    for bad in (-1, 2.5, "few"):
        with pytest.raises(AdvgymError, match="targets is a whole number of at least 0"):
            advgym.make_task("graph/karate-global", targets=bad)
    with pytest.raises(AdvgymError, match=r"of option of 'some'.*all, targets"):
        advgym.make_task("graph/karate-global", of="some")


def test_prbcd_beats_random_flips():
    found = {
        agent: advgym.attack("graph/sbm-global", agent, episodes=1, queries=400, eps=0.1, settings=settings)
        for agent, settings in (("prbcd", {"epochs": 60}), ("random-search", {}))
    }
    assert found["prbcd"].members_rate > 2 * found["random-search"].members_rate + 0.05


def test_the_tape_has_factors_for_every_row():
    data = sbm(size=30, features=6)
    tape = Tape()
    flips = some_flips(data.graph, 2, 3, 1)
    model = GCN(6, 3, 4).eval()
    out = model(GlobalRows(data.graph, data.nodes["test"], flips, tape=tape)).sum()
    torch.autograd.grad(out, tape.leaf)
    left, right = tape.factors(1)
    assert left.shape == right.shape and len(left) == 30 and left.shape[1] == 4 + 3 + 1
