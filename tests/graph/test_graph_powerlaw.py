"""Nettack's degree test: three ways to the same number, and the figures known for Cora."""

import math
from pathlib import Path

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.envs.graph.constraints.powerlaw import THRESHOLD, DegreeTest, degree_changes, degree_test_of
from advgym.envs.graph.data.interchange import read_npz
from advgym.envs.graph.inputs.graphs import Graph

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
pairs_of = st.integers(3, 14).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda p: p[0] < p[1]), max_size=30),
        st.lists(
            st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda p: p[0] < p[1]), max_size=7),
            min_size=1, max_size=4,
        ),
    )
)  # fmt: skip


def graph_of(size, pairs, device="cpu"):
    at = torch.tensor(sorted(pairs), dtype=torch.int64).reshape(-1, 2)
    return Graph(size, at, torch.zeros(size, 0)).to(device)


def flips_of(rows, device="cpu"):
    """Padded, every other pair the other way round, padding first in odd rows."""
    width = max(map(len, rows)) + 1
    out = torch.full((len(rows), width, 2), -1)
    for i, row in enumerate(rows):
        for e, (a, b) in enumerate(sorted(row)):
            out[i, e + (i % 2)] = torch.tensor([a, b] if e % 2 else [b, a])
    return out.to(device)


def flipped(size, pairs, row):
    graph = nx.Graph()
    graph.add_nodes_from(range(size))
    graph.add_edges_from(set(pairs) ^ set(row))
    return graph


def by_hand(clean, perturbed):
    """Lambda of two degree lists, from the formulas of the paper's section 4.1 in plain floats."""

    def likelihood(degrees):
        d = [v for v in degrees if v >= 2]
        if not d:
            return 0.0
        alpha = 1 + len(d) / sum(math.log(v / 1.5) for v in d)
        return len(d) * math.log(alpha) + len(d) * alpha * math.log(2) - (alpha + 1) * math.fsum(map(math.log, d))

    return -2 * likelihood(clean + perturbed) + 2 * (likelihood(clean) + likelihood(perturbed))


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None)
@given(pairs_of)
def test_incremental_is_from_scratch_is_by_hand(device, drawn):
    size, pairs, rows = drawn
    graph, flips = graph_of(size, pairs, device), flips_of(rows, device)
    clean = [d for _, d in flipped(size, pairs, []).degree]
    after = [[d for _, d in flipped(size, pairs, row).degree] for row in rows]
    test = DegreeTest(graph.degree)
    want = torch.tensor([by_hand(clean, d) for d in after], dtype=torch.float64, device=device)
    torch.testing.assert_close(test.incremental(flips, graph), want, atol=1e-9, rtol=0)
    torch.testing.assert_close(test.statistic(torch.tensor(after, device=device)), want, atol=1e-9, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=40, deadline=None)
@given(pairs_of)
def test_after_is_incremental_with_one_more_flip(device, drawn):
    size, pairs, rows = drawn
    graph, flips = graph_of(size, pairs, device), flips_of(rows, device)
    test = DegreeTest(graph.count)
    every = [(a, b) for a in range(size) for b in range(size)]  # both directions, self-pairs, flips taken back
    more = torch.tensor(every, device=device).expand(len(rows), -1, -1)
    found = test.after(test.state(flips, graph), more)
    for i, row in enumerate(rows):
        sets = [set(row) ^ ({(min(p), max(p))} if p[0] != p[1] else set()) for p in every]
        want = test.incremental(flips_of(sets, device), graph)
        torch.testing.assert_close(found[i], want, atol=1e-9, rtol=0)
    nothing = test.after(test.state(flips, graph), torch.full((len(rows), 2, 2), -1, device=device))
    torch.testing.assert_close(nothing, test.incremental(flips, graph).unsqueeze(1).expand(-1, 2), atol=1e-9, rtol=0)


def test_the_clean_graph_is_at_zero_and_degenerate_graphs_are_finite():
    path = graph_of(5, {(0, 1), (1, 2), (2, 3), (3, 4)})
    none = torch.full((2, 0, 2), -1)
    assert degree_test_of(path).incremental(none, path).abs().max() < 1e-12
    bare = graph_of(4, set())
    value = degree_test_of(bare).incremental(torch.tensor([[[0, 1], [1, 2]], [[0, 1], [2, 3]]]), bare)
    assert bool(torch.isfinite(value).all()) and value[1] == 0  # no node of degree 2, before or after
    with pytest.raises(ValueError, match="one number per node"):
        DegreeTest(torch.zeros(2, 3))


def test_flips_at_one_node_add_up():
    graph = graph_of(5, {(0, 1), (1, 2)})
    row, node, change = degree_changes(graph, torch.tensor([[[1, 0], [3, 1], [1, 4], [-1, -1]]]))
    assert row.tolist() == [0] * 4
    assert dict(zip(node.tolist(), change.tolist(), strict=True)) == {0: -1, 1: 1, 3: 1, 4: 1}


@pytest.mark.realdata
def test_what_is_known_of_cora(data_dir: Path):
    """20 random edges are mostly above the bar (a draw on record: 0.009), 253 (5 %) far above (on record: 1.23)."""
    size, pairs, _, _ = read_npz(data_dir / "graph" / "npz" / "cora.npz", largest_component=True)
    graph, g = Graph(size, pairs, torch.zeros(size, 0)), torch.Generator().manual_seed(0)
    test = degree_test_of(graph)

    def added(many, rows):
        draws = torch.randint(0, size, (rows, 2 * many, 2), generator=g)
        fresh = [p[(p[:, 0] != p[:, 1]) & ~graph.has(p[:, 0], p[:, 1])][:many] for p in draws]
        return torch.stack(fresh)

    few, many = (test.incremental(added(k, 40), graph) for k in (20, 253))
    assert THRESHOLD < few.mean() < 0.03 and (few > THRESHOLD).double().mean() > 0.6
    assert many.min() > 1 and many.max() < 3 and 1.5 < many.mean() < 2.3

    def wrong(n, s):  # the sign of l's last term in DeepRobust, on record as 2.26 times too large
        alpha = 1 + n / (s - n * math.log(1.5))
        return n * alpha.log() + n * alpha * math.log(2) + (alpha + 1) * s

    flips = added(253, 1)
    state = test.state(flips, graph)
    n, s = state.n[0], state.s[0]
    mistaken = -2 * wrong(test.n + n, test.s + s) + 2 * (wrong(test.n, test.s) + wrong(n, s))
    assert abs(float(mistaken / test.incremental(flips, graph)[0]) - 2.26) < 0.01
