"""One lane as a plain `gymnasium.Env`: numpy observations, Python floats and bools."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from advgym.clients.render import check_mode, modes
from advgym.clients.views import edit_view, most_steps
from advgym.factory import make
from advgym.lib.settings import check_seed


def make_single(task: str, *, render_mode: str | None = None, **options: Any) -> SingleEnv:
    """The edit view of a task by name, as `gymnasium.make` calls it."""
    if "frameskip" in options:  # TorchRL asks every environment, and takes Python's own refusal for an answer
        raise TypeError("make_single() got an unexpected keyword argument 'frameskip'")
    return SingleEnv(task, render_mode=render_mode, **options)


class SingleEnv(gym.Env):
    """The edit view (or the two-step view) of one lane.

    It pickles as its arguments, and is made again from them where it is read: neither labels nor a running episode
    cross over. `spec.max_episode_steps` is the most that an episode takes, with the budget it was made with; the budget
    ends episodes by itself, so no time limit is put around it.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array", "human"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, task: str, *, render_mode: str | None = None, **options: Any) -> None:
        self._arguments = {"task": task, "render_mode": render_mode, **options}
        self.view = edit_view(
            make(task, lanes=1, output="numpy", autoreset="disabled", **options), check_mode(render_mode)
        )
        self.metadata = {**type(self).metadata, "render_modes": modes()}
        self.render_mode = render_mode
        self.observation_space = self.view.single_observation_space
        self.action_space = self.view.single_action_space

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]
        """Of Gymnasium's registry, with the most steps of an episode."""
        return self._spec

    @spec.setter
    def spec(self, found: EnvSpec | None) -> None:
        if found is not None and found.max_episode_steps is None:
            found = copy.copy(found)
            found.max_episode_steps = most_steps(self.view.env)
        self._spec = found

    _spec: EnvSpec | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._arguments, self._spec)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Deal one sample; see `AttackEnv.reset`."""
        super().reset(seed=None if seed is None else check_seed(seed))
        obs, info = self.view.reset(seed=seed, options=options)
        self._show()
        return self._first(obs), self._info(info)

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One edit or increment."""
        obs, reward, terminated, truncated, info = self.view.step(np.asarray(action)[None])
        self._show()
        return self._first(obs), float(reward[0]), bool(terminated[0]), bool(truncated[0]), self._info(info)

    def action_masks(self) -> np.ndarray:
        """Bool (actions,), for sb3-contrib."""
        mask: np.ndarray = self.view.action_masks()[0]
        return mask

    def render(self) -> Any:
        """By `render_mode`: two lines of text, or a frame, uint8 (360, 480, 3); None without one, and in a window."""
        if self.render_mode is None:
            return None
        shown = self.view.render()
        return None if shown is None else shown[0]

    def _show(self) -> None:
        """A window follows by itself, as Gymnasium has it."""
        if self.render_mode == "human":
            self.view.render()

    def close(self) -> None:
        """Close the window, if there is one."""
        self.view.close()

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


def _again(arguments: dict[str, Any], spec: EnvSpec | None) -> SingleEnv:
    """From its arguments, before its first reset."""
    env = SingleEnv(**arguments)
    env.spec = spec
    return env
