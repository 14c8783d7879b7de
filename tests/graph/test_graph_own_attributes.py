"""The caller's own graphs: labels, features, splits and targets, and nodes without edges."""

import networkx as nx
import pytest
import torch
from torch_geometric.data import Data

import advgym
from advgym.envs.graph.constraints.cooccurrence import cooccurrence
from advgym.envs.graph.data.own import own_graph, unseen
from advgym.errors import DataError


def _path(n=6):
    graph = nx.path_graph(n)
    nx.set_node_attributes(graph, {i: i % 2 for i in graph}, "label")
    return graph


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": 1.5}, "node 2 has label 1.5: labels are whole numbers"),
        ({"label": float("nan")}, "node 2 has label nan"),
        ({"label": -1}, "node 2 has label -1: labels count from 0"),
        ({"split": "dev"}, "node 2 is in split 'dev'"),
        ({"split": "train"}, "no labelled node is in split 'test'"),
        ({"x": [1.0]}, "node 0 has no features 'x'"),
    ],
)
def test_bad_attributes_are_named(change, words):
    graph = _path()
    graph.nodes[2].update(change)
    with pytest.raises(DataError, match=words):
        own_graph(graph)


def test_features_that_are_not_numbers_are_named():
    graph = _path()
    nx.set_node_attributes(graph, {i: [0.0, 1.0] for i in graph}, "x")
    graph.nodes[4]["x"] = "red"
    with pytest.raises(DataError, match="features 'x' of node 4 are 'red'"):
        own_graph(graph)
    graph.nodes[4]["x"] = [1.0]
    with pytest.raises(DataError, match="node 4 has 1 features, node 0 has 2"):
        own_graph(graph)
    graph.nodes[4]["x"] = [1.0, float("inf")]
    with pytest.raises(DataError, match="features of node 4 hold NaN or infinity"):
        own_graph(graph)
    graph = _path()
    graph.graph["class_names"] = ["0"]
    graph.nodes[3]["label"] = "one"
    with pytest.raises(DataError, match="node 1 has label 1, which is not among class_names"):
        own_graph(graph)


def test_targets_are_nodes_by_name():
    data = own_graph((_path(), [5, 2]))
    assert data.nodes["test"].tolist() == [5, 2] and data.nodes["train"].tolist() == list(range(6))
    assert unseen(data)["train"].tolist() == [0, 1, 3, 4]
    assert {k: len(v) for k, v in unseen(own_graph(_path())).items()} == {"train": 4, "test": 2}
    graph = _path()
    del graph.nodes[3]["label"]
    for targets, words in (
        ([2, 17], "targets 17: not nodes of this graph of 6"), ([], r"targets \(none\)"),
        ([3], "target 3 has no label"),
        ([2, 2], "target 2 is named twice"), ("2", "a list of nodes"), (2, "a list of nodes"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=words):
            own_graph((graph, targets))
    with pytest.raises(DataError, match="none is left to train"):
        unseen(own_graph((_path(), [5, 4, 3, 2, 1, 0])))


def test_masks_of_pyg_are_splits():
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    train, test = torch.tensor([True, False, False]), torch.tensor([False, True, False])
    data = own_graph(Data(edge_index=edges, y=torch.tensor([0, 1, 1]), num_nodes=3, train_mask=train, test_mask=test))
    assert {k: v.tolist() for k, v in data.nodes.items()} == {"train": [0], "test": [1]}
    for masks, words in (
        ({"train_mask": train, "test_mask": train}, "node 0 is in two splits"),
        ({"train_mask": torch.ones(3, 2).bool()}, r"train_mask is \(3, 2\)"),
    ):
        with pytest.raises(DataError, match=words):
            own_graph(Data(edge_index=edges, y=torch.tensor([0, 1, 1]), num_nodes=3, **masks))


def test_isolated_nodes_are_allowed_and_victims_survive_them(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    graph = nx.Graph(list(nx.karate_club_graph().edges))
    nx.set_node_attributes(graph, {n: int(n > 16) for n in graph}, "label")
    graph.add_node("alone", label=1)
    task = advgym.make_task("graph/edge", samples=graph, singletons=False)
    parts = [task.samples(split, list(range(size))) for split, size in task.sizes.items()]
    batch, lane = next((b, int((b.target == 34).nonzero()[0])) for b in parts if bool((b.target == 34).any()))
    assert int(batch.graph.count[34]) == 0
    row = torch.tensor([lane, lane])
    form = torch.cat([batch.null()[lane : lane + 1], batch.look(batch.random(0)).form[lane : lane + 1]])
    assert bool(torch.isfinite(task.victim(batch.inputs(form, row))).all())
    assert batch.look(form, row).valid.tolist() == [True, True]
    own = advgym.Victim(lambda x, edge_index: x[:, :2], access="scores")
    task = advgym.make_task("graph/edge", samples=(graph, ["alone"]), victim=own, knowledge="score")
    assert task.sizes["test"] == 1 and int(task.samples("test", [0]).target[0]) == 34
    value = cooccurrence(batch.graph).allowed(torch.tensor([34]))
    assert value.sum() == 1  # its own identity feature, which no other node has
