"""One lane as a plain `gymnasium.Env`: numpy observations, Python floats and bools."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from advgym.clients.views import edit_view
from advgym.factory import make


def make_single(task: str, *, render_mode: str | None = None, **options: Any) -> SingleEnv:
    """The edit view of a task by name, as `gymnasium.make` calls it."""
    if "frameskip" in options:  # TorchRL asks every environment, and takes Python's own refusal for an answer
        raise TypeError("make_single() got an unexpected keyword argument 'frameskip'")
    return SingleEnv(task, render_mode=render_mode, **options)


class SingleEnv(gym.Env):
    """The edit view (or the two-step view) of one lane."""

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, task: str, *, render_mode: str | None = None, **options: Any) -> None:
        self.view = edit_view(make(task, lanes=1, output="numpy", autoreset="disabled", **options))
        self.render_mode = render_mode
        self.observation_space = self.view.single_observation_space
        self.action_space = self.view.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Deal one sample; see `AttackEnv.reset`."""
        super().reset(seed=seed)
        obs, info = self.view.reset(seed=seed, options=options)
        return self._first(obs), self._info(info)

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One edit or increment."""
        obs, reward, terminated, truncated, info = self.view.step(np.asarray(action)[None])
        return self._first(obs), float(reward[0]), bool(terminated[0]), bool(truncated[0]), self._info(info)

    def action_masks(self) -> np.ndarray:
        """Bool (actions,), for sb3-contrib."""
        mask: np.ndarray = self.view.action_masks()[0]
        return mask

    def render(self) -> str | None:
        """What the held perturbation does, in a line."""
        return self.view.render()[0] if self.render_mode == "ansi" else None

    @staticmethod
    def _first(obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {k: v[0] for k, v in obs.items()}

    @staticmethod
    def _info(info: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if "action_mask" in info:
            out["action_mask"] = info["action_mask"][0]
        if "final_info" in info:
            out["final_info"] = {k: _plain(v[0]) for k, v in info["final_info"].items()}
        return out


def _plain(value: Any) -> Any:
    value = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    return value.item() if np.ndim(value) == 0 and hasattr(value, "item") else value
