"""Fields on node features: answers and gradients of a dense forward, supports, the contract, own graphs."""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ElementTree
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym.envs.graph.tasks.continuous import beside, gaussian
from advgym.envs.graph.victims.stacked import Stacked
from advgym.errors import AdvgymError

DIRECT = advgym.make_task("graph/sbm-continuous")
AROUND = advgym.make_task("graph/sbm-continuous", influence=True, nodes=4)


def forward(task, batch, form, lane):
    """Scores of one lane's target by a textbook GCN in float64; differentiable in the form."""
    graph, w = batch.graph, copy.deepcopy(task.victim.model).double().weights()
    a = torch.zeros(graph.size, graph.size, dtype=torch.float64)
    a[graph.pairs[:, 0], graph.pairs[:, 1]] = 1
    full = a + a.T + torch.eye(graph.size, dtype=torch.float64)
    scale = full.sum(1).rsqrt()
    hat = scale.unsqueeze(1) * full * scale
    there = batch.nodes[lane] >= 0
    x = graph.x.double().index_put((batch.nodes[lane][there],), form[lane][there].double())
    return (hat @ (hat @ (x @ w.w1) + w.b1).relu() @ w.w2 + w.b2)[batch.target[lane]]


@pytest.mark.parametrize("task", [DIRECT, AROUND], ids=["direct", "influence"])
@given(seed=st.integers(0, 1 << 30))
@settings(max_examples=10, deadline=None)
def test_answers_and_gradients_are_those_of_the_dense_forward(task, seed):
    batch = task.samples("test", [seed % 240, 7, 100])
    p = batch.random(seed)
    assert bool(batch.check(p).all())
    look = batch.look(p.clone().requires_grad_())
    form = look.form
    form.retain_grad()
    scores = task.victim(batch.inputs(form))
    scores[:, 1].sum().backward()
    for i in range(3):
        free = form.detach()[i : i + 1].double().requires_grad_()
        want = forward(task, batch, torch.cat([torch.zeros(i, *free.shape[1:]).double(), free]), i)
        assert torch.allclose(scores[i].double(), want, atol=1e-5)
        want[1].backward()
        assert torch.allclose(form.grad[i].double(), free.grad[0], atol=1e-5)
    clean = task.victim(batch.inputs(batch.look(batch.null()).form))
    from_edges = advgym.make_task("graph/sbm-edge", victim=task.victim, samples=gaussian()).samples("test", [7])
    torch.testing.assert_close(clean[1:2], task.victim(from_edges.inputs(from_edges.null())))


def test_nodes_are_the_target_or_its_neighbours():
    batch, around = DIRECT.samples("test", list(range(60))), AROUND.samples("test", list(range(60)))
    assert torch.equal(batch.nodes[:, 0], batch.target) and batch.shape == (1, 16)
    graph = around.graph
    for i in range(60):
        near = graph.neighbours(around.target[i : i + 1])[1]
        some = around.nodes[i][around.nodes[i] >= 0]
        assert len(some) == min(4, len(near)) and set(some.tolist()) <= set(near.tolist())
        rest = near[~torch.isin(near, some)]
        assert not len(rest) or int(graph.count[rest].min()) >= int(graph.count[some].max())
    full = torch.full_like(around.x, 0.3)
    form = around.look(around.project(full)).form
    assert not ((form != around.x) & (around.nodes < 0).unsqueeze(2)).any()  # padding stays
    assert torch.equal(beside(graph, around.target, 4), around.nodes)


def test_features_stay_in_the_clean_range_and_the_ball():
    batch = DIRECT.samples("test", [0, 1, 2])
    low, high = float(batch.graph.x.min()), float(batch.graph.x.max())
    for factor in (0.1, 1.0, 100.0):
        form = batch.look(batch.project(torch.full_like(batch.x, factor))).form
        assert float(form.min()) >= low and float(form.max()) <= high
        assert float((form - batch.x).abs().max()) <= 0.5 + 1e-6
    assert not batch.look(torch.full_like(batch.x, 0.6)).valid.any()
    wide = batch.widened(2.0)
    assert bool(wide.look(torch.full_like(batch.x, 0.6)).valid.any()) and wide.inputs(wide.x).target.equal(batch.target)
    form = batch.look(batch.random(3)).form
    again = batch.load([batch.dump(f, i) for i, f in enumerate(form)])
    torch.testing.assert_close(batch.look(again).form, form)


@pytest.mark.parametrize("knowledge", ["white-box", "score", "decision", "transfer"])
@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_the_contract_is_kept(knowledge, goal):
    advgym.check_vector_env(partial(advgym.make, "graph/sbm-continuous", knowledge=knowledge, goal=goal))


def test_the_contract_is_kept_around_the_target():
    advgym.check_vector_env(partial(advgym.make, "graph/sbm-continuous", influence=True, norm="l2", least=True))


@pytest.mark.parametrize("options", [{}, {"influence": True}, {"norm": "l2", "eps": 2.5}])
def test_gradients_beat_noise_and_verify(options):
    found = {a: advgym.attack("graph/sbm-continuous", a, episodes=60, **options) for a in ("pgd", "noise")}
    assert found["pgd"].success_rate > found["noise"].success_rate + 0.03
    assert found["pgd"].invalid_rate == 0 and advgym.verify(found["pgd"]) == []


def test_own_graphs_and_models():
    data = gaussian(size=60, features=5)
    own = advgym.make_task("graph/feature-field", samples=data)
    batch = own.samples("test", [0, 1])
    assert batch.x.shape == (2, 1, 5)
    model = own.victim.model
    other = advgym.make_task("graph/feature-field", samples=data, victim=model.full)
    assert isinstance(other.victim.model, Stacked)
    form = batch.look(batch.random(1)).form
    torch.testing.assert_close(other.victim(batch.inputs(form)), own.victim(batch.inputs(form)), atol=1e-5, rtol=0)
    assert advgym.attack(own, "pgd", episodes=10).invalid_rate == 0


def test_noise_is_keyed_and_stays_on_the_nodes():
    batch = AROUND.samples("test", [0, 5])
    rows = batch.inputs(batch.x)
    one = AROUND.randomise(rows, 0.1, torch.tensor([3, 4]))
    other = AROUND.randomise(rows.take(torch.tensor([1])), 0.1, torch.tensor([4]))
    assert torch.equal(one.probe[1:], other.probe) and float(one.probe.std()) > 0.01
    assert not one.probe[(batch.nodes < 0)].any()


def test_pictures_lines_and_errors():
    batch = DIRECT.samples("test", [0])
    form = batch.look(batch.random(4)).form
    words = DIRECT.line(batch, 0, form[0])
    assert "features of 1 node moved, by at most 0." in words and words.startswith(f"node {int(batch.target[0])}")
    assert "0 nodes moved" in DIRECT.line(batch, 0, batch.x[0])
    html = DIRECT.show(batch, 0, form[0], torch.tensor(0), torch.tensor(1))
    ElementTree.fromstring(html.replace("&rarr;", "").replace("&#9473;", "").replace("&#9477;", ""))
    for options, match in (
        ({"eps": 0}, "eps is a number above 0"),
        ({"norm": "l7"}, "value of option norm 'l7'"),
        ({"influence": True, "nodes": 0}, "nodes is a whole number"),
        ({"influence": True, "nodes": 1 << 14}, "ask for fewer nodes"),
    ):
        with pytest.raises(AdvgymError, match=match):
            advgym.make_task("graph/sbm-continuous", **options)


@pytest.mark.realdata
def test_binary_features_can_be_relaxed(data_dir):
    task = advgym.make_task("graph/feature-field", dataset="cora", victim="cora-gcn", eps=3.0, norm="l2")
    result = advgym.attack(task, "pgd", episodes=20)
    assert result.invalid_rate == 0
    batch = task.samples("test", [0])
    assert (batch.low, batch.high) == (0.0, 1.0)
