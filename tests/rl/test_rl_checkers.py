"""The checkers of Gymnasium and Stable-Baselines3, unmodified, and what they cannot see."""

import re
import warnings

import gymnasium as gym
import numpy as np
import pytest

import advgym  # noqa: F401  (registers the ids)

pytest.importorskip("stable_baselines3")
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

NAMES = ("text.synth-wordswap", "graph.karate-edge", "graph.sbm-edge", "image.digits-linf")
TEXT, GRAPH, LARGE, IMAGE = IDS = [f"advgym/{name}-v0" for name in NAMES]  # LARGE picks site and choice in two steps

# Advice about taste, not about faults: unbounded scores, and observations that are neither flat nor pictures.
ADVICE = [
    r"A Box observation space (minimum|maximum) value is -?infinity",
    r"has an unconventional shape",
    r"It seems that your observation( space)? \w+ is an image",
    r"The minimal resolution for an image",
]


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("check", [lambda env: check_env(env.unwrapped), check_env_sb3], ids=["gymnasium", "sb3"])
def test_checker_passes_and_warns_of_no_fault(name, check):
    env = gym.make(name)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check(env)
    told = [str(w.message) for w in seen if not issubclass(w.category, DeprecationWarning)]
    assert not [t for t in told if not any(re.search(a, t) for a in ADVICE)]


@pytest.mark.parametrize("name", IDS)
def test_a_client_may_write_into_what_it_is_given(name):
    """Normalising an observation in place must not reach the environment's own state."""

    def play(spoil):
        env = gym.make(name, queries=6).unwrapped
        env.action_space.seed(0)
        obs, info = env.reset(seed=0)
        out = []
        for _ in range(4):
            out.append({k: v.copy() for k, v in obs.items()})
            if spoil:
                for value in [*obs.values(), *(v for v in info.values() if isinstance(v, np.ndarray))]:
                    value[...] = np.ones((), value.dtype)
                if env.view.edits:
                    env.action_masks()[...] = False
            obs, reward, _, _, info = env.step(env.action_space.sample())
            out.append({"reward": np.asarray(reward)})
        return out

    for honest, spoilt in zip(play(False), play(True), strict=True):
        for key, value in honest.items():
            np.testing.assert_array_equal(value, spoilt[key], err_msg=key)


@pytest.mark.parametrize("name", [TEXT, GRAPH, LARGE])
def test_the_three_masks_are_one(name):
    env = gym.make(name)
    obs, info = env.reset(seed=3)
    for _ in range(4):
        mask = env.get_wrapper_attr("action_masks")()
        assert mask.dtype == np.bool_ and obs["action_mask"].dtype == info["action_mask"].dtype == np.int8
        np.testing.assert_array_equal(mask, obs["action_mask"].astype(bool))
        np.testing.assert_array_equal(mask, info["action_mask"].astype(bool))
        obs, _, over, _, info = env.step(env.action_space.sample(info["action_mask"]))
        assert over or obs["valid"][0]


def test_single_steps_return_python_numbers():
    env = gym.make(TEXT, queries=1).unwrapped
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(int(np.flatnonzero(env.action_masks())[0]))
    assert type(reward) is float and terminated is True and truncated is False
    assert info["final_info"]["queries"] == 1 and info["final_info"]["reason"] in ("queries", "success")


def test_rendering_tells_what_is_held():
    env = gym.make(TEXT, render_mode="ansi")
    env.reset(seed=0)
    assert isinstance(env.render(), str) and env.render()
