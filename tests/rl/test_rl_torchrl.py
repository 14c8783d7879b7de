"""TorchRL, unmodified: one environment by id, masked actions, and the batched view in both autoreset modes."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import advgym  # noqa: F401  (registers the ids)

pytest.importorskip("torchrl")
from torchrl.envs import ActionMask, GymEnv, GymWrapper, TransformedEnv
from torchrl.envs.utils import check_env_specs

NAMES = ("text.synth-wordswap", "graph.karate-edge", "graph.sbm-edge", "image.digits-linf")
TEXT, GRAPH, LARGE, IMAGE = (f"advgym/{name}-v0" for name in NAMES)


def batched(name, mode, output):
    envs = gym.make_vec(name, num_envs=4, autoreset=mode, output=output, queries=4)
    # Torch actions go through unconverted, so they are class indices and not one-hot.
    raw = {"convert_actions_to_numpy": False} if output == "torch" else {}
    return GymWrapper(envs, categorical_action_encoding=True, **raw)


@pytest.mark.parametrize("name", [TEXT, GRAPH, LARGE, IMAGE])
def test_specs_and_rollout_by_id(name):
    env = GymEnv(name)
    check_env_specs(env)
    roll = env.rollout(5)
    assert 1 <= len(roll) <= 5 and torch.isfinite(roll["next", "reward"]).all()


@pytest.mark.parametrize("categorical", [True, False])
def test_action_mask_transform(categorical):
    env = TransformedEnv(GymEnv(TEXT, categorical_action_encoding=categorical, queries=20), ActionMask())
    env.set_seed(0)
    roll = env.rollout(20)
    action = roll["action"] if categorical else roll["action"].long().argmax(-1)
    assert roll["action_mask"].bool().gather(-1, action.unsqueeze(-1)).all()
    assert roll["next", "valid"].all()


@pytest.mark.parametrize("name", [TEXT, IMAGE])
@pytest.mark.parametrize("mode", ["same-step", "disabled"])
@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_batched_view(name, mode, output):
    torch.manual_seed(0)
    check_env_specs(batched(name, mode, output))
    # A fresh one: after a rollout whose last step ended a lane, TorchRL's same-step reset keeps the other lanes.
    env = batched(name, mode, output)
    roll = env.rollout(10, break_when_any_done=False)
    assert roll.shape == (4, 10) and roll["next", "done"].sum() >= 8
    done = roll["next", "done"][:, :-1, 0]
    left, start = roll["queries_left"][..., 0], roll["queries_left"][:, 0, 0]
    assert (start == 4).all() and (left[:, 1:][done] == 4).all()
    after = roll["next", "queries_left"][:, :-1, 0]
    assert torch.equal(left[:, 1:][~done], after[~done])


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_disabled_records_what_the_environment_gives(output):
    """The recorded transitions are those of the environment played by hand, terminal observations included."""
    env = batched(TEXT, "disabled", output)
    env.set_seed(0)
    roll = env.rollout(10, break_when_any_done=False)
    plain = gym.make_vec(TEXT, num_envs=4, autoreset="disabled", queries=4)
    plain.reset(seed=0)  # set_seed does this reset, and the rollout the next
    obs, _ = plain.reset()
    for t in range(10):
        for key, value in obs.items():
            np.testing.assert_allclose(roll[key][:, t], value, atol=1e-4, err_msg=f"{key} at {t}")
        obs, reward, terminated, _, _ = plain.step(roll["action"][:, t].numpy())
        np.testing.assert_allclose(roll["next", "reward"][:, t, 0], reward, atol=1e-4)
        np.testing.assert_array_equal(roll["next", "terminated"][:, t, 0], terminated)
        for key, value in obs.items():
            np.testing.assert_allclose(roll["next", key][:, t], value, atol=1e-4, err_msg=f"next {key} at {t}")
        if terminated.any():
            obs, _ = plain.reset(options={"reset_mask": terminated})
