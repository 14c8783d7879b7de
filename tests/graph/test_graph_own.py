"""The caller's own graphs: what is refused, by name, and what a task makes of the rest."""

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data

import advgym
from advgym.envs.graph.data.own import own_graph
from advgym.errors import AdvgymError, DataError


def _club():
    graph = nx.karate_club_graph()
    for node in graph:
        graph.nodes[node]["label"] = graph.nodes[node]["club"]
    for _, _, data in graph.edges(data=True):
        data.clear()
    return graph


class Mean(nn.Module):
    """A message-passing model that takes no weights."""

    def __init__(self, features, classes):
        super().__init__()
        self.lin = nn.Linear(2 * features, classes)

    def forward(self, x, edge_index):
        total = torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])
        return self.lin(torch.cat([x, total], 1))


def _edges(*pairs):
    return torch.tensor([[a for a, _ in pairs], [b for _, b in pairs]])


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        (_edges((0, 1), (1, 0), (2, 2)), r"edge \(2, 2\) is a self-loop"),
        (_edges((0, 1), (1, 0), (1, 2)), r"edge \(1, 2\) is stored in one direction"),
        (_edges((0, 1), (1, 0), (0, 1), (1, 0)), r"edge \(0, 1\) is stored twice"),
        (_edges((0, 1), (1, 0), (1, 7), (7, 1)), r"edge \(1, 7\) names an unknown node: there are 3"),
        (_edges((0, -1), (-1, 0)), "unknown node"),
        (torch.zeros(3, 2), "want integers"),
    ],
)
def test_bad_edges_are_named(edges, words):
    with pytest.raises(DataError, match=words):
        own_graph(Data(x=torch.eye(3), edge_index=edges, y=torch.tensor([0, 1, 1]), num_nodes=3))


def test_bad_networkx_graphs_are_named():
    directed = nx.DiGraph([("ann", "bob")])
    with pytest.raises(DataError, match=r"edge \(ann, bob\) is directed"):
        own_graph(directed)
    loop = nx.Graph([("ann", "ann")])
    with pytest.raises(DataError, match=r"\(ann, ann\) is a self-loop"):
        own_graph(loop)
    double = nx.MultiGraph([("ann", "bob"), ("bob", "ann")])
    with pytest.raises(DataError, match="stored twice"):
        own_graph(double)
    weighted = nx.Graph()
    weighted.add_edge("ann", "bob", weight=2.0)
    with pytest.raises(DataError, match=r"has weight 2\.0"):
        own_graph(weighted)
    plain = nx.Graph([("ann", "bob")])
    with pytest.raises(DataError, match="no node has a label"):
        own_graph(plain)
    plain.nodes["ann"]["x"] = [1.0]
    with pytest.raises(DataError, match="node bob has no features"):
        own_graph(plain)
    plain.nodes["bob"]["x"] = [float("nan")]
    plain.nodes["ann"]["label"] = 0
    with pytest.raises(DataError, match="features of node bob hold NaN"):
        own_graph(plain)
    with pytest.raises(DataError, match="networkx graph or a PyG Data, not str"):
        own_graph("cora")


def test_labels_may_be_words_and_may_be_missing():
    graph = _club()
    del graph.nodes[3]["label"]
    data = own_graph(graph)
    assert data.class_names == ["Mr. Hi", "Officer"] and data.classes == 2
    assert len(data.nodes["test"]) == 33 and 3 not in data.nodes["test"].tolist()
    assert data.graph.x.shape == (34, 34)  # identity


def test_a_graph_with_labels_is_a_task_in_a_few_lines(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    env = advgym.make("graph/edge", samples=_club(), lanes=4)
    env.reset(seed=0)
    env.step(env.threat.random(0))
    assert "training a GCN" in caplog.text
    assert list(tmp_path.rglob("own-gcn-*.safetensors"))


def test_a_model_without_weights_is_a_score_victim():
    graph = _club()
    torch.manual_seed(0)
    model = Mean(34, 2)
    with pytest.raises(AdvgymError, match="at most 'score'"):
        advgym.make_task("graph/edge", victim=model, samples=graph, knowledge="white-box")
    task = advgym.make_task("graph/edge", victim=model, samples=graph, knowledge="score")
    batch = task.samples("test", [0, 5, 8])
    form = batch.look(batch.random(0)).form
    scores = task.victim(batch.inputs(form))
    for i in range(3):  # by hand
        g = graph.copy()
        for a, b in form[i].tolist():
            if a >= 0:
                g.remove_edge(a, b) if g.has_edge(a, b) else g.add_edge(a, b)
        edges = torch.tensor([(a, b) for a, b in g.edges] + [(b, a) for a, b in g.edges]).T
        torch.testing.assert_close(scores[i], model(torch.eye(34), edges)[batch.target[i]])
    # Features are differentiable all the same.
    white = advgym.make_task("graph/feature", victim=model, samples=graph)
    assert white.threat.knowledge == "white-box"
    batch = white.samples("test", [0, 1])
    x, leaves = batch.leaves(batch.null())
    grads = torch.autograd.grad(white.victim(x)[:, 0].sum(), leaves)
    edits, gain = batch.rank_by(batch.null(), list(grads), 3)
    for i in range(2):
        for e in range(3):
            form = batch.null()
            form[i, 0] = edits[i, e]
            change = white.victim(batch.inputs(form))[i, 0] - white.victim(batch.inputs(batch.null()))[i, 0]
            torch.testing.assert_close(gain[i, e], change, atol=1e-5, rtol=1e-4)  # the model is linear


def test_models_that_mix_graphs_get_one_at_a_time():
    class Pool(Mean):
        def forward(self, x, edge_index):
            return super().forward(x - x.mean(0), edge_index)

    graph = _club()
    for node in graph:
        graph.nodes[node]["x"] = np.float32([node % 3 == 0, node % 5 == 0, node % 7 == 0])
    task = advgym.make_task("graph/edge", victim=Pool(3, 2), samples=graph, knowledge="score")
    batch = task.samples("test", [0, 1, 2, 3])
    form = batch.look(batch.random(1)).form
    alone = torch.cat([task.victim(batch.inputs(form[i : i + 1], torch.tensor([i]))) for i in range(4)])
    torch.testing.assert_close(task.victim(batch.inputs(form)), alone)


def test_models_of_the_wrong_shape_are_refused():
    with pytest.raises(AdvgymError, match="want scores"):
        advgym.make_task("graph/edge", victim=lambda x, e: x.sum(), samples=_club(), knowledge="score")
    with pytest.raises(DataError, match="tells 1 classes apart"):
        advgym.make_task("graph/edge", victim=lambda x, e: x[:, :1], samples=_club(), knowledge="score")


def test_feature_flips_want_binary_features():
    graph = _club()
    for node in graph:
        graph.nodes[node]["x"] = [0.0, 0.5 if node == 7 else 1.0]
    with pytest.raises(DataError, match=r"node 7 has the feature value 0\.5"):
        advgym.make_task("graph/feature", samples=graph)
