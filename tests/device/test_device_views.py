"""The edit view, the two-step view and the single lane on the card."""

from functools import partial

import numpy as np
import pytest
import torch
from same import TASKS, both

import advgym
from advgym.clients.single import SingleEnv
from advgym.clients.views import edit_view

pytestmark = pytest.mark.device
STEPS = 5


def plain(value):
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, torch.Tensor | np.ndarray):
        return value.tolist()
    return value


def walked(env, draw):
    """Everything that an environment says on a walk."""
    obs, info = env.reset(seed=3)
    said = [plain(obs), plain(info)]
    for step in range(STEPS):
        obs, reward, ended, cut, info = env.step(draw(step, obs, info))
        said.append([plain(v) for v in (obs, reward, ended, cut, info)])
    return [repr(s) for s in said]  # NaN is itself as a word


def same(run):
    here, there = both(run)
    assert isinstance(here, list), here
    assert isinstance(there, list), there
    wrong = [(a[:300], b[:300]) for a, b in zip(here, there, strict=True) if a != b]
    assert not wrong, wrong[0]


@pytest.mark.parametrize("name", [n for n in TASKS if "-poison" not in n])
def test_the_edit_view(name):
    output = "numpy" if name.endswith(("edge", "linf", "wordswap", "keyword")) else "torch"

    def run(device):
        view = edit_view(advgym.make(name, 2, queries=3, device=device, output=output, autoreset="same-step"))
        space = view.single_action_space
        rng = np.random.default_rng(0)

        def draw(step, obs, info):
            if not hasattr(space, "n"):
                return rng.uniform(-1, 1, (2, *space.shape)).astype(np.float32)
            masks = torch.as_tensor(view.action_masks()).cpu().numpy()
            return np.array([rng.choice(np.flatnonzero(row)) if row.any() else 0 for row in masks])

        return walked(view, draw)

    same(run)


@pytest.mark.parametrize(
    "name", ["image/digits-linf", "image/digits-pixel", "text/synth-wordswap", "graph/karate-edge"]
)
def test_a_single_lane(name):
    def run(device):
        env = SingleEnv(name, queries=4, device=device, render_mode="ansi")
        rng = np.random.default_rng(0)

        def draw(step, obs, info):
            assert all(isinstance(v, np.ndarray) for v in obs.values())
            space = env.action_space
            return (
                int(rng.choice(np.flatnonzero(env.action_masks()))) if hasattr(space, "n") else space.sample() * 0 + 0.5
            )

        return [*walked(env, draw), repr(env.render())]

    same(run)


@pytest.mark.parametrize("name", ["image/digits-linf", "graph/sbm-edge", "text/synth-wordswap"])
def test_the_environment_checks_out(name):
    """`check_vector_env` plays every part of the contract."""

    def run(device):
        advgym.check_vector_env(partial(advgym.make, name, device=device))
        return ["it does"]

    same(run)
