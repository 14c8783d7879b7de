"""Meta-gradients of the attacker's own network against autograd through the whole training in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

import advgym
from advgym import registry
from advgym.agents.shared.meta_gradients import GRADIENTS, LOSSES, Meta, Recipe
from advgym.envs.graph.data.datasets import load_nodes, sbm
from advgym.envs.graph.tasks.poison import retrained_victim
from advgym.errors import AdvgymError

DATA = sbm(size=14, features=9, inside=0.5, outside=0.2, seed=3)
KNOWN = torch.where(torch.arange(14) % 2 == 0, DATA.labels, -1)
RECIPE = Recipe(steps=25, rate=0.3, hidden=4)


def dense(graph):
    a = torch.zeros(graph.size, graph.size, dtype=torch.float64)
    a[graph.pairs[:, 0], graph.pairs[:, 1]] = 1
    return a + a.T


def plain(meta, adjacency, x, gradient, loss):
    """The attack's loss of a run on full matrices, weights held as the approximation says."""
    full = adjacency + torch.eye(len(adjacency), dtype=torch.float64)
    scale = full.sum(1).rsqrt()
    hat = scale.unsqueeze(1) * full * scale
    z = hat @ hat @ x / meta.length
    own = z if gradient == "exact" else z.detach()
    w1, w2 = meta.first.clone().requires_grad_(), meta.second.clone().requires_grad_()
    fast, total = [torch.zeros_like(w1), torch.zeros_like(w2)], []
    for _ in range(RECIPE.steps):
        inner = cross_entropy((own @ w1 @ w2)[meta.train], KNOWN[meta.train])
        slopes = torch.autograd.grad(inner, (w1, w2), create_graph=gradient == "exact")
        fast = [RECIPE.momentum * v + g for v, g in zip(fast, slopes, strict=True)]
        w1, w2 = w1 - RECIPE.rate * fast[0], w2 - RECIPE.rate * fast[1]
        if gradient != "exact":
            w1, w2 = w1.detach().requires_grad_(), w2.detach().requires_grad_()
        total.append(meta.loss(z @ w1 @ w2, loss))
    return sum(total) if gradient == "sum" else total[-1]


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("loss", LOSSES)
def test_gains_are_the_gradient_of_the_whole_run(gradient, loss):
    meta = Meta(dense(DATA.graph), DATA.graph.x, KNOWN, RECIPE)
    a = dense(DATA.graph)
    for one, other in ((0, 5), (3, 9), (1, 2)):  # flips so far
        a[one, other] = a[other, one] = 1 - a[one, other]
    leaf = a.clone().requires_grad_()
    (slope,) = torch.autograd.grad(plain(meta, leaf, DATA.graph.x.double(), gradient, loss), leaf)
    want = (slope + slope.T) * (1 - 2 * a)
    found = meta.gains(a, loss=loss, gradient=gradient)
    off = ~torch.eye(14, dtype=torch.bool)
    assert float(want.abs().max()) > 1e-3
    torch.testing.assert_close(found[off], want[off], atol=1e-10, rtol=1e-8)
    single = Meta(dense(DATA.graph).float(), DATA.graph.x, KNOWN, RECIPE)
    torch.testing.assert_close(
        single.gains(a.float(), loss=loss, gradient=gradient)[off].double(), want[off], atol=1e-4, rtol=1e-3
    )


def test_labels_from_self_training_are_the_clean_predictions():
    meta = Meta(dense(DATA.graph), DATA.graph.x, KNOWN, Recipe(steps=150, rate=0.3))
    assert torch.equal(meta.labels[KNOWN >= 0], KNOWN[KNOWN >= 0])
    assert float((meta.labels == DATA.labels).float().mean()) > 0.8


@pytest.mark.parametrize(("loss", "gradient"), [("self", "exact"), ("train", "sum"), ("both", "last")])
def test_the_attack_is_greedy_by_its_gains(loss, gradient):
    env = advgym.make("graph/sbm-poison", 2, knowledge="transfer", victim=quick(), eps=0.01, connected=True)
    env.reset(seed=0)
    found = registry.agent("metattack").attack(env, seed=0, loss=loss, gradient=gradient, steps=20)
    data = load_nodes("sbm")
    known = torch.full_like(data.labels, -1)
    known[data.nodes["train"]] = data.labels[data.nodes["train"]]
    a, size = dense(data.graph).float(), data.graph.size
    meta, pairs = Meta(a, data.graph.x, known, Recipe(steps=20)), []
    state = env.threat.null()
    assert torch.equal(found[0], found[1]) and int((found[0, :, 0] >= 0).sum()) == int(env.table.limit[0]) == 7
    for edit in found[0, :7].tolist():
        now = a.clone()
        for one, other in pairs:
            now[one, other] = now[other, one] = 1 - a[one, other]
        gains = meta.gains(now, loss=loss, gradient=gradient).triu(1)
        order = gains.flatten().argsort(descending=True)[:64]
        for at in order.tolist():
            pair = [at // size, at % size]
            more = env.threat.compose(state, torch.tensor([pair, pair]))
            if pair not in pairs and bool(env.threat.check(more).all()):
                break
        assert edit == pair
        pairs.append(pair)
        state = more


def quick():
    return retrained_victim("quick", data=load_nodes("sbm"), epochs=40, lr=0.04)


@pytest.mark.parametrize("gradient", ["exact", "sum"])
def test_own_meta_gradients_poison_better_than_chance(gradient):
    settings = {"gradient": gradient, "flips": 4, "steps": 60}
    task = advgym.make_task("graph/sbm-poison", victim=quick(), knowledge="transfer", eps=0.1)
    result = advgym.attack(task, "metattack", episodes=1, settings=settings)
    assert result.queries_mean == 1 and result.gradients_mean == 0
    chance = advgym.attack(task, "noise", episodes=1)
    assert result.samples[0].valid and result.members_rate > chance.members_rate + 0.05


def test_wrong_settings_say_so():
    env = advgym.make("graph/karate-edge", 1, knowledge="transfer")
    attack = registry.agent("metattack").attack
    with pytest.raises(AdvgymError, match="edge flips anywhere"):
        attack(env, gradient="sum")
    with pytest.raises(AdvgymError, match="answers for members alone"):
        attack(env, loss="train")
    for word in ({"loss": "selv"}, {"gradient": "suma"}):
        with pytest.raises(AdvgymError, match=next(iter(word.values()))):
            attack(env, **word)
