"""Metattack and the injection attacks: greedy by the gradient, budgets used and kept, better than chance."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import advgym
from advgym import registry
from advgym.agents.shared.injecting import packed, plan_of
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.tasks.poison import retrained_victim


@cache
def quick(name):
    """A victim that trains in a fraction of the time."""
    return retrained_victim("quick", data=load_nodes(name), epochs=40, lr=0.04)


def injected(env, state):
    """(edges, features) of each injected node of each lane, int64 (lanes, I)."""
    many = env.context["injected"]
    site = torch.where(state[..., 0] >= 0, state[..., 0], 2 * many)
    count = torch.zeros(len(state), 2 * many + 1, dtype=torch.int64).scatter_add_(1, site, torch.ones_like(site))
    return count[:, :many], count[:, many : 2 * many]


def test_metattack_is_greedy_by_the_meta_gradient():
    env = advgym.make("graph/karate-poison", 2, knowledge="transfer", victim=quick("karate"))
    env.reset(seed=0)
    found = registry.agent("metattack").attack(env, seed=0)
    assert bool((found[..., 0] >= 0).sum(1).eq(env.table.limit).all())
    assert int(env.table.limit[0]) == 7 and torch.equal(found[0], found[1])  # the surrogate draws nothing
    other = advgym.make("graph/karate-poison", 2, knowledge="transfer", victim=quick("karate"))
    other.reset(seed=0)
    state = other.threat.null()
    for e in range(7):
        best, gains = other.rank(state, k=3)
        assert torch.equal(best[:, 0], found[:, e]) and bool((gains[:, 0] >= gains[:, 1]).all())
        state = other.threat.compose(state, best[:, 0])


def test_metattack_may_flip_several_at_once_and_stops_with_its_budget():
    one = advgym.attack("graph/sbm-poison", "metattack", episodes=1, settings={"flips": 10}, victim=quick("sbm"))
    assert one.gradients_mean == -(-38 // 10) and one.queries_mean == one.gradients_mean + 1
    few = advgym.attack(
        "graph/sbm-poison", "metattack", episodes=1, queries=3, gradients=3, settings={"flips": 4}, victim=quick("sbm")
    )
    assert all(s.valid and s.queries <= 3 for s in few.samples)


def test_metattack_poisons_better_than_chance():
    rate = {}
    for agent in ("metattack", "random-search"):
        given = {} if agent == "metattack" else {"knowledge": "transfer", "queries": 2}
        rate[agent] = advgym.attack(
            "graph/sbm-poison", agent, episodes=1, eps=0.1, victim=quick("sbm"), **given
        ).members_rate
    assert rate["metattack"] > rate["random-search"] + 0.1


@pytest.mark.parametrize("agent", ["fgsm-injection", "tdgia"])
@pytest.mark.parametrize("knowledge", ["white-box", "transfer"])
def test_injections_use_their_budget_and_keep_it(agent, knowledge):
    env = advgym.make("graph/sbm-inject", 2, knowledge=knowledge, nodes=7, degree=4, features=3)
    obs, _ = env.reset(seed=1)
    members = set(obs["members"][0].tolist())
    found = registry.agent(agent).attack(env, seed=1)
    assert bool(env.threat.check(found).all())
    edges, features = injected(env, found)
    assert int(edges.max()) <= 4 and int(features.max()) <= 3
    assert float(edges.float().mean()) > 3.5 or agent == "tdgia"  # the best stage may be an early one
    ends = found[(found[..., 0] >= 0) & (found[..., 0] < 7)][:, 1]
    assert set(ends.tolist()) <= members
    assert torch.equal(found[0], found[1]) == (agent == "tdgia")  # the one draws edges by lane, the other nothing


@pytest.mark.parametrize("agent", ["fgsm-injection", "tdgia"])
def test_injections_beat_random_search(agent):
    rate = {a: advgym.attack("graph/sbm-inject", a, episodes=1, queries=150, gradients=150).members_rate
            for a in (agent, "random-search")}  # fmt: skip
    assert rate[agent] > rate["random-search"] + 0.03


def test_tdgia_connects_to_the_weakest_by_its_formula():
    from advgym.agents.graph.tdgia import _defective

    env = advgym.make("graph/sbm-inject", 1, nodes=2, degree=3)
    obs, _ = env.reset(seed=0)
    plan, ref = plan_of(env, obs), obs["output"]
    order = _defective(plan, obs, ref, env.threat.null(), 2, 0.9, 0.1)[0]
    sure = torch.softmax(obs["scores"][0], 1).gather(1, ref[0].unsqueeze(1)).squeeze(1)
    degree = plan.clean[plan.members[0]] + 1
    worth = (sure + 2) * (0.9 / degree + 0.1 / (degree * 3).sqrt())
    assert set(order[:6].tolist()) == set(worth.topk(6).indices.tolist())
    assert sorted(order.tolist()) == list(range(len(worth)))
    dealt = plan.deal(order.unsqueeze(0), 0, 2)[0]
    assert dealt[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(dealt[:, 1], plan.members[0][order[:6]])


def test_sets_are_packed_in_order():
    p = torch.tensor([[[-1, -1], [3, 1], [-1, -1], [2, 2]], [[5, 5], [1, 1], [4, 4], [-1, -1]]])
    assert packed(p, 2).tolist() == [[[3, 1], [2, 2]], [[5, 5], [1, 1]]]
    assert packed(p, 5)[1].tolist() == [[5, 5], [1, 1], [4, 4], [-1, -1], [-1, -1]]


@pytest.mark.parametrize("agent", ["fgsm-injection", "tdgia"])
def test_elsewhere_injections_are_refused(agent):
    with pytest.raises(advgym.AdvgymError, match="injection: edits connect nodes that the attacker adds"):
        advgym.attack("graph/karate-edge", agent, episodes=5, queries=10, gradients=10)
