"""Nettack's feature test against exact fractions."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_graph_powerlaw import DEVICES

from advgym.envs.graph.constraints.cooccurrence import Cooccurrence, cooccurrence
from advgym.envs.graph.data.datasets import load_nodes


def by_hand(x):
    """Which features may be at each node, without rounding: list of sets."""
    nodes = [{i for i, v in enumerate(row) if v} for row in x]
    width = len(x[0])
    meets = [{j for has in nodes if i in has for j in has if j != i} for i in range(width)]
    weight = [Fraction(1, max(len(m), 1)) for m in meets]
    out = []
    for has in nodes:
        total = sum((weight[j] for j in has), Fraction(0))
        near = {i for i in range(width) if sum((weight[j] for j in has & meets[i]), Fraction(0)) > total / 2}
        out.append(near | has)
    return out


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 9).flatmap(
        lambda f: st.lists(st.lists(st.booleans(), min_size=f, max_size=f), min_size=1, max_size=9)
    )
)
def test_allowed_is_exact_ties_included(device, x):
    test = Cooccurrence(torch.tensor(x, device=device).float())
    want = by_hand(x)
    every = torch.arange(len(x), device=device)
    allowed = test.allowed(every)
    assert [set(row.nonzero()[:, 0].tolist()) for row in allowed] == want
    cells = torch.cartesian_prod(every, torch.arange(len(x[0]), device=device))
    assert torch.equal(test.check(cells.unsqueeze(1)), allowed.flatten())  # one cell a row
    assert bool(test.check(cells.unsqueeze(0))[0]) == bool(allowed.all())  # all cells in one
    assert torch.equal(test.refused(cells.unsqueeze(0))[0], ~allowed.flatten())


def test_a_tie_is_refused():
    # Words 0 and 1 are equally common; word 2 meets 0 alone: exactly half of node 0's walk, not more.
    x = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]).float()
    test = Cooccurrence(x)
    assert test.allowed(torch.tensor([0])).tolist() == [[True, True, False, False]]
    assert test.check(torch.tensor([[[0, 0], [0, 1]], [[0, 0], [0, 2]], [[-1, -1], [-1, -1]]])).tolist() == [
        True, False, True,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="nodes, features"):
        Cooccurrence(torch.ones(3))


def test_no_nodes_and_a_kept_test():
    graph = load_nodes("sbm").graph
    test = cooccurrence(graph)
    assert cooccurrence(graph) is test
    assert test.allowed(torch.zeros(0, dtype=torch.int64)).shape == (0, graph.features)
    some = test.allowed(torch.arange(graph.size))
    assert bool(some[graph.x > 0].all())  # what is there may go
