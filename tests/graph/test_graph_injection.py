"""Injected nodes: the clean graph is untouched, tables are exact, answers and rankings are those of a dense forward."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import advgym
from advgym.envs.graph.data.datasets import sbm
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.tasks.injection import InjectionBatch, extended
from advgym.envs.graph.victims.recipes import GCN, SGC
from advgym.envs.graph.victims.stacked import Stacked
from advgym.errors import AdvgymError

DATA = sbm(size=40, features=12, inside=0.2, outside=0.05)
NODES = DATA.nodes["test"]
KARATE = advgym.make_task("graph/karate-inject")


def small(many=3, degree=3, features=2, lanes=1):
    graph = extended(DATA.graph, many)
    labels = DATA.labels[NODES].expand(lanes, -1)
    return InjectionBatch(
        torch.arange(lanes), labels, graph, NODES, many=many, degree=degree, features=features
    )  # fmt: skip


def model(kind="gcn"):
    torch.manual_seed(1)
    return (GCN(12, 3, 8) if kind == "gcn" else SGC(12, 3)).eval()


def matrices(batch, form):
    """(adjacency, features) of one perturbed graph, float64."""
    size = batch.graph.size
    a, x = torch.zeros(size, size, dtype=torch.float64), batch.graph.x.double().clone()
    a[batch.graph.pairs[:, 0], batch.graph.pairs[:, 1]] = 1
    a = a + a.T
    for site, choice in form.tolist():
        if 0 <= site < batch.many:
            a[batch.first + site, choice] = a[choice, batch.first + site] = 1
        elif site >= 0:
            x[batch.first + site - batch.many, choice] = 1
    return a, x


def forward(net, a, x):
    w = copy.deepcopy(net).double().weights()
    full = a + torch.eye(len(a), dtype=torch.float64)
    scale = full.sum(1).rsqrt()
    hat = scale.unsqueeze(1) * full * scale
    hidden = hat @ (x @ w.w1) + w.b1
    return hat @ ((hidden.relu() if w.relu else hidden) @ w.w2) + w.b2


@pytest.mark.parametrize("kind", ["gcn", "sgc"])
def test_nothing_injected_is_the_clean_graph(kind):
    net, batch = model(kind), small()
    clean = net(GlobalRows(DATA.graph, NODES, torch.full((1, 0, 2), -1)))
    assert torch.equal(net(batch.inputs(batch.null())), clean)
    assert extended(DATA.graph, 2).pairs.equal(DATA.graph.pairs)


@given(seed=st.integers(0, 1 << 30))
@settings(max_examples=25, deadline=None)
def test_answers_are_those_of_the_dense_forward(seed):
    net, batch = model(), small(lanes=3)
    p = batch.random(seed)
    assert bool(batch.check(p).all())
    form = batch.look(p).form
    got = net(batch.inputs(form)).detach().view(3, len(NODES), -1)
    for i in range(3):
        want = forward(net, *matrices(batch, form[i]))[NODES]
        assert torch.allclose(got[i].double(), want, atol=1e-5)
    assert torch.equal(batch.load([batch.dump(f, i) for i, f in enumerate(form)]), form)
    rows = batch.inputs(form)
    some = rows.take(torch.arange(len(NODES), 2 * len(NODES)))
    assert torch.allclose(net(some), got[1], atol=1e-6)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_valid_is_what_the_budgets_say_and_projections_are(data):
    batch = small(many=2, degree=2, features=2)
    cells = st.tuples(st.integers(-1, batch.sites), st.integers(-1, batch.choices))
    drawn = data.draw(st.lists(cells, max_size=batch.rows_max))
    p = batch.null()
    if drawn:
        p[0, : len(drawn)] = torch.tensor(drawn)
    real, seen, count = True, set(), dict.fromkeys(range(batch.sites), 0)
    for site, choice in drawn:
        if (site, choice) == (-1, -1):
            continue
        most = 40 + site if site < 2 else 12
        real &= 0 <= site < 4 and 0 <= choice < most and (site, choice) not in seen
        seen.add((site, choice))
        if site in count:
            count[site] += 1
    look = batch.look(p)
    assert bool(look.real[0]) == real
    assert bool(look.valid[0]) == (real and all(v <= 2 for v in count.values()))
    projected = batch.project(p)
    assert bool(batch.check(projected)[0])
    if bool(look.valid[0]):
        assert torch.equal(batch.look(projected).form, look.form)


def test_masks_say_what_is_legal_and_what_has_room():
    batch = KARATE.samples("test", [0, 1])
    site, every = torch.arange(batch.sites), torch.arange(batch.choices)
    legal = batch.legal(site.unsqueeze(1).expand(-1, batch.choices), every.expand(batch.sites, -1))
    assert torch.equal(batch.mask()[0], legal) and torch.equal(batch.choice_mask(site), legal)
    assert legal.sum(1).tolist() == [34, 35, 34, 34]
    env = advgym.make(KARATE, 2)
    env.reset(seed=0)
    for seed in range(4):
        p = env.threat.random(seed)
        open_ = env.threat.mask(p)
        for lane, s, c in [(int(i), int(j), int(k)) for i, j, k in legal.expand(2, -1, -1).nonzero()[::7]]:
            edit = torch.full((2, 2), -1)
            edit[lane] = torch.tensor([s, c])
            assert bool(env.threat.check(env.threat.compose(p, edit))[lane]) == bool(open_[lane, s, c])


@pytest.mark.parametrize("relaxed", [False, True])
def test_the_ranking_is_that_of_the_dense_gradient(relaxed):
    net, batch = model(), small()
    form, truth = batch.null(), DATA.labels[NODES]
    held = [[0, 5], [0, 9], [0, 11], [1, 7], [1, 40], [3, 2], [4, 1], [4, 6]]  # node 0 and its features are full
    form[0, : len(held)] = torch.tensor(held)
    weights = torch.ones(form.shape[:2])
    x, leaves = batch.relaxed_leaves(form, weights) if relaxed else batch.leaves(form)
    grads = torch.autograd.grad(cross_entropy(net(x), truth), leaves)
    edits, gains = batch.rank_by(form, list(grads), 120)
    a, x = (m.requires_grad_() for m in matrices(batch, form[0]))
    by_a, by_x = torch.autograd.grad(cross_entropy(forward(net, a, x)[NODES], truth), (a, x))
    want = {}
    legal, room = batch.mask()[0], batch.room(form)[0]
    for site, choice in legal.nonzero().tolist():
        if [site, choice] in held or not room[site]:
            continue
        node = 40 + site % 3
        edge = float(by_a[node, choice] + by_a[choice, node])
        want[site, choice] = edge if site < 3 else float(by_x[node, choice])
    some = edits[0, :, 0] >= 0
    found = {(s, c): g for (s, c), g in zip(edits[0, some].tolist(), gains[0, some].tolist(), strict=True)}
    assert set(found) == set(want) if len(want) < 120 else set(found) <= set(want)
    assert max(abs(found[k] - want[k]) for k in found) < 1e-6
    best = sorted(want.values(), reverse=True)[: len(found)]
    assert torch.allclose(gains[0, some].double(), torch.tensor(best, dtype=torch.float64), atol=1e-6)


def test_weights_have_gradients_and_ends():
    net, batch = model(), small()
    form = batch.look(batch.random(5)).form
    whole = net(batch.inputs(form))
    torch.testing.assert_close(net(batch.relaxed(form, torch.ones(form.shape[:2]))), whole)
    clean = net(batch.inputs(batch.null()))
    torch.testing.assert_close(net(batch.relaxed(form, torch.zeros(form.shape[:2]))), clean)
    w = torch.full(form.shape[:2], 0.4, requires_grad=True)
    (slope,) = torch.autograd.grad(net(batch.relaxed(form, w)).square().sum(), w)
    for e in range(int((form[0, :, 0] >= 0).sum())):
        up, down = w.detach().clone(), w.detach().clone()
        up[0, e] += 1e-2
        down[0, e] -= 1e-2
        rise = net(batch.relaxed(form, up)).square().sum() - net(batch.relaxed(form, down)).square().sum()
        assert abs(float(rise) / 2e-2 - float(slope[0, e])) < 1e-2 * max(1.0, abs(float(slope[0, e])))


@pytest.mark.parametrize("knowledge", ["white-box", "score", "decision", "transfer"])
def test_the_contract_is_kept(knowledge):
    advgym.check_vector_env(partial(advgym.make, "graph/karate-inject", knowledge=knowledge))


def test_larger_tables_keep_the_contract():
    advgym.check_vector_env(partial(advgym.make, "graph/sbm-inject", knowledge="score"), lanes=2)


def test_a_model_of_ones_own_is_attacked():
    net, batch = model(), small()
    form = batch.look(batch.random(1)).form
    assert torch.allclose(Stacked(net.full)(batch.inputs(form)), net(batch.inputs(form)), atol=1e-5)


def test_budgets_context_pictures_and_errors():
    task = advgym.make_task("graph/sbm-inject")
    batch = task.samples("test", [0])
    mean = round(float(advgym.make_task("graph/sbm-edge").context["x"].sum(1).mean()))
    assert batch.caps == (5, mean) and int(batch.limit[0]) == 10 * (5 + mean) and batch.price == 1
    assert task.context["injected"] == 10 and task.context["num_nodes"] == 300
    form = batch.look(batch.random(0)).form
    edges = int(((form[0, :, 0] >= 0) & (form[0, :, 0] < 10)).sum())
    assert f"with {edges} edges" in task.line(batch, 0, form[0])
    answers = torch.zeros(batch.members, dtype=torch.int64)
    assert task.show(batch, 0, form[0], answers, answers).count("<tr>") == 11
    for options, words in (
        ({"nodes": 0}, "nodes is a whole"),
        ({"degree": -1}, "degree is"),
        ({"features": 1.5}, "features is"),
    ):
        with pytest.raises(AdvgymError, match=words):
            advgym.make_task("graph/karate-inject", **options)


@pytest.mark.realdata
def test_cora(data_dir):
    result = advgym.attack("graph/cora-inject", "fgsm-injection", episodes=1, settings={"tries": 1})
    assert result.invalid_rate == 0 and advgym.verify(result) == []
    assert result.members_rate > 0.05
