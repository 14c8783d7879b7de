"""RL-S2V: what its network sees, that it learns, that what ships carries over to unseen nodes."""

import pytest
import torch
from dense_graph import dense, flipped, opened
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym import AdvgymError, DataError, attack, make
from advgym.agents.learned import rl_s2v as learned
from advgym.agents.shared.s2v_net import NODE, S2V, Scene, episode, open_second, q_learning
from advgym.clients.views import edit_view
from advgym.lib.weights import save_weights


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
def test_embeddings_see_the_perturbed_graph(seed):
    env, obs = opened("graph/karate-edge", 5, knowledge="score")
    scene, state = Scene.of(env, obs), env.threat.random(seed)
    f, spread = scene.features(state)
    assert f.shape == (5, 34, NODE)
    a, _ = dense(env)
    h = torch.randn(5, 34, 3, generator=torch.Generator().manual_seed(seed))
    out, sparse = spread(h), Scene(scene.graph, scene.target, scene.fixed, scene.start, None).features(state)[1](h)
    for lane in range(5):
        b = flipped(a, state[lane].tolist()) + torch.eye(34, dtype=a.dtype)
        scale = b.sum(1).rsqrt()
        want = (scale.unsqueeze(1) * b * scale) @ h[lane].double()
        torch.testing.assert_close(out[lane].double(), want, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(sparse[lane].double(), want, rtol=1e-4, atol=1e-5)
        target = int(scene.target[lane])
        beside = b[target].clone()
        beside[target] = f[lane, target, 9]
        torch.testing.assert_close(f[lane, :, 9].double(), beside)
        able = open_second(scene, state, scene.target)[lane]
        held = {v for e in state[lane].tolist() for v in e if v >= 0}
        assert {u for u in range(34) if not able[u]} == held | {target}


@pytest.mark.parametrize(("task", "steps"), [("graph/sbm-edge", True), ("graph/karate-edge", False)])
def test_an_edge_is_two_picks_of_the_public_view(task, steps):
    """Sites, then choices, where the table is large; their cell where it is flat. What is picked is what is held."""
    view = edit_view(make(task, 10, split="train", knowledge="score", queries=3))
    assert hasattr(view, "phase") == steps
    past = episode(S2V(8, 1), view, 0, 1.0)
    assert (past["first"] == past["scene"].target).all() and past["state"][0].eq(-1).all()
    for t in range(len(past["first"]) - 1):
        on = past["alive"][t + 1]
        held = past["state"][t + 1][on]
        picked = torch.stack([past["first"][t], past["second"][t]], 1)[on].unsqueeze(1)
        assert on.any() and (held == picked).all(2).any(1).all()
        assert ((held[..., 0] >= 0).sum(1) == t + 1).all()
    assert (past["reward"].sum(0) >= 0).all()


def learn(rounds):
    torch.manual_seed(0)
    net, totals = S2V(8, 1), []
    views = learned._views("graph/karate-edge", 1, 16)
    q_learning(net, views, rounds=rounds, lr=1e-2, seed=0, updates=2, tell=lambda _, mean: totals.append(mean))
    return net, totals


def test_q_learning_raises_the_return():
    _, totals = learn(60)
    assert sum(totals[-10:]) > sum(totals[:10]) + 2


def test_learning_is_deterministic():
    one, two = (learn(6)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(("task", "times"), [("graph/sbm-edge", 2.0), ("graph/karate-edge", 1.0)])
def test_the_shipped_policy_carries_over_to_unseen_nodes(task, times):
    """As many queries as edges, nodes that were never trained on; of `sbm` not even the graph was."""
    options = {"episodes": 200, "lanes": 100, "knowledge": "score", "queries": 3}
    ours, blind = (attack(task, name, **options) for name in ("rl-s2v", "random-search"))
    assert ours.success_rate > times * blind.success_rate


def test_weights_are_read_from_a_file_and_nothing_else(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_weights(path, S2V(), {"name": "mine"})
    found = attack("graph/karate-edge", "rl-s2v", episodes=8, queries=5, settings={"weights": str(path)})
    assert found.attacked and not any("crashed" in f for f in found.flags)
    with pytest.raises(DataError, match="advgym train rl-s2v"):
        learned.read(tmp_path / "none.safetensors")
    with pytest.raises(AdvgymError, match="flips no edges"):
        learned._views("image/digits-linf", 1, 2)
