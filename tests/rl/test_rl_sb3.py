"""Stable-Baselines3 and sb3-contrib, unmodified: PPO, MaskablePPO, our VecEnv, spawned workers."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest

import advgym  # noqa: F401  (registers the ids)

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import SubprocVecEnv, VecMonitor

from advgym.clients.sb3 import AdvgymVecEnv

NAMES = ("text.synth-wordswap", "graph.karate-edge", "graph.sbm-edge", "image.digits-linf")
TEXT, GRAPH, LARGE, IMAGE = (f"advgym/{name}-v0" for name in NAMES)  # LARGE picks site and choice in two steps
SHORT = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "seed": 0}


@pytest.mark.parametrize("name", [TEXT, GRAPH, IMAGE])
def test_ppo_learns_from_an_id(name):
    model = PPO("MultiInputPolicy", name, **SHORT).learn(64)
    assert model.num_timesteps == 64 and model._n_updates == 2


@pytest.mark.parametrize("name", [TEXT, GRAPH, LARGE])
def test_maskable_ppo_takes_legal_actions_alone(name):
    env = gym.make(name)
    assert is_masking_supported(env)
    model = MaskablePPO("MultiInputPolicy", env, **SHORT).learn(64)
    buffer = model.rollout_buffer
    taken = np.take_along_axis(buffer.action_masks, buffer.actions.astype(np.int64).reshape(-1, 1), 1)
    assert buffer.action_masks.min() == 0 and taken.all()


@pytest.mark.parametrize(
    ("task", "steps"), [("text/synth-wordswap", 4), ("graph/karate-edge", 4), ("graph/sbm-edge", 8)]
)
def test_maskable_ppo_over_lanes(task, steps):
    env = VecMonitor(AdvgymVecEnv(task, 8, queries=4, split="train"))
    env.reset()
    assert is_masking_supported(env) and get_action_masks(env).shape == (8, env.action_space.n)
    model = MaskablePPO("MultiInputPolicy", env, **{**SHORT, "n_steps": 16}).learn(128)
    assert len(model.ep_info_buffer) >= 8 and len(model.ep_success_buffer) == len(model.ep_info_buffer)
    assert all(e["l"] <= steps for e in model.ep_info_buffer)
    held = model.rollout_buffer.observations["perturbation"]
    mask = model.rollout_buffer.observations["action_mask"]
    assert held.min() >= -1 and set(np.unique(mask)) == {0, 1}


def test_our_vec_env_gives_what_sb3_asks_of_one():
    env = AdvgymVecEnv("text/synth-wordswap", 4, queries=3)
    env.seed(7)
    first = env.reset()
    env.seed(7)
    again = env.reset()
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    rng, ended = np.random.default_rng(0), 0
    for _ in range(6):
        action = np.array([rng.choice(np.flatnonzero(m)) for m in env.env_method("action_masks")])
        obs, reward, done, infos = env.step(action)
        assert reward.dtype == np.float32 and done.dtype == np.bool_ and len(infos) == 4
        for lane in np.flatnonzero(done):
            ended += 1
            last = infos[lane]["terminal_observation"]
            assert set(last) == set(obs) and last["queries_left"].shape == (1,)
            assert obs["queries_left"][lane] == 3 and infos[lane]["TimeLimit.truncated"] is False
            assert infos[lane]["is_success"] == bool(last["success"])
    assert ended >= 8
    kept = {k: v.copy() for k, v in obs.items()}
    for value in obs.values():
        value[...] = np.zeros((), value.dtype)
    np.testing.assert_array_equal(env.env_method("action_masks")[0], kept["action_mask"][0].astype(bool))


@pytest.mark.slow
def test_module_and_id_reach_spawned_workers():
    """A spawned worker imports nothing by itself: `advgym:` in the id makes it import the ids' module."""
    env = SubprocVecEnv([partial(gym.make, f"advgym:{TEXT}", queries=3)] * 2, start_method="spawn")
    try:
        env.seed(0)
        obs = env.reset()
        masks = get_action_masks(env)
        np.testing.assert_array_equal(masks, obs["action_mask"].astype(bool))
        obs, reward, done, _ = env.step(masks.argmax(1))
        assert (obs["queries_left"] == 2).all() and np.isfinite(reward).all() and not done.any()
    finally:
        env.close()
