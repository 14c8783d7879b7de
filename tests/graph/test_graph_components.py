"""Components of perturbed graphs, against networkx."""

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from test_graph_powerlaw import DEVICES, flipped, flips_of, graph_of, pairs_of

from advgym.envs.graph.constraints import components
from advgym.envs.graph.constraints.components import clean_components, component_count, components_grow, may_cut
from advgym.envs.graph.data.datasets import sbm


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=80, deadline=None)
@given(pairs_of)
def test_counts_are_those_of_networkx_and_no_cut_is_missed(device, drawn):
    size, pairs, rows = drawn
    graph, flips = graph_of(size, pairs, device), flips_of(rows, device)
    want = [nx.number_connected_components(flipped(size, pairs, row)) for row in rows]
    clean = nx.number_connected_components(flipped(size, pairs, []))
    assert component_count(graph, flips).tolist() == want and clean_components(graph) == clean
    assert components_grow(graph, flips).tolist() == [n > clean for n in want]
    cut = [nx.number_connected_components(flipped(size, pairs, set(row) & pairs)) > clean for row in rows]
    assert may_cut(graph, flips).tolist() == cut  # 64 bits for at most 7 removals: chance is out of reach


def test_the_fast_answer_spares_most_counts_and_agrees_with_them(monkeypatch):
    graph, g = sbm().graph, torch.Generator().manual_seed(0)
    flips = graph.pairs[torch.randint(0, len(graph.pairs), (200, 4), generator=g)]
    flips[:, 3] = torch.randint(0, graph.size, (200, 2), generator=g)
    flips[:, 3][flips[:, 3, 0] == flips[:, 3, 1]] = -1
    flips[(flips[:, :, None] == flips[:, None]).all(3).sum((1, 2)) > 4, 1:] = -1  # a pair drawn twice
    asked = []
    count = components.component_count
    monkeypatch.setattr(components, "component_count", lambda g, f: asked.append(len(f)) or count(g, f))
    grows = components_grow(graph, flips)
    assert sum(asked) < 60  # of 200, and one for the clean graph
    assert torch.equal(grows, count(graph, flips) > clean_components(graph))


def test_many_removals_are_counted(monkeypatch):
    ring = graph_of(120, {(i, i + 1) for i in range(119)} | {(0, 119)})
    flips = torch.stack([ring.pairs[:60], torch.cat([ring.pairs[:1], torch.full((59, 2), -1)])])
    assert component_count(ring, flips).tolist() == [60, 1]
    assert may_cut(ring, flips).tolist() == [True, False]
    assert components_grow(ring, flips).tolist() == [True, False]
    monkeypatch.setattr(components, "ENTRIES", 1)  # one row at a time
    assert component_count(ring, flips).tolist() == [60, 1]
