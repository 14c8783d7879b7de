"""Graphs in and out: round trips, attacks as networkx graphs, files of others, and what is refused."""

import gzip
import re
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.data.interchange import attacked_networkx, perturbed_networkx, read_graph, read_npz, to_networkx
from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.data.own import own_graph
from advgym.envs.graph.inputs.graphs import Graph, content_hash
from advgym.errors import DataError


def same(one: NodeData, other: NodeData) -> bool:
    return (
        content_hash(one.graph, one.labels) == content_hash(other.graph, other.labels)
        and one.class_names == other.class_names
        and (one.classes, one.graph.row_norm) == (other.classes, other.graph.row_norm)
        and one.nodes.keys() == other.nodes.keys()
        and all(torch.equal(nodes, other.nodes[split]) for split, nodes in one.nodes.items())
    )


@pytest.mark.parametrize("name", ["karate", "sbm", pytest.param("cora", marks=pytest.mark.realdata)])
def test_a_dataset_comes_back_the_same(name, request):
    if name == "cora":
        request.getfixturevalue("data_dir")
    data = load_nodes(name)
    assert same(data, own_graph(to_networkx(data)))


def test_own_graphs_come_back_the_same_with_their_names():
    graph = nx.Graph([("ann", "bob"), ("bob", "cy")])
    graph.add_node("dee")  # nobody knows her
    for node, label in {"ann": "red", "bob": "blue", "dee": "red"}.items():
        graph.nodes[node]["label"] = label
    for i, node in enumerate(graph):
        graph.nodes[node]["x"] = [i, 0.5]
    graph.graph["class_names"] = ["red", "blue", "green"]
    data = own_graph(graph)
    assert data.class_names == ["red", "blue", "green"] and data.labels.tolist() == [0, 1, -1, 0] and data.classes == 3
    out = to_networkx(data)
    assert list(out) == ["ann", "bob", "cy", "dee"] and out.nodes["ann"]["label"] == "red"
    assert "label" not in out.nodes["cy"]
    assert same(data, own_graph(out))
    assert "x" not in to_networkx(data, x=False).nodes["ann"]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_simple_graph_comes_back_and_any_blemish_is_named(data):
    names = data.draw(st.lists(st.text("ab$ 1", min_size=1, max_size=4), min_size=3, max_size=8, unique=True))
    edges = data.draw(st.sets(st.sampled_from(list(combinations(names, 2)))))
    labels = data.draw(st.lists(st.sampled_from([None, 0, 1, 2]), min_size=len(names), max_size=len(names)))
    graph = nx.Graph()
    graph.add_nodes_from(names)
    graph.add_edges_from(edges)
    labels[0] = 1
    for node, label in zip(names, labels, strict=True):
        graph.nodes[node].update(x=[float(len(node)), 0.0], **({} if label is None else {"label": label}))
    found = own_graph(graph)
    assert found.graph.names == names and len(found.graph.pairs) == len(edges)
    assert same(found, own_graph(to_networkx(found)))
    node, other = data.draw(st.permutations(names))[:2]
    directed = nx.DiGraph(graph)  # both directions: fine, until one of them goes
    assert same(found, own_graph(directed))
    if edges:
        a, b = sorted(edges)[0]
        directed.remove_edge(b, a)
        with pytest.raises(DataError, match=re.escape(f"edge ({a}, {b}) is directed")):
            own_graph(directed)
        twice = nx.MultiGraph(graph)
        twice.add_edge(b, a)
        with pytest.raises(DataError, match=r"is stored twice"):
            own_graph(twice)
    for blemish, words in (
        (lambda g: g.add_edge(node, node), f"edge ({node}, {node}) is a self-loop"),
        (lambda g: g.nodes[node].update(x=[float("nan"), 0.0]), f"features of node {node} hold NaN"),
        (lambda g: g.nodes[node].pop("x"), f"node {node} has no features"),
        (lambda g: g.nodes[node].update(label=-3), f"node {node} has label -3"),
        (lambda g: g.add_edge(node, other, weight=0.5), "has weight 0.5"),
        (lambda g: g.add_edge(node, "nobody"), "node nobody has no features"),
    ):
        bad = graph.copy()
        blemish(bad)
        with pytest.raises(DataError, match=re.escape(words)):
            own_graph(bad)


def test_a_graph_alone_takes_labels():
    graph = Graph(3, torch.tensor([[0, 1]]), torch.eye(3), names=["a", "a", "b"])  # names that do not tell apart
    out = to_networkx(graph, torch.tensor([1, -1, 0]))
    assert dict(out.nodes(data="label")) == {0: 1, 1: None, 2: 0}


def test_an_attack_as_two_networkx_graphs():
    result = advgym.attack("graph/karate-edge", "greedy", episodes=3)
    task, data = advgym.make_task("graph/karate-edge"), load_nodes("karate")
    for sample in result.samples:
        clean, attacked = perturbed_networkx(task, sample, split=result.split, data=data)
        gone = {frozenset(e) for *e, f in clean.edges(data="flip") if f == "removed"}
        new = {frozenset(e) for *e, f in attacked.edges(data="flip") if f == "added"}
        assert gone | new == {frozenset(e) for e in sample.perturbation["edits"]}
        assert {frozenset(e) for e in clean.edges} ^ {frozenset(e) for e in attacked.edges} == gone | new
        assert {f for g in (clean, attacked) for *_, f in g.edges(data="flip")} <= {None, "added", "removed"}
        assert clean.graph["target"] == int(data.nodes[result.split][sample.id])
        again = own_graph(attacked)  # read again: the perturbed graph, labels and all
        want = [(min(a, b), max(a, b)) for a, b in attacked.edges]
        assert sorted(map(tuple, again.graph.pairs.tolist())) == sorted(want)
        assert torch.equal(again.labels, data.labels)


def test_feature_flips_are_marked():
    data = load_nodes("sbm")
    off = int((data.graph.x[7] == 0).nonzero()[0])
    clean, attacked = attacked_networkx(data, None, torch.tensor([[7, off], [-1, -1]]))
    assert attacked.nodes[7]["flipped"] == clean.nodes[7]["flipped"] == [off]
    assert clean.nodes[7]["x"][off] == 0 and attacked.nodes[7]["x"][off] == 1
    assert "flipped" not in attacked.nodes[8]


def test_a_task_on_many_graphs_has_no_networkx_graph():
    task = SimpleNamespace(name="graph/mutag-edge", samples=lambda split, ids: object())
    with pytest.raises(DataError, match="not about one graph"):
        perturbed_networkx(task, SimpleNamespace(id=0, perturbation=None))


# -- files ----------------------------------------------------------------------------------------------------------
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "whole", "largest", "features"),
    [("cora", (2708, 5278), (2485, 5069), 1433), ("cora_ml", (2995, 8158), (2810, 7981), 2879)],
)
def test_the_citation_graphs_have_the_sizes_everyone_quotes(data_dir: Path, name, whole, largest, features):
    path = data_dir / "graph" / "npz" / f"{name}.npz"
    for wanted, flag in ((whole, False), (largest, True)):
        size, pairs, x, labels = read_npz(path, largest_component=flag)
        assert (size, len(pairs)) == wanted and x.shape == (size, features) and labels.shape == (size,)
        graph = Graph(size, pairs, x)
        assert len(graph.pairs.unique(dim=0)) == len(pairs) and not bool((pairs[:, 0] == pairs[:, 1]).any())
    assert nx.is_connected(to_networkx(graph, x=False))
    data = own_graph(read_graph(path, largest_component=True))
    assert torch.equal(data.graph.pairs, graph.pairs) and torch.equal(data.labels, labels)


def _npz(path, **parts):
    held = {"adj_data": np.ones(4), "adj_indices": np.array([1, 0, 2, 3]), "adj_indptr": np.array([0, 1, 3, 4, 4]),
            "adj_shape": np.array([4, 4]), "labels": np.array([0, 1, 0, 1])}  # fmt: skip
    np.savez(path, **{**held, **parts})
    return path


def test_npz_is_made_simple_and_undirected(tmp_path):
    # 0-1 both ways, 1-2 and 2-3 one way each; then with a loop and a stored zero instead.
    size, pairs, x, labels = read_npz(_npz(tmp_path / "a.npz"))
    assert (size, pairs.tolist(), x, labels.tolist()) == (4, [[0, 1], [1, 2], [2, 3]], None, [0, 1, 0, 1])
    loop = _npz(tmp_path / "b.npz", adj_indices=np.array([1, 0, 1, 3]), adj_data=np.array([1.0, 2.0, 1.0, 0.0]))
    assert read_npz(loop)[1].tolist() == [[0, 1]]
    size, pairs, _, labels = read_npz(loop, largest_component=True)
    assert (size, pairs.tolist(), labels.tolist()) == (2, [[0, 1]], [0, 1])


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"labels": np.array([{"a": 1}], dtype=object)}, "not a graph in CSR parts"),  # a pickle, never opened
        ({"adj_indices": np.array([1, 0, 2, 9])}, "not a graph in CSR parts"),
        ({"adj_shape": np.array([4, 5])}, "want one of each per node"),
        ({"labels": np.array([0, 1])}, "2 labels"),
        ({"attr_data": np.ones(1)}, "not a graph in CSR parts"),
    ],
)
def test_broken_npz_is_refused(tmp_path, parts, words):
    with pytest.raises(DataError, match=words):
        read_npz(_npz(tmp_path / "a.npz", **parts))
    with pytest.raises(DataError, match="cannot read"):
        read_npz(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match=r"not a graph|cannot read"):
        read_npz(tmp_path / "text.npz")


def test_text_formats_are_read(tmp_path):
    graph = nx.Graph([("a", "b"), ("b", "c"), ("d", "e")])
    labels = {"a": 0, "b": 1, "c": 0, "d": 1, "e": 1}
    nx.write_adjlist(graph, tmp_path / "g.adjlist")
    nx.write_edgelist(graph, tmp_path / "g.edgelist")
    (tmp_path / "g.edgelist.gz").write_bytes(gzip.compress((tmp_path / "g.edgelist").read_bytes()))
    (tmp_path / "labels.txt").write_text("a 0\nb 1\n\nc 0\nd 1\ne 1\n")
    for node, label in labels.items():
        graph.nodes[node].update(label=label, x="0 1.5" if label else "1, 0")
    nx.write_graphml(graph, tmp_path / "g.graphml")
    for name in ("g.adjlist", "g.edgelist", "g.edgelist.gz"):
        data = own_graph(read_graph(tmp_path / name, tmp_path / "labels.txt"))
        assert data.labels.tolist() == [labels[n] for n in data.graph.names] and len(data.graph.pairs) == 3
    assert len(read_graph(tmp_path / "g.adjlist", tmp_path / "labels.txt", largest_component=True)) == 3
    data = own_graph(read_graph(tmp_path / "g.graphml"))
    assert data.graph.x.tolist() == [[0, 1.5] if labels[n] else [1, 0] for n in data.graph.names]


def test_broken_text_is_refused(tmp_path):
    (tmp_path / "g.edgelist").write_text("a b {}\n")
    (tmp_path / "g.graphml").write_text("<graphml>")
    (tmp_path / "l.txt").write_text("a 0\nb\n")
    for path, labels, words in (
        ("g.edgelist", {"z": 1}, "a label for node z"), ("g.edgelist", tmp_path / "l.txt", "line 2: want 'node label'"),
        ("g.edgelist", tmp_path / "no.txt", "cannot read"), ("g.graphml", None, "not what its ending says"),
        ("no.adjlist", None, "cannot read"), ("g.pickle", None, r"cannot tell the format.*graphml"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=words):
            read_graph(tmp_path / path, labels)
    nx.write_graphml(_with_x("one two"), tmp_path / "x.graphml")
    with pytest.raises(DataError, match="features 'x' of node a are 'one two'"):
        read_graph(tmp_path / "x.graphml")


def _with_x(x):
    graph = nx.Graph([("a", "b")])
    graph.nodes["a"]["x"] = x
    return graph
