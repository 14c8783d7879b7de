"""TDGIA's smooth features: weights within the budget of each node, each theta with its own cell, a better end."""

from __future__ import annotations

import statistics

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym import registry
from advgym.agents.graph.tdgia import START, _largest, _log_of_clean, _optimised, _weights
from advgym.agents.shared.injecting import Plan, by_gain, joined, plan_of
from advgym.envs.graph.data.datasets import sbm
from advgym.envs.graph.victims.recipes import node_victim


def block(seed):
    """An injection environment on a block model of its own, with a GCN trained there."""
    data = sbm(seed=seed)
    victim = node_victim(f"block-{seed}", data=data, epochs=60)
    env = advgym.make("graph/sbm-inject", 1, samples=data, victim=victim)
    obs, _ = env.reset(seed=0)
    return env, obs, plan_of(env, obs)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 20), st.integers(1, 4))
def test_weights_share_the_budget_of_their_node(seed, features):
    g = torch.Generator().manual_seed(seed)
    plan = Plan(3, 2, features, torch.zeros(2, 1, dtype=torch.int64), torch.zeros(9))
    cells = torch.stack([torch.randint(3, 6, (2, 12), generator=g), torch.arange(12).expand(2, -1)], 2)
    cells[:, ::5] = -1
    theta = 3 * torch.randn(2, 12, generator=g)
    found, free = _weights(plan, cells, theta), (1 + theta.sin()) / 2
    for lane in range(2):
        for node in (3, 4, 5):
            here = cells[lane, :, 0] == node
            want = free[lane, here]
            torch.testing.assert_close(found[lane, here], want * min(1.0, features / max(float(want.sum()), 1e-9)))
            assert float(found[lane, here].sum()) <= features + 1e-4
    assert bool((found[cells[..., 0] < 0] == 0).all())


def test_each_theta_moves_its_own_cell():
    env, obs, plan = block(31)
    ref = obs["output"].clone()
    edges = joined(env, plan.deal(torch.arange(plan.members.shape[1]).unsqueeze(0), 0, plan.many))
    cells = by_gain(env, plan, edges, 0, plan.many, 4)
    cells[:, 1::3] = -1  # padding in between
    theta = torch.full(cells.shape[:2], START)
    found = _optimised(env, plan, ref, edges, cells, theta, 1, 0.1, 4.0)
    real = cells[..., 0] >= 0
    assert bool((found[~real] == START).all())  # Adam's first step is its rate in the direction of the slope

    def loss(theta):
        p, w = joined(env, edges, cells), torch.ones(1, env.shape[0])
        many = int((edges[..., 0] >= 0).sum())
        weights = _weights(plan, cells, theta)[real]
        w[0, many : many + len(weights)] = weights
        w[0, many + len(weights) :] = 0
        scores = env.step((p, w))[0]["scores"].detach()
        return float((4.0 + _log_of_clean(scores, ref)).clamp_min(0).square().sum())

    for at in real[0].nonzero()[::9, 0].tolist():
        up, down = theta.clone(), theta.clone()
        up[0, at] += 0.05
        down[0, at] -= 0.05
        slope = loss(up) - loss(down)
        if abs(slope) > 1e-2:
            assert (found[0, at] - START) * slope < 0
    assert loss(found) < loss(theta)
    kept = env.threat.project(joined(env, edges, _largest(plan, cells, found)))
    assert bool(env.threat.check(kept).all())


def test_one_stage_beats_random_edges_and_one_gradient():
    """On three block models that nothing was chosen on: one stage against random edges with features by one ranking."""
    wins, plainly = [], []
    for seed in (41, 42, 43):
        env, obs, _ = block(seed)
        ref = obs["output"].clone()
        for runs, take in ((wins, True), (plainly, False)):
            entry = registry.agent("tdgia" if take else "fgsm-injection").attack
            p = entry(env.view(), seed=0, **({"stages": 1} if take else {"tries": 1}))
            runs.append(float((env.step(p)[0]["output"] != ref).float().mean()))
    assert statistics.mean(wins) > statistics.mean(plainly) > 0
