"""The batched edit view as a Stable-Baselines3 `VecEnv` (numpy, four-tuple, same-step)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from advgym.clients.views import make_vector


class AdvgymVecEnv(VecEnv):
    """All lanes in one forward for SB3's algorithms: `PPO("MultiInputPolicy", AdvgymVecEnv(task, 16))`.

    Args:
        task: the task's name.
        lanes: environments.
        options: as for `advgym.make`.
    """

    def __init__(self, task: str, lanes: int, *, seed: int | None = None, **options: Any) -> None:
        self.view = make_vector(lanes, task=task, autoreset="same-step", output="numpy", **options)
        self._first_seed = seed
        self._actions: np.ndarray | None = None
        super().__init__(lanes, self.view.single_observation_space, self.view.single_action_space)

    def reset(self) -> dict[str, np.ndarray]:
        """First observations of every lane."""
        seeds = [s for s in self._seeds if s is not None]
        seed = seeds[0] if seeds else self._first_seed
        self._first_seed = None
        obs, _ = self.view.reset(seed=seed)
        self._reset_seeds()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """One step of every lane; infos stay tiny, SB3 copies them."""
        obs, reward, terminated, _, info = self.view.step(self._actions)
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if "final_obs" in info:
            success = np.asarray(info["final_info"]["success"])
            for i in np.flatnonzero(info["_final_obs"]):
                infos[i]["terminal_observation"] = {k: v[i] for k, v in info["final_obs"].items()}
                infos[i]["is_success"] = bool(success[i])
        return obs, reward, terminated, infos

    def close(self) -> None:
        """Close the view."""
        self.view.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The view's attribute, once per lane."""
        return [getattr(self.view, attr_name, None) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the view."""
        setattr(self.view, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of the view; `action_masks` gives each lane its own row."""
        result = getattr(self.view, method_name)(*args, **kwargs)
        return [result[i] for i in self._get_indices(indices)]

    def has_attr(self, attr_name: str) -> bool:
        """Whether the view has it."""
        return hasattr(self.view, attr_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Iterable[int] | int | None = None) -> list[bool]:
        """No lane is wrapped by itself."""
        return [False for _ in self._get_indices(indices)]
