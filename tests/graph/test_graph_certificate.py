"""Randomised smoothing: the certificate against exact probabilities, its bound attained, and attacks inside it."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

import advgym
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.models.smoothing import (  # fmt: skip
    Certificate,
    Smoothed,
    certified_radius,
    certify,
    lower_bound,
    smoothed,
    worst_share,
)
from advgym.envs.graph.victims.stacked import stack
from advgym.errors import AdvgymError

RATES = {"p_add": st.floats(0.01, 0.3), "p_del": st.floats(0.05, 0.6), "seed": st.integers(0, 10**6)}


def _inputs(bits):
    """All inputs of so many bits, bool (2^bits, bits)."""
    return torch.tensor(list(itertools.product([False, True], repeat=bits)))


def _reach(inputs, p_add, p_del):
    """Probability that input i is drawn as input j, float64 (m, m)."""
    one, other = inputs.unsqueeze(1), inputs.unsqueeze(0)
    kept, dropped, added, left = torch.tensor([1 - p_del, p_del, p_add, 1 - p_add], dtype=torch.float64)
    return torch.where(one, torch.where(other, kept, dropped), torch.where(other, added, left)).prod(2)


# -- the bound ---------------------------------------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(**RATES)
def test_no_input_in_reach_falls_below_the_bound(p_add, p_del, seed):
    inputs = _inputs(5)
    classifier = torch.rand(len(inputs), generator=torch.Generator().manual_seed(seed)) < 0.5
    share = _reach(inputs, p_add, p_del) @ classifier.double()  # exact, of every input
    for i in range(0, len(inputs), 5):
        for j in range(len(inputs)):
            add = int((~inputs[i] & inputs[j]).sum())
            drop = int((inputs[i] & ~inputs[j]).sum())
            assert share[j] >= worst_share(float(share[i]), p_add, p_del, add, drop) - 1e-9


@settings(max_examples=25, deadline=None)
@given(**RATES, add=st.integers(0, 2), drop=st.integers(0, 2))
def test_the_worst_classifier_attains_the_bound(p_add, p_del, seed, add, drop):
    inputs = _inputs(5)
    here = torch.tensor([False, False, True, True, True])
    there = torch.tensor([add > 0, add > 1, drop == 0, drop < 2, True])
    a, b = ((inputs == v).all(1).nonzero().item() for v in (here, there))
    reach = _reach(inputs, p_add, p_del)
    ratio = (reach[a] / reach[b]).log().mul(1e6).round()
    values = ratio.unique()
    cut = values[seed % len(values)]
    classifier = (ratio >= cut).double()  # whole regions, those that lose most
    bound = worst_share(float(reach[a] @ classifier), p_add, p_del, add, drop)
    assert float(reach[b] @ classifier) == pytest.approx(bound)


@settings(max_examples=50, deadline=None)
@given(share=st.floats(0, 1), p_add=st.floats(0, 0.4), p_del=st.floats(0, 0.59))
def test_a_certificate_shrinks_with_the_radius_and_grows_with_the_share(share, p_add, p_del):
    grid, more = certified_radius(share, p_add, p_del, 3), certified_radius(min(1.0, share + 0.1), p_add, p_del, 3)
    assert (
        bool((grid <= more).all()) and bool((grid[1:] <= grid[:-1]).all()) and bool((grid[:, 1:] <= grid[:, :-1]).all())
    )
    assert bool(grid[0, 0]) == (worst_share(share, p_add, p_del, 0, 0) > 0.5) == (share > 0.5)


@given(draws=st.integers(1, 300), count=st.integers(1, 300), alpha=st.sampled_from([0.05, 0.001]))
def test_the_lower_bound_has_its_confidence(draws, count, alpha):
    count = min(count, draws)
    low = lower_bound(count, draws, alpha)
    # Were the probability the bound itself, so many votes or more would come with probability alpha.
    assert binom.sf(count - 1, draws, low) == pytest.approx(alpha, rel=1e-6)
    assert lower_bound(0, draws, alpha) == 0 and low < count / draws


def test_the_largest_radii_are_named():
    grid = torch.zeros(1, 4, 4, dtype=torch.bool)
    grid[0, 0, :4] = grid[0, 1, :2] = grid[0, 2, :2] = True
    assert Certificate(torch.zeros(1), torch.ones(1), grid).pairs(0) == [(0, 3), (2, 1)]
    assert Certificate(torch.zeros(1), torch.ones(1), grid & False).pairs(0) == []


# -- the draws ---------------------------------------------------------------------------------------------------------
class _Even(torch.nn.Module):
    """Scores by the parity of the target's degree: all that a draw can move."""

    def forward(self, rows):
        owner, _ = rows.edges_near(rows.target, torch.arange(len(rows)))
        count = torch.bincount(owner, minlength=len(rows)) % 2
        return torch.nn.functional.one_hot(count, 2).float() * 9


def _dense(rows):
    n, size = len(rows), rows.graph.size
    edges, _ = stack(rows)
    out = torch.zeros(n, size, size, dtype=torch.bool)
    out[edges[0] // size, edges[0] % size, edges[1] % size] = True
    return out


@pytest.mark.parametrize("over", ["pairs", "own", "cells"])
def test_draws_turn_bits_at_their_rates_around_the_flips_that_came(over):
    g = torch.Generator().manual_seed(1)
    size, n = 9, 4000
    pairs = torch.triu(torch.rand(size, size, generator=g) < 0.4, 1).nonzero()
    graph = Graph(size, pairs, (torch.rand(size, 7, generator=g) < 0.4).float())
    flips, cells = torch.tensor([[[0, 1], [4, 0], [5, 2]]]), torch.tensor([[[0, 3], [2, 2]]])
    one = GraphRows(graph, torch.tensor([0]), flips, cells=cells)
    rows = one.take(torch.zeros(n, dtype=torch.int64))
    model = Smoothed(_Even(), p_add=0.1, p_del=0.5, over=over)
    keys = torch.arange(n)
    drawn = model.vary(rows, keys)
    if over == "cells":
        lane = torch.zeros(n, dtype=torch.int64)
        before, after = one._row_features(lane[:1], lane[:1])[0], drawn._row_features(torch.arange(n), lane)
        assert torch.equal(_dense(drawn.take(lane[:1])), _dense(one))
    else:
        before, after = _dense(one)[0], _dense(drawn)
        assert torch.equal(after, after.transpose(1, 2)) and not after.diagonal(dim1=1, dim2=2).any()
        mine = torch.zeros(size, size, dtype=torch.bool)
        mine[0] = mine[:, 0] = True
        if over == "own":
            assert bool((after == before)[:, ~mine].all())
            before, after = before[0, 1:], after[:, 0, 1:]
        else:
            at = torch.ones(size, size, dtype=torch.bool).triu(1)
            before, after = before[at], after[:, at]
    turned = (after != before).double().mean(0)
    want = torch.where(before, 0.5, 0.1).double()
    assert ((turned - want).abs() < 5 * (want * (1 - want) / n).sqrt()).all()
    both = (after != before).double() - want
    assert (both.T @ both / n - torch.diag(want * (1 - want))).abs().max() < 0.05  # bits are independent
    again = model.vary(rows.take(torch.tensor([3, 1])), torch.tensor([3, 1]))
    assert torch.equal(_dense(again), _dense(drawn)[[3, 1]])  # keys decide, not places


def test_votes_are_those_of_the_exact_smoothed_model():
    graph = Graph(5, torch.tensor([[0, 1], [0, 2], [3, 4]]), torch.eye(5))
    rows = GraphRows(graph, torch.tensor([0]), torch.empty(1, 0, 2, dtype=torch.int64))
    model = Smoothed(_Even(), p_add=0.2, p_del=0.3)
    share = model.votes(rows, torch.tensor([5]), 20000)[0][0, 0] / 20000
    exact = (1 + 0.4**2 * 0.6**2) / 2  # of an even count: (1 + prod (1 - 2 p_i)) / 2
    assert abs(float(share) - exact) < 5 * 0.5 / 20000**0.5
    found = certify(model, rows, draws=4000)
    assert found.share[0] < exact and found.label[0] == 0


def test_bad_arguments_are_refused():
    for kwargs, match in (({"over": "edges"}, "pairs"), ({"p_add": 0.5, "p_del": 0.6}, "sum"), ({"draws": 0}, "draws")):
        with pytest.raises(AdvgymError, match=match):
            Smoothed(_Even(), **kwargs)
    with pytest.raises(AdvgymError, match="cannot be smoothed"):
        smoothed("twice", smoothed("once", "karate-gcn"))


# -- attacks inside the radius -----------------------------------------------------------------------------------------
DRAWS = 150
SLACK = 5 * 0.5 / DRAWS**0.5


def _answers(model, rows):
    votes = model.votes(rows, torch.arange(len(rows)) + 10**6, DRAWS)[0]
    return votes / DRAWS


@pytest.fixture(scope="module")
def karate():
    data = load_nodes("karate")
    model = smoothed("karate-smooth", "karate-gcn", p_add=0.1, p_del=0.7).model
    test = data.nodes["test"]
    none = torch.empty(len(test), 0, 2, dtype=torch.int64)
    return data, model, test, certify(model, GraphRows(data.graph, test, none), draws=1000)


def test_no_single_or_double_flip_beats_the_certificate(karate):
    """All flips of up to two own edges of the certified nodes: no share falls below what is certified of it."""
    data, model, test, found = karate
    graph, tried = data.graph, 0
    sure = [i for i in range(len(test)) if bool(found.radius[i, 1, 0] | found.radius[i, 0, 1])]
    assert len(sure) >= 4 and max(found.share) > 0.9
    for i in sure[:2]:
        target = int(test[i])
        other = [z for z in range(graph.size) if z != target]
        sets = [(z,) for z in other] + list(itertools.combinations(other, 2))
        has = graph.has(torch.tensor(target), torch.arange(graph.size)).tolist()
        grown = torch.tensor([[sum(not has[z] for z in s), sum(has[z] for z in s)] for s in sets])
        inside = found.radius[i][grown[:, 0], grown[:, 1]]
        sets = [s for s, ok in zip(sets, inside.tolist(), strict=True) if ok]
        flips = torch.full((len(sets), 2, 2), -1)
        for k, s in enumerate(sets):
            flips[k, : len(s)] = torch.tensor([[target, z] for z in s])
        rows = GraphRows(graph, torch.full((len(sets),), target), flips)
        share = _answers(model, rows)[:, int(found.label[i])]
        bound = torch.tensor(
            [worst_share(float(found.share[i]), model.p_add, model.p_del, a, d) for a, d in grown[inside].tolist()]
        )
        assert (share + SLACK >= bound).all()
        safe = bound > 0.5 + SLACK
        assert (share[safe] > 0.5).all()
        tried += len(sets)
    assert tried > 50


@pytest.mark.parametrize("agent", ["random-search", "first-order"])
def test_attacks_through_the_gym_break_no_certified_node(karate, agent):
    """One flip each, with gradients through the draws; the verdict votes anew."""
    _, model, _, found = karate
    victim = advgym.Victim(model, name="karate-smooth", keyed=True)
    sure = {i for i in range(len(found.label)) if bool(found.radius[i, 1, 0] & found.radius[i, 0, 1])}
    result = advgym.attack(
        "graph/karate-edge", agent, episodes=len(found.label), lanes=16, victim=victim, edits=1, queries=10,
        gradients=10,
    )  # fmt: skip
    broken = {row.id for row in result.samples if row.success}
    attacked = {row.id for row in result.samples}
    assert len(sure & attacked) >= 4 and not sure & broken
