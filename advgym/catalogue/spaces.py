"""Spaces in words: `float32 (1, 8, 8), -1 to 1`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from advgym.core.env import AttackEnv


def space_words(space: gym.Space[Any]) -> str:
    """A space in words.

    >>> space_words(gym.spaces.Box(-1, 1, (2, 3))), space_words(gym.spaces.Discrete(5))
    ('float32 (2, 3), -1 to 1', 'one of 5')
    """
    if isinstance(space, gym.spaces.Discrete):
        return f"one of {int(space.n)}"
    assert isinstance(space, gym.spaces.Box)
    low, high = (float(side.flat[0]) if side.size else 0.0 for side in (space.low, space.high))
    shape = ", ".join(map(str, space.shape)) + ("," if len(space.shape) == 1 else "")
    kind = str(space.dtype)
    if space.dtype == np.bool_ or (low, high) == (-np.inf, np.inf) or high >= 2**62:
        return f"{kind} ({shape})"
    return f"{kind} ({shape}), {_end(low)} to {_end(high)}"


def _end(value: float) -> str:
    return {np.inf: "any", -np.inf: "any"}.get(value, f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}")


def action_words(env: AttackEnv) -> str:
    """One action of the Gymnasium environment, the edit view of one lane."""
    from advgym.clients.views import TwoStepView, edit_view

    view = edit_view(env)
    words = space_words(view.single_action_space)
    return f"{words}: a site, then a choice" if isinstance(view, TwoStepView) else words


def steps_of(env: AttackEnv) -> int:
    """The most steps that an episode of the Gymnasium environment takes."""
    from advgym.clients.views import most_steps

    return most_steps(env)


def observation_words(env: AttackEnv) -> dict[str, str]:
    """What one lane sees after each step."""
    return {name: space_words(box) for name, box in env.single_observation_space.items()}
