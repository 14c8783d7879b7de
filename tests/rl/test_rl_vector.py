"""`gymnasium.make_vec`: both autoreset modes, outputs, Gymnasium's own vector wrappers."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import advgym  # noqa: F401  (registers the ids)

IDS = ["advgym/text.synth-wordswap-v0", "advgym/graph.karate-edge-v0"]
LANES = 3


def legal(envs, rng):
    return np.array([rng.choice(np.flatnonzero(m)) if m.any() else 0 for m in envs.action_masks()])


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_same_step_shows_the_last_observation_and_starts_anew(name, output):
    envs = gym.make_vec(name, num_envs=LANES, queries=3, output=output)
    assert envs.metadata["autoreset_mode"] is envs.unwrapped.autoreset_mode is AutoresetMode.SAME_STEP
    rng, kind = np.random.default_rng(0), np.ndarray if output == "numpy" else torch.Tensor
    obs, _ = envs.reset(seed=0)
    ended = 0
    for _ in range(7):
        before = np.asarray(obs["queries_left"])[:, 0]
        obs, reward, terminated, truncated, info = envs.step(legal(envs, rng))
        assert all(isinstance(v, kind) for v in (*obs.values(), reward, terminated, truncated))
        over = np.asarray(terminated)
        assert not np.asarray(truncated).any()
        if over.any():
            ended += int(over.sum())
            np.testing.assert_array_equal(info["_final_obs"], over)
            last = np.asarray(info["final_obs"]["queries_left"])[:, 0]
            np.testing.assert_array_equal(last[over], before[over] - 1)
            assert (np.asarray(obs["queries_left"])[over] == 3).all()
            assert (np.asarray(obs["perturbation"])[over] == -1).all()
            assert isinstance(info["final_info"]["success"], kind)
    assert ended >= 2 * LANES


@pytest.mark.parametrize("name", IDS)
def test_disabled_restarts_the_masked_lanes_alone(name):
    envs = gym.make_vec(name, num_envs=LANES, queries=4, autoreset="disabled")
    assert envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    obs, _, terminated, _, _ = envs.step(legal(envs, rng))
    mask = np.array([True, False, False]) | terminated
    again, _ = envs.reset(options={"reset_mask": mask})
    assert (again["queries_left"][mask] == 4).all() and (again["perturbation"][mask] == -1).all()
    for key in obs:
        np.testing.assert_array_equal(again[key][~mask], obs[key][~mask], err_msg=key)
    for _ in range(4):
        obs, reward, terminated, _, _ = envs.step(legal(envs, rng))
    assert terminated.all()
    _, reward, terminated, _, _ = envs.step(np.zeros(LANES, np.int64))
    assert terminated.all() and (reward == 0).all()


def test_masks_and_steps_before_reset_say_so():
    envs = gym.make_vec(IDS[0], num_envs=2)
    with pytest.raises(gym.error.ResetNeeded):
        envs.action_masks()
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(np.zeros(2, np.int64))


def test_gymnasium_counts_returns():
    """RecordEpisodeStatistics, as it is, adds up what the environment pays."""
    envs = gym.wrappers.vector.RecordEpisodeStatistics(gym.make_vec(IDS[0], num_envs=LANES, queries=3))
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    total = np.zeros(LANES)
    for _ in range(3):
        _, reward, terminated, _, info = envs.step(legal(envs.unwrapped, rng))
        total += reward
        if terminated.any():
            episode = info.get("final_info", {}).get("episode") or info["episode"]
            np.testing.assert_allclose(np.asarray(episode["r"])[terminated], total[terminated], rtol=1e-5)
            total[terminated] = 0
    assert terminated.any()


def test_one_lane_and_the_vector_tell_the_same():
    one = gym.make(IDS[0], queries=4)
    many = gym.make_vec(IDS[0], num_envs=LANES, queries=4, autoreset="disabled")
    ids = [5, 1, 3]
    a, _ = many.reset(seed=0, options={"samples": ids})
    rng = np.random.default_rng(1)
    actions = [legal(many, rng)]
    b = [a, many.step(actions[0])[0]]
    for lane, sample in enumerate(ids):
        first, _ = one.reset(seed=0, options={"samples": [sample]})
        second = one.step(int(actions[0][lane]))[0]
        for x, y in ((first, b[0]), (second, b[1])):
            for key in x:
                np.testing.assert_allclose(x[key], y[key][lane], atol=1e-4, err_msg=key)
