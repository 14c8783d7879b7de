"""Columns of graph tasks: what they say of attacks, and that the core takes them."""

import math

import torch
from test_graph_powerlaw import graph_of

import advgym
from advgym.core import columns as core
from advgym.envs.graph import measures
from advgym.envs.graph.constraints.components import component_count
from advgym.envs.graph.constraints.cooccurrence import cooccurrence
from advgym.envs.graph.inputs.graphs import Graph


def test_edge_columns_by_hand():
    graph = graph_of(6, {(0, 1), (1, 2), (3, 4)})
    found = measures.edge_columns(graph, torch.tensor([[[0, 1], [-1, -1]], [[1, 4], [1, 5]], [[-1, -1], [-1, -1]]]))
    assert found["flips"] == [1, 2, 0]
    assert found["singletons"] == [1, 0, 0]
    assert found["components"] == [1, -2, 0]
    assert found["degree_max"] == [1, 2, 0]
    assert abs(found["degree_test"][2]) < 1e-12 and all(map(math.isfinite, found["degree_test"]))


def test_a_task_computes_and_verifies_its_columns():
    task = advgym.make_task("graph/sbm-edge")
    task.columns = measures.columns()
    batch = task.samples("test", list(range(12)))
    form = batch.look(batch.random(3)).form
    rows = core.Meter(task).rows(batch, form)
    assert set(rows[0]) == {"flips", "degree_test", "degree_max", "singletons", "components"}
    assert [row["flips"] for row in rows] == (form[..., 0] >= 0).sum(1).tolist()
    flips = batch.inputs(form).flips
    assert [row["components"] for row in rows] == (
        component_count(batch.graph, flips) - component_count(batch.graph, flips[:, :0])
    ).tolist()
    assert core.Meter(task).rows(batch, form) == rows
    assert all(abs(row["degree_test"]) < 1e-12 for row in core.Meter(task).rows(batch, batch.null()))


def test_feature_columns_count_what_the_test_refuses():
    g = torch.Generator().manual_seed(1)
    graph = Graph(30, torch.tensor([[0, 1]]), (torch.rand(30, 40, generator=g) < 0.06).float())
    cells = torch.stack([torch.randint(0, 30, (20, 4), generator=g), torch.randint(0, 40, (20, 4), generator=g)], 2)
    cells[:, 3] = -1
    cells[0, 0] = (graph.x > 0).nonzero()[0]
    found = measures.feature_columns(graph, cells)
    test = cooccurrence(graph)
    for i, row in enumerate(cells[:, :3].tolist()):
        gone = [bool(graph.x[a, b] > 0) for a, b in row]
        assert (found["added"][i], found["removed"][i]) == (3 - sum(gone), sum(gone))
        assert found["unlikely"][i] == sum(not bool(test.allowed(torch.tensor([a]))[0, b]) for a, b in row)
    assert 0 < sum(found["unlikely"]) < sum(found["added"]) and found["removed"][0] >= 1


def test_a_feature_task_has_feature_columns():
    task = advgym.make_task("graph/sbm-feature")
    task.columns = measures.columns()
    batch = task.samples("test", [0, 1])
    rows = core.Meter(task).rows(batch, batch.null())
    assert rows == [{"added": 0, "removed": 0, "unlikely": 0}] * 2


def test_an_attack_reports_them():
    task = advgym.make_task("graph/karate-edge")
    task.columns = measures.columns()
    result = advgym.attack(task, "greedy", episodes=3)
    assert result.columns["flips"].mean >= 1
    assert result.samples[0].columns["flips"] == result.samples[0].distance
