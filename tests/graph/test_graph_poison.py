"""Poisoning: training by hand against autograd and Adam, exact meta-gradients, the contract."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

import advgym
from advgym.core.task import load_victim
from advgym.envs.graph.data.datasets import load_nodes, sbm
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.models.training import Retrained, Run, Unrolled
from advgym.envs.graph.perturb.global_batch import GlobalBatch
from advgym.envs.graph.tasks.poison import retrained_victim, unrolled_victim
from advgym.errors import AdvgymError, VictimError

SMALL = replace(
    sbm(size=12, features=10, inside=0.6, outside=0.2, seed=3),
    nodes={"train": torch.tensor([0, 1, 4, 5, 8, 9]), "test": torch.tensor([2, 3, 6, 7, 10, 11])},
)
FLIPS = torch.tensor([[[0, 11], [-1, -1], [2, 7]]])


def dense(graph, flips=None):
    """The perturbed adjacency, float64."""
    out = torch.zeros(graph.size, graph.size, dtype=torch.float64)
    out[graph.pairs[:, 0], graph.pairs[:, 1]] = 1
    out = out + out.T
    for a, b in [] if flips is None else flips.tolist():
        if a >= 0:
            out[a, b] = out[b, a] = 1 - out[a, b]
    return out


def hat(adjacency):
    full = adjacency + torch.eye(len(adjacency), dtype=torch.float64)
    scale = full.sum(1).rsqrt()
    return scale.unsqueeze(1) * full * scale


def small_run(rows, keys):
    return Run(rows, keys, SMALL.labels, SMALL.nodes["train"], 3, 16)


def test_training_by_hand_is_adam_on_autograd():
    rows = GlobalRows(SMALL.graph, SMALL.nodes["test"], FLIPS)
    run = small_run(rows, torch.tensor([5]))
    parts = [run.first.view(10, 16), run.bias[0].view(16), run.second.view(16, 3), run.bias[1].view(3)]
    free = [p.double().clone().requires_grad_() for p in parts]
    groups = [{"params": free[:2], "weight_decay": 0.01}, {"params": free[2:], "weight_decay": 0.0}]
    adam = torch.optim.Adam(groups, lr=0.02)
    a, train = hat(dense(SMALL.graph, FLIPS[0])), SMALL.nodes["train"]
    node, feature = SMALL.graph.x.nonzero(as_tuple=True)
    for epoch in range(25):
        entries, kept = run._halves(epoch)
        x = torch.zeros(12, 10, dtype=torch.float64)
        x[node, feature] = entries.double()
        hidden = (a @ x @ free[0] + free[1]).relu() * kept[0].double()
        adam.zero_grad()
        cross_entropy((a @ hidden @ free[2] + free[3])[train], SMALL.labels[train]).backward()
        adam.step()
        run.step(epoch, 0.02, 0.01)
    want = a @ (a @ SMALL.graph.x.double() @ free[0] + free[1]).relu() @ free[2] + free[3]
    assert torch.allclose(run.scores()[0].double(), want, atol=1e-4)


def test_dropout_leaves_half_and_differs_by_epoch_and_key():
    data = load_nodes("sbm")
    none = torch.full((2, 0, 2), -1)
    run = Run(
        GlobalRows(data.graph, data.nodes["test"], none), torch.tensor([1, 2]), data.labels, data.nodes["train"], 3, 16
    )
    (entries, kept), (_, later) = run._halves(0), run._halves(1)
    assert set(kept.unique().tolist()) == set(entries.unique().tolist()) == {0.0, 2.0}
    assert abs(float(kept.mean()) - 1) < 0.05 and abs(float(entries.mean()) - 1) < 0.05
    for one, other in ((kept[0], kept[1]), (kept, later)):
        assert 0.4 < float((one == other).float().mean()) < 0.6


def test_a_run_is_the_same_in_any_company():
    data = load_nodes("sbm")
    nodes = data.nodes["test"]
    model = Retrained(data.labels, data.nodes["train"], 3, epochs=40)
    flips = torch.full((5, 4, 2), -1)
    flips[:, 0] = torch.stack([torch.arange(5), torch.arange(5) + 200], 1)
    flips[2, 1:] = data.graph.pairs[:3]
    rows, keys = GlobalRows(data.graph, nodes, flips), torch.tensor([3, 1, 4, 1, 5])
    every = model(rows, keys).view(5, len(nodes), 3)
    for i in range(5):
        alone = model(rows.graphs(torch.tensor([i])), keys[i : i + 1])
        assert torch.equal(alone, every[i])
    assert not torch.equal(model(rows, keys + 9).view_as(every), every)
    assert torch.equal(model(rows, keys.repeat_interleave(len(nodes))).view_as(every), every)  # as members ask


def test_a_full_run_learns():
    data = load_nodes("sbm")
    test = data.nodes["test"]
    none = torch.full((3, 0, 2), -1)
    model = retrained_victim("own", data=data).model
    scores = model(GlobalRows(data.graph, test, none), torch.arange(3)).view(3, len(test), 3)
    accuracy = (scores.argmax(2) == data.labels[test]).float().mean(1)
    shipped = load_victim("sbm-gcn").card["clean_accuracy"]
    assert float(accuracy.mean()) > shipped - 0.05
    assert float((unrolled_victim("own", data=data).model(GlobalRows(data.graph, test, none[:1])).argmax(1)
                  == data.labels[test]).float().mean()) > shipped - 0.06  # fmt: skip


def unrolled_dense(model, adjacency, x, exact):
    """The same training in float64, every inner gradient by autograd."""
    train, labels = model.train_nodes, model.labels
    length = (hat(dense(SMALL.graph)) @ hat(dense(SMALL.graph)) @ x)[train].norm(dim=1).mean()
    z = hat(adjacency) @ hat(adjacency) @ x / length
    near = (z if exact else z.detach())[train]
    first, second = (w.double().requires_grad_() for w in first_weights(model, x.shape[1]))
    fast = [torch.zeros_like(first), torch.zeros_like(second)]
    for _ in range(model.steps):
        loss = cross_entropy(near @ first @ second, labels[train])
        slopes = torch.autograd.grad(loss, (first, second), create_graph=True)
        fast = [model.momentum * v + g for v, g in zip(fast, slopes, strict=True)]
        first, second = first - model.lr * fast[0], second - model.lr * fast[1]
    return z @ first @ second


def first_weights(model, width):
    from advgym.core import rng

    key = torch.tensor([model.seed])
    for i, (a, b) in enumerate(((width, model.hidden), (model.hidden, model.classes))):
        yield (rng.uniform(0, key, (a, b), 54 + i)[0] * 2 - 1) * (6 / (a + b)) ** 0.5


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("flips", [None, FLIPS[0]])
def test_meta_gradients_of_all_pairs_are_exact(exact, flips):
    graph, nodes, labels = SMALL.graph, SMALL.nodes["test"], SMALL.labels
    model = Unrolled(labels, SMALL.nodes["train"], 3, 4, steps=30, lr=0.3, exact=exact)
    batch = GlobalBatch(torch.tensor([0]), labels[nodes][None], graph, nodes, edits=4, support=4)
    form = batch.null()
    if flips is not None:
        form[0, : len(flips)] = flips
        form = batch.look(form).form
    x, leaves = batch.leaves(form)
    grads = torch.autograd.grad(cross_entropy(model(x), labels[nodes]), leaves)
    edits, gains = batch.rank_by(form, list(grads), 66)
    adjacency = dense(graph, form[0]).requires_grad_()
    scores = unrolled_dense(model, adjacency, graph.x.double(), exact)
    assert torch.allclose(model(batch.inputs(form)).double(), scores[nodes], atol=1e-4)
    (slope,) = torch.autograd.grad(cross_entropy(scores[nodes], labels[nodes]), adjacency)
    every = torch.arange(12)
    slope = (slope + slope.T) * (1 - 2 * graph.has(every.unsqueeze(1), every).double())
    some = edits[0, :, 0] >= 0
    assert int(some.sum()) == 66 - int((form[0, :, 0] >= 0).sum())  # all pairs that are not flipped yet
    want = slope[edits[0, some, 0], edits[0, some, 1]]
    scale = float(want.abs().max())
    assert scale > 1e-3 and torch.allclose(gains[0, some].double(), want, atol=1e-4 * scale, rtol=1e-3)


def test_weights_of_flips_have_meta_gradients_too():
    nodes = SMALL.nodes["test"]
    model = Unrolled(SMALL.labels, SMALL.nodes["train"], 3, 4, steps=15)
    w = torch.tensor([[0.3, 0.5, 0.8]], dtype=torch.float64)

    def answer(w):
        return model(GlobalRows(SMALL.graph, nodes, FLIPS, w)).square().sum()

    assert torch.autograd.gradcheck(answer, (w.requires_grad_(),), eps=1e-5, atol=1e-5)


# -- the task -------------------------------------------------------------------------------------------------------
def quick():
    data = load_nodes("karate")
    return retrained_victim("quick", data=data, epochs=15, lr=0.05)


@pytest.mark.parametrize("knowledge", ["score", "decision", "transfer"])
def test_the_contract_is_kept(knowledge):
    victim = quick()
    advgym.check_vector_env(partial(advgym.make, "graph/karate-poison", victim=victim, knowledge=knowledge), lanes=2)


def test_the_contract_is_kept_white_box():
    data = load_nodes("karate")
    victim = unrolled_victim("white", data=data, steps=20)
    advgym.check_vector_env(partial(advgym.make, "graph/karate-poison", victim=victim), lanes=2)


def test_members_are_what_all_clean_runs_have_right():
    data, victim = load_nodes("sbm"), load_victim("sbm-retrained")
    task = advgym.make_task("graph/sbm-poison", fresh=3)
    batch = task.samples("test", [0])
    scores = victim(GlobalRows(data.graph, data.nodes["test"], torch.full((3, 0, 2), -1)), None)
    assert len(scores) == 3 * 240
    assert batch.price == 1 and int(batch.limit[0]) == int(0.05 * len(data.graph.pairs))
    fewer = advgym.make_task("graph/sbm-poison", fresh=5).samples("test", [0])
    assert set(fewer.nodes.tolist()) != set() and fewer.members <= 240 and batch.members <= 240
    env = advgym.make(task, 2)
    obs, _ = env.reset(seed=0)
    right = (obs["output"] == batch.labels).float().mean()  # of runs that did not choose the members
    assert float(right) > 0.95


def test_knowledge_is_what_a_training_run_can_give():
    assert advgym.make_task("graph/karate-poison").threat.knowledge == "score"
    with pytest.raises(AdvgymError, match="at most 'score'"):
        advgym.make_task("graph/karate-poison", knowledge="white-box")
    assert advgym.make_task("graph/karate-poison", knowledge="transfer").surrogate.name == "karate-unrolled"


def test_wrong_use_says_so():
    with pytest.raises(AdvgymError, match="fresh is a whole number from 1 to 64"):
        advgym.make_task("graph/karate-poison", fresh=0)
    with pytest.raises(AdvgymError, match="targets is at most that"):
        advgym.make_task("graph/karate-poison", targets=33)
    with pytest.raises(VictimError, match="answers whole graphs"):
        advgym.make_task("graph/karate-edge", victim=quick(), knowledge="score").victim(
            advgym.make_task("graph/karate-edge").samples("test", [0]).inputs(torch.full((1, 1, 2), -1)), None
        )
    with pytest.raises(VictimError, match="labels of 34 nodes"):
        advgym.make_task("graph/sbm-poison", victim=quick())


def test_own_graphs_can_be_poisoned():
    task = advgym.make_task(
        "graph/karate-poison", samples=SMALL, victim=retrained_victim("own", data=SMALL, epochs=30), fresh=1, eps=0.2,
        surrogate=unrolled_victim("own", data=SMALL), knowledge="transfer",
    )  # fmt: skip
    assert one_hot(task.samples("test", [0]).labels, 3).shape[1] == task.goal.members
    result = advgym.attack(task, "metattack", episodes=1)
    assert result.samples and all(s.valid for s in result.samples)


def test_a_poisoning_can_be_verified_again():
    """The verdict's runs are drawn by keys alone, so another process finds the very same answers."""
    task = advgym.make_task("graph/karate-poison", victim=quick(), knowledge="transfer")
    result = advgym.attack(task, "metattack", episodes=2, lanes=1)
    assert advgym.verify(result, task=task) == []
    again = advgym.attack(task, "metattack", episodes=2, lanes=2)
    assert [s.after for s in again.samples] == [s.after for s in result.samples]


@pytest.mark.realdata
def test_cora(data_dir):
    victim = retrained_victim("quick", data=load_nodes("cora"), epochs=20, lr=0.03)
    env = advgym.make("graph/cora-poison", victim=victim, knowledge="transfer", fresh=2)
    env.reset(seed=0)
    assert int(env.table.limit[0]) == 263
    found, gains = env.rank(env.threat.null(), k=20)
    assert bool((gains > 0).all()) and bool((found[..., 0] < found[..., 1]).all())
    before = env.step(env.threat.null())[0]["surrogate"]
    p = env.threat.null()
    p[:, :20] = found
    assert float(env.step(p)[0]["surrogate"]) > float(before)


def test_the_runs_of_ones_own_graph_never_see_its_targets():
    data = load_nodes("karate")
    every = (data.labels >= 0).nonzero()[:, 0]
    own = replace(data, nodes={"train": every, "test": every})
    task = advgym.make_task("graph/karate-poison", samples=own)
    nodes = task.samples("test", [0]).nodes
    assert not bool(torch.isin(nodes, task.victim.model.train_nodes).any())
