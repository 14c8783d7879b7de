"""Figures: what is placed where, and that the files hold what was drawn."""

import math

import matplotlib.image
import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from test_graph_powerlaw import flips_of, graph_of, pairs_of

from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.data.own import own_graph
from advgym.envs.graph.show import figures
from advgym.envs.graph.show.layout import layout

GREEN, RED = (np.array(to_rgb(c)) * 255 for c in (figures.ADDED, figures.REMOVED))


def near(path, colour):
    """Pixels within a little of a colour."""
    pixels = matplotlib.image.imread(path)[..., :3] * 255
    return int((np.abs(pixels - colour).max(2) < 12).sum())


@settings(max_examples=60, deadline=None)
@given(pairs_of, st.integers(1, 3), st.integers(1, 12))
def test_rings_are_hops_of_the_union(drawn, hops, most):
    size, pairs, rows = drawn
    graph, flips = graph_of(size, pairs), [p for p in sorted(rows[0])]
    place = layout(graph, flips, 0, hops, most)
    union = nx.Graph([*pairs, *flips])
    union.add_node(0)
    far = nx.single_source_shortest_path_length(union, 0)
    touched = {v for pair in flips for v in pair}
    assert place[0] == (0, 0) and touched <= place.keys()
    assert len(place.keys() - touched - {0}) <= most
    assert len(set(place.values())) == len(place)  # no node hides another
    for node, (x, y) in place.items():
        ring = math.hypot(x, y)
        if far.get(node, math.inf) <= hops:
            assert abs(ring - far[node]) < 1e-9 or (node in touched and ring > 0)
        else:
            assert node in touched and ring >= hops - 1e-9
    assert layout(graph, flips, 0, hops, most) == place


def test_added_edges_are_green_and_removed_ones_red(tmp_path):
    data = load_nodes("karate")
    graph, none = data.graph, torch.full((1, 2), -1)
    gone, new = graph.pairs[:1], torch.tensor([[0, 33]])
    assert not bool(graph.has(*new[0]))
    seen = {}
    for name, flips in {"none": none, "gone": gone, "new": new, "both": torch.cat([gone, none, new])}.items():
        path = figures.neighbourhood(
            graph, flips, 0, data.labels, tmp_path / f"{name}.png", class_names=data.class_names
        )
        seen[name] = near(path, GREEN) > 100, near(path, RED) > 100
    assert seen == {"none": (False, False), "gone": (False, True), "new": (True, False), "both": (True, True)}


def test_names_and_classes_are_written(tmp_path, monkeypatch):
    drawn = []
    save = figures._save
    monkeypatch.setattr(figures, "_save", lambda figure, path: drawn.append(figure) or save(figure, path))
    graph = nx.Graph([("ann", "bob"), ("bob", "cy $ co"), ("bob", "dee")])
    nx.set_node_attributes(graph, {"ann": "red", "bob": "blue_$1$", "cy $ co": "red"}, "label")
    data = own_graph(graph)
    figures.neighbourhood(
        data.graph, torch.tensor([[0, 2]]), 0, data.labels, tmp_path / "a.png", class_names=data.class_names
    )
    assert {t.get_text() for t in drawn[0].axes[0].texts} == {"ann", "cy $ co"}  # dee and bob are only passers-by
    legend = [t.get_text().replace("\\", "") for t in drawn[0].legends[0].get_texts()]
    assert legend == ["edge added", "blue_$1$", "red"]
    figures.neighbourhood(data.graph, torch.tensor([[0, 1]]), 1, None, tmp_path / "b.pdf")  # no labels at all
    assert [t.get_text() for t in drawn[1].legends[0].get_texts()] == ["edge removed"]


def test_degrees_are_drawn_with_lambda(tmp_path):
    graph = load_nodes("sbm").graph
    path = figures.degrees(graph, torch.full((2, 2), -1), tmp_path / "same.svg")
    assert "unnoticeable" in path.read_text()
    hub = torch.stack([torch.zeros(60, dtype=torch.int64), torch.arange(200, 260)], 1)
    text = figures.degrees(graph, hub[~graph.has(hub[:, 0], hub[:, 1])], tmp_path / "hub.svg").read_text()
    assert ", noticeable" in text and "unnoticeable" not in text
    d, share = figures._at_least(torch.tensor([0, 1, 1, 3]))
    assert (d, share) == ([1, 3], [0.75, 0.25])
    bare = graph_of(3, set())
    figures.degrees(bare, flips_of([[(0, 1)]])[0], tmp_path / "bare.png")  # nothing to put on a logarithmic axis before


@pytest.mark.parametrize("flips", [[(0, 1)], []])
def test_an_isolated_target_is_a_picture(tmp_path, flips):
    graph = graph_of(3, {(1, 2)})
    assert figures.neighbourhood(graph, flips_of([flips])[0], 0, None, tmp_path / "a.png").stat().st_size > 1000
