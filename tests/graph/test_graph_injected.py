"""Limits of injected nodes and of swaps: against graphs taken apart by networkx and sums by hand."""

from __future__ import annotations

from functools import partial

import networkx as nx
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_graph_powerlaw import by_hand

import advgym
from advgym.envs.graph.constraints.injected import Words, columns, degree_prefix, nth
from advgym.envs.graph.constraints.limits import Limits
from advgym.envs.graph.data.datasets import sbm
from advgym.envs.graph.tasks.injection import InjectionBatch, extended
from advgym.envs.graph.tasks.rewire import RewireBatch
from advgym.errors import AdvgymError

DATA = sbm(size=24, features=14, inside=0.3, outside=0.1, seed=5)
MANY, DEGREE, FEATURES = 3, 4, 4
seeds = st.integers(0, 1 << 30)


def batch_of(lanes=4, **limits):
    graph, nodes = extended(DATA.graph, MANY), torch.arange(8, 24)
    labels = DATA.labels[nodes].expand(lanes, -1)
    return InjectionBatch(
        torch.arange(lanes), labels, graph, nodes, many=MANY, degree=DEGREE, features=FEATURES, limits=Limits(**limits)
    )  # fmt: skip


def clean_graph(size=24 + MANY):
    out = nx.Graph()
    out.add_nodes_from(range(size))
    out.add_edges_from(DATA.graph.pairs.tolist())
    return out


def taken_apart(batch, row):
    """(perturbed networkx graph, injected edges at each old node, words of each injected node)."""
    out, at, words = clean_graph(), [0] * batch.first, {}
    for site, choice in row.tolist():
        if 0 <= site < MANY:
            out.add_edge(batch.first + site, choice)
            if choice < batch.first:
                at[choice] += 1
        elif site >= 0:
            words.setdefault(site - MANY, []).append(choice)
    return out, at, words


def company(words):
    """Whether each of a node's words keeps company with the others, by hand from the clean features."""
    x = DATA.graph.x > 0
    met = {i: {j for j in range(14) if j != i and bool((x[:, i] & x[:, j]).any())} for i in range(14)}
    share = {i: 1 / max(len(met[i]), 1) for i in range(14)}
    out = []
    for word in words:
        others = [w for w in words if w != word]
        near, mass = sum(share[w] for w in others if w in met[word]), sum(share[w] for w in others)
        out.append(not others or near > mass / 2 * (1 + 1e-9))
    return out


def degree_test(graph):
    clean = clean_graph()
    return by_hand([d for _, d in clean.degree], [d for _, d in graph.degree])


@settings(max_examples=40, deadline=None)
@example(seed=226, per_node=0, bar=0, cooccurrence=True)  # words that pass together, though not one after the other
@given(seeds, st.sampled_from([0, 1, 2]), st.sampled_from([0, 0.004, 0.05, 0.5]), st.booleans())
def test_valid_is_what_each_limit_says(seed, per_node, bar, cooccurrence):
    loose, tight = batch_of(), batch_of(per_node=per_node, degree_test=bar, cooccurrence=cooccurrence)
    form = loose.look(loose.random(seed)).form
    want = []
    for row in form:
        after, at, words = taken_apart(loose, row)
        want.append(
            (not per_node or max(at) <= per_node)
            and (not bar or degree_test(after) < bar)
            and (not cooccurrence or all(all(company(w)) for w in words.values()))
        )
    assert tight.check(form).tolist() == want
    projected = tight.project(form)
    assert bool(tight.check(projected).all())
    stayed = [row.tolist() == kept.tolist() for row, kept in zip(form, projected, strict=True)]
    assert stayed == want  # what is valid stays as it is, what is not loses something
    assert bool(tight.check(tight.random(seed)).all())


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_a_projection_keeps_what_comes_first(seed):
    loose = batch_of()
    form = loose.random(seed)
    one = batch_of(per_node=1).project(form)
    for before, after in zip(form.tolist(), one.tolist(), strict=True):
        seen = set()
        for b, a in zip(before, after, strict=True):
            old = 0 <= b[0] < MANY and b[1] < 24
            assert a == ([-1, -1] if old and b[1] in seen else b)
            seen |= {b[1]} if old else set()
    flips = loose._split(form)[0]
    keep = degree_prefix(loose.graph, flips, 0.05)
    for row, kept in zip(flips, keep, strict=True):
        graph, fine = clean_graph(), 0
        for e, (a, b) in enumerate(row.tolist()):
            if a >= 0:
                graph.add_edge(a, b)
                fine = e + 1 if degree_test(graph) < 0.05 else fine
        assert kept.tolist() == [e < fine and row[e, 0] >= 0 for e in range(len(row))]


def test_words_are_kept_in_turn():
    batch = batch_of(1)
    cells = torch.tensor([[[24, w] for w in range(14)] + [[26, 3]]])
    kept = Words(batch.graph, cells).kept()[0].tolist()
    stay = []
    for w in range(14):
        if all(company([*stay, w])):
            stay.append(w)
    assert kept == [w in stay for w in range(14)] + [True] and 1 < len(stay) < 14
    assert Words(batch.graph, cells[:, kept]).refused().any().item() is False
    assert Words(batch.graph, cells).refused()[0].tolist() == [not c for c in company(list(range(14)))] + [False]
    assert Words(batch.graph, cells[:, :0]).refused().shape == (1, 0)


def test_nth_counts_what_is_before():
    assert nth(torch.tensor([[4, 2, 4, 4, 2], [1, 2, 3, 4, 5]])).tolist() == [[0, 0, 1, 2, 1], [0] * 5]


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_columns_of_injected_nodes(seed):
    batch = batch_of(3)
    form = batch.look(batch.random(seed)).form
    found = columns().compute(batch, form)
    for i, row in enumerate(form):
        after, at, words = taken_apart(batch, row)
        idle = [n for n in range(24, 24 + MANY) if not after.degree[n] and n - 24 not in words]
        after.remove_nodes_from(idle)
        parts = nx.number_connected_components(after) - nx.number_connected_components(clean_graph(24))
        after.add_nodes_from(idle)
        edges = after.number_of_edges() - clean_graph().number_of_edges()
        assert found["nodes"][i] == MANY - len(idle) and found["edges"][i] == edges
        assert found["features"][i] == sum(map(len, words.values()))
        assert found["degree_max"][i] == max(at) and found["components"][i] == parts
        assert found["degree_test"][i] == pytest.approx(degree_test(after), abs=1e-9)
        assert found["unlikely"][i] == sum(not c for w in words.values() for c in company(w))


def test_an_attack_within_the_limits_says_so():
    options = {"per_node": 1, "degree_test": 0.05, "cooccurrence": True, "connected": True, "singletons": False}
    result = advgym.attack("graph/sbm-inject", "fgsm-injection", episodes=1, queries=20, gradients=20, **options)
    assert result.invalid_rate == 0 and advgym.verify(result) == []
    found = {name: column.mean for name, column in result.columns.items()}
    assert found["degree_test"] < 0.05 and found["degree_max"] == 1 and found["unlikely"] == 0 < found["edges"]
    free = advgym.attack("graph/sbm-inject", "fgsm-injection", episodes=1, queries=20, gradients=20)
    assert free.columns["degree_test"].mean > 0.05


@pytest.mark.parametrize("task", ["graph/sbm-inject", "graph/karate-rewire"])
def test_play_under_limits(task):
    words = {"cooccurrence": True} if "inject" in task else {"connected": True}
    limits = {"per_node": 2, "degree_test": 0.1, "singletons": False, **words}
    env, free = advgym.make(task, 4, queries=12, **limits), advgym.make(task, 4, queries=12)
    outside = 0
    for one in (env, free):
        one.reset(seed=1)
    for seed in range(6):
        p, loose = env.threat.random(seed), free.threat.random(seed)
        assert bool(env.threat.check(p).all()) and bool(free.threat.check(loose).all())
        want, live = env.threat.check(loose), env.live.clone()
        obs, *_ = env.step(loose)
        assert torch.equal(obs["valid"][live & obs["evaluated"]], want[live & obs["evaluated"]])
        outside += int((~want).sum())
    assert outside > 0


# -- swaps ------------------------------------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(seeds, st.booleans(), st.sampled_from([0, 2, 4]))
def test_swaps_keep_what_is_asked(seed, connected, per_node):
    known, target = torch.full((24,), -1), torch.tensor([3, 9, 12])
    made = partial(RewireBatch, torch.arange(3), DATA.labels[target], DATA.graph, target, known, 3, edits=4)
    loose, tight = made(), made(limits=Limits(connected=connected, per_node=per_node, degree_test=1e-9))
    form = loose.look(loose.random(seed)).form
    want, clean = [], clean_graph(24)
    for row in loose._flips(form):
        after, at = clean_graph(24), [0] * 24
        for a, b in row.tolist():
            if a >= 0:
                (after.remove_edge if after.has_edge(a, b) else after.add_edge)(a, b)
                at[a] += 1
                at[b] += 1
        apart = nx.number_connected_components(after) > nx.number_connected_components(clean)
        want.append(not (connected and apart) and (not per_node or max(at) <= per_node))
    assert tight.check(form).tolist() == want
    assert bool(tight.check(tight.project(form)).all())


def test_swaps_report_that_no_degree_moved():
    result = advgym.attack("graph/karate-rewire", "random-search", episodes=5, queries=20, degree_test=0.004)
    found = {name: column.mean for name, column in result.columns.items()}
    assert found["degree_test"] == pytest.approx(0, abs=1e-9) and found["degree_max"] == found["singletons"] == 0
    each = [sample.columns["flips"] for sample in result.samples]
    assert sum(each) > 0 and all(many % 4 == 0 for many in each)


def test_limits_that_say_nothing_are_refused():
    with pytest.raises(AdvgymError, match="cooccurrence says nothing here: it is a test of features"):
        advgym.make_task("graph/karate-rewire", cooccurrence=True)
    with pytest.raises(AdvgymError, match="at least 2, not 1"):
        advgym.make_task("graph/karate-rewire", per_node=1)
    with pytest.raises(AdvgymError, match="per_node is a whole number of at least 0"):
        advgym.make_task("graph/karate-inject", per_node=-1)
