"""Attacks through the zoo: sweeps of all pairs, what defenses hand back, and that no model is weaker under transfer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_graph_zoo import LISTED, ROWS, C, _case, _model, _reference

import advgym
from advgym.core.victim import Victim
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.inputs.adjacency import Adjacency, Tape
from advgym.envs.graph.inputs.edges import SweepTape
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.pairs import busiest, gains_of, ranked, top_pairs
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.models.fitting import accuracy, fit
from advgym.envs.graph.models.pagerank import columns
from advgym.envs.graph.models.propagation import Propagation
from advgym.envs.graph.victims.zoo import MODELS


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# -- sweeps ------------------------------------------------------------------------------------------------------------
def _swept(model, graph, flips, cotangent, many):
    tape = SweepTape(many=many)
    tape.leaf = tape.leaf.detach().double().requires_grad_()
    scores = model(GlobalRows(graph, torch.arange(graph.size), flips, tape=tape)).view(len(flips), graph.size, C)
    torch.autograd.grad((scores * cotangent).sum(), tape.leaf)
    return tape, scores


@pytest.mark.parametrize("name", LISTED)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_sweep_has_the_gains_of_all_pairs_of_the_dense_model(name, seed):
    graph, flips, every, g = _case(seed)
    model, cotangent = _model(name, seed), torch.randn(ROWS, graph.size, C, generator=g)
    tape, scores = _swept(model, graph, flips, cotangent, 10**6)
    want, slopes = _reference(name, model, graph, flips, cotangent)
    assert (scores - want).abs().max() < 1e-8
    for i in range(ROWS):
        pairs, gain = tape.best(graph, i)
        assert torch.equal(pairs, every)
        sign = 1 - 2 * graph.has(*pairs.unbind(1)).double()
        assert (gain * sign - slopes[i][pairs[:, 0], pairs[:, 1]]).abs().max() < 1e-5


def test_a_sweep_of_few_pairs_finds_most_of_the_best():
    g = torch.Generator().manual_seed(1)
    size = 200
    pairs = torch.triu(torch.rand(size, size, generator=g) < 0.02, 1).nonzero()
    graph = Graph(size, pairs, torch.rand(size, 6, generator=g))
    flips, model = torch.full((1, 1, 2), -1), _model("gat", 3)
    cotangent = torch.randn(1, size, C, generator=g)
    full, few = (_swept(model, graph, flips, cotangent, many)[0] for many in (10**6, 11_000))
    all_pairs, all_gains = full.best(graph, 0)
    some, gain = few.best(graph, 0)
    keys = some[:, 0] * size + some[:, 1]
    assert len(keys) == len(keys.unique()) < 12_000 < len(all_pairs)
    assert (gain - full.gains_of(graph, 0, some)).abs().max() < 1e-6
    best = all_pairs[all_gains.topk(50).indices]
    assert torch.isin(best[:, 0] * size + best[:, 1], keys).double().mean() > 0.8
    found, _ = ranked(graph, few, 0, 50, best[:5])
    assert not torch.isin(found[:, 0] * size + found[:, 1], best[:5, 0] * size + best[:5, 1]).any()


def test_the_busiest_rows_hold_most_of_the_best_pairs():
    torch.set_default_dtype(torch.float32)
    g = torch.Generator().manual_seed(0)
    size = 700
    pairs = torch.triu(torch.rand(size, size, generator=g) < 0.01, 1).nonzero()
    graph = Graph(size, pairs, torch.ones(size, 1))
    scale = torch.rand(size, 1, generator=g) ** 6  # few nodes matter, as under an attack
    left, right = scale * torch.randn(size, 8, generator=g), torch.rand(size, 8, generator=g)
    rows = busiest(graph, left, right, 3)
    best, some = top_pairs(graph, left, right, 100)[0], top_pairs(graph, left, right, 100, rows=rows)[0]
    keys = [set((p[:, 0] * size + p[:, 1]).tolist()) for p in (best, some)]
    assert len(rows) < size and len(keys[0] & keys[1]) > 95


# -- what defenses hand back -------------------------------------------------------------------------------------------
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_columns_of_pagerank_are_those_of_the_inverse_with_its_gradient(seed):
    graph, flips, every, g = _case(seed)
    tape = Tape()
    nodes = torch.randint(0, graph.size, (ROWS, 3), generator=g)
    found = columns(Adjacency(graph, flips, tape=tape), nodes, 0.2, 80, torch.zeros(()))
    cotangent = torch.randn(found.shape, generator=g)
    torch.autograd.grad((found * cotangent).sum(), tape.leaf)
    for i in range(ROWS):
        a = torch.zeros(graph.size, graph.size)
        for p, q in [*graph.pairs.tolist(), *(f for f in flips[i].tolist() if f[0] >= 0)]:
            a[p, q] = a[q, p] = 1 - a[p, q]
        a.requires_grad_()
        loops = a + torch.eye(graph.size)
        scale = loops.sum(1).rsqrt()
        s = 0.2 * torch.linalg.inv(torch.eye(graph.size) - 0.8 * scale[:, None] * loops * scale)
        assert (found[:, i] - s[:, nodes[i]]).abs().max() < 1e-10
        (slope,) = torch.autograd.grad((s[:, nodes[i]] * cotangent[:, i]).sum(), a)
        slope = (slope + slope.T)[every[:, 0], every[:, 1]]
        sign = 1 - 2 * graph.has(*every.unbind(1)).double()
        assert (gains_of(graph, *tape.factors(i), every) * sign - slope).abs().max() < 1e-6


def test_low_rank_gradients_know_how_the_subspace_turns():
    """By finite differences, on a graph whose other eigenvalues are zero: a complete bipartite part and a star."""
    left = torch.cartesian_prod(torch.arange(3), torch.arange(3, 7))
    star = torch.stack([torch.full((5,), 7), torch.arange(8, 13)], 1)
    graph = Graph(14, torch.cat([left, star]), torch.rand(14, 6, generator=torch.Generator().manual_seed(0)))
    model = MODELS["svd"](6, C, hidden=5, rank=4).double().eval().requires_grad_(False)
    every, nodes = torch.triu_indices(14, 14, 1).T, torch.arange(14)
    cotangent, tape = torch.randn(14, C, generator=torch.Generator().manual_seed(1)), Tape()
    none = torch.empty(1, 0, 2, dtype=torch.int64)
    torch.autograd.grad((model(GlobalRows(graph, nodes, none, tape=tape)) * cotangent).sum(), tape.leaf)
    gains = gains_of(graph, *tape.factors(0), every)
    small = 1e-5
    flips, weights = every.unsqueeze(1), torch.full((len(every), 1), small)
    moved = model(GlobalRows(graph, nodes, flips, weights)).view(len(every), 14, C)
    clean = model(GlobalRows(graph, nodes, none))
    assert (((moved - clean) * cotangent).sum((1, 2)) / small - gains).abs().max() < 1e-3
    assert gains[(every == 13).any(1)].abs().max() > 1e-3  # node 13 is isolated: outside the subspace


def test_soft_medians_of_targets_are_those_of_the_whole_graph():
    g = torch.Generator().manual_seed(2)
    size = 60
    pairs = torch.triu(torch.rand(size, size, generator=g) < 0.08, 1).nonzero()
    graph = Graph(size, pairs, torch.rand(size, 6, generator=g))
    model = _model("soft-median", 4)
    target = torch.arange(0, size, 7)
    flips = torch.randint(0, size, (len(target), 3, 2), generator=g)
    flips = torch.where((flips[..., :1] == flips[..., 1:]), -1, flips)[:, :1]
    assert (model(GraphRows(graph, target, flips)) - Propagation.forward(model, GraphRows(graph, target, flips))).abs(
    ).max() < 1e-10  # fmt: skip
    probe = torch.zeros(len(target), 1, size, requires_grad=True)
    rows = GraphRows(graph, target, flips[:, :0], probe=probe, probe_nodes=target.unsqueeze(1))
    cotangent = torch.randn(len(target), C, generator=g)
    near, whole = (
        torch.autograd.grad((f(rows) * cotangent).sum(), probe)[0]
        for f in (model, lambda r: Propagation.forward(model, r))
    )
    assert float(whole.abs().max()) > 1e-3 and (near - whole).abs().max() < 1e-7


# -- attacks -----------------------------------------------------------------------------------------------------------
def _trained(name):
    torch.set_default_dtype(torch.float32)
    data = load_nodes("sbm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name](data.graph.features, data.classes, **({"top": 16} if name == "soft-median" else {}))
        fit(model, data, epochs=40)
    return model.eval().requires_grad_(False)


def _attacked(model, **settings):
    result = advgym.attack("graph/sbm-global", "prbcd", episodes=1, victim=Victim(model), settings=settings)
    edits = [e[:2] for e in result.samples[0].perturbation["edits"]]
    return torch.tensor(edits).reshape(1, -1, 2), result.members_rate


@pytest.fixture(scope="module")
def moved():
    return _attacked(_trained("gcn"), epochs=40)[0]


SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in MODELS if n not in ("gcn", "gnnguard", "mlp")]


@pytest.mark.parametrize("name", ["gnnguard", *SLOW])
def test_an_attack_through_a_model_is_no_weaker_than_transfer(name, moved):
    """From nothing, with a tolerance of 2 of 100 nodes; and from the transferred flips, with none."""
    data, model = load_nodes("sbm"), _trained(name)
    under_moved = accuracy(model, data, "test", moved)
    own, _ = _attacked(model, epochs=30)
    assert accuracy(model, data, "test", own) <= under_moved + 0.02
    assert accuracy(model, data, "test", own) < accuracy(model, data, "test") - 0.02


def test_prbcd_tries_the_flips_that_it_starts_from(moved):
    data, model = load_nodes("sbm"), _trained("gnnguard")
    kept, rate = _attacked(model, epochs=0, samples=0, start=moved[0].tolist())
    longer, more = _attacked(model, epochs=15, start=moved[0].tolist())
    size = data.graph.size
    assert torch.equal(*((f[0, :, 0] * size + f[0, :, 1]).sort().values for f in (kept, moved)))
    assert more >= rate > 0 and len(longer[0])
