"""Stealth constraints against each row's graph taken apart by networkx."""

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_graph_powerlaw import DEVICES, by_hand, flipped, flips_of, graph_of, pairs_of

from advgym.envs.graph.constraints.cooccurrence import Cooccurrence
from advgym.envs.graph.constraints.powerlaw import THRESHOLD
from advgym.envs.graph.constraints.stealth import admissible, busiest, degree_move, singletons_made
from advgym.envs.graph.inputs.graphs import Graph


def lonely(size, pairs, row):
    """Nodes that lose their last edge."""
    clean, after = flipped(size, pairs, []), flipped(size, pairs, row)
    return sum(clean.degree[v] > 0 and after.degree[v] == 0 for v in range(size))


def most(size, pairs, row):
    """(most flips at a node, largest change of a degree)."""
    clean, after = flipped(size, pairs, []), flipped(size, pairs, row)
    at = [sum(v in pair for pair in row) for v in range(size)]
    return max(at), max(abs(after.degree[v] - clean.degree[v]) for v in range(size))


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None)
@given(pairs_of, st.booleans(), st.booleans(), st.sampled_from([None, 1, 2, 3]), st.sampled_from([None, 0.004, 0.5]))
def test_admissible_is_all_that_was_asked(device, drawn, singletons, connected, per_node, bar):
    size, pairs, rows = drawn
    graph, flips = graph_of(size, pairs, device), flips_of(rows, device)
    clean = flipped(size, pairs, [])
    want = []
    for row in rows:
        after = flipped(size, pairs, row)
        value = by_hand([d for _, d in clean.degree], [d for _, d in after.degree])
        want.append(
            (singletons or lonely(size, pairs, row) == 0)
            and (not connected or nx.number_connected_components(after) <= nx.number_connected_components(clean))
            and (per_node is None or most(size, pairs, row)[0] <= per_node)
            and (bar is None or value < bar)
        )
    found = admissible(
        graph, flips, degree_test=bar, singletons=singletons, connected=connected, per_node=per_node
    )  # fmt: skip
    assert found.tolist() == want
    assert singletons_made(graph, flips).tolist() == [lonely(size, pairs, row) for row in rows]
    assert busiest(graph, flips).tolist() == [most(size, pairs, row)[0] for row in rows]
    assert degree_move(graph, flips).tolist() == [most(size, pairs, row)[1] for row in rows]


def test_each_constraint_alone():
    # A triangle 0 1 2 with a tail 2-3, an isolated node 4.
    graph = graph_of(5, {(0, 1), (0, 2), (1, 2), (2, 3)})
    tail, swap, inner, pair = ([[2, 3], [-1, -1]], [[2, 3], [3, 0]], [[0, 1], [-1, -1]], [[0, 4], [1, 4]])
    flips = torch.tensor([tail, swap, inner, pair])
    assert admissible(graph, flips, singletons=False).tolist() == [False, True, True, True]
    assert admissible(graph, flips, connected=True).tolist() == [False, True, True, True]
    assert admissible(graph, flips, per_node=1).tolist() == [True, False, True, False]
    assert admissible(graph, flips).tolist() == [True] * 4
    none = torch.full((3, 0, 2), -1)
    assert (
        admissible(graph, none, degree_test=THRESHOLD, singletons=False, connected=True, per_node=0).tolist()
        == [True] * 3
    )
    with pytest.raises(ValueError, match="flips=, cells= or both"):
        admissible(graph, None)


def test_a_split_elsewhere_is_made_up_for_by_a_join():
    # Two components; the tail goes, the components join: as many as before, though others.
    graph = graph_of(5, {(0, 1), (1, 2), (3, 4)})
    flips = torch.tensor([[[1, 2], [0, 3]], [[1, 2], [0, 2]], [[1, 2], [-1, -1]]])
    assert admissible(graph, flips, connected=True).tolist() == [True, True, False]


def test_cells_meet_the_feature_test():
    x = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 1]]).float()
    graph = Graph(4, torch.tensor([[0, 1], [2, 3]]), x)
    test = Cooccurrence(x)
    cells = torch.tensor([[[0, 0], [-1, -1]], [[0, 2], [-1, -1]], [[0, 3], [1, 0]]])
    assert admissible(graph, None, cells, cooccurrence=test).tolist() == test.check(cells).tolist()
    assert not bool(test.check(cells).all())
    assert admissible(graph, None, cells).tolist() == [True] * 3
    both = admissible(graph, torch.tensor([[[0, 1]], [[-1, -1]], [[2, 3]]]), cells, cooccurrence=test, singletons=False)
    assert both.tolist() == [False, False, False]
