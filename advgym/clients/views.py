"""The edit view: the core as an ordinary MDP for RL. One edit, or one field increment, on top of the current state.

A second edit of the same key replaces or undoes the first; the edit budget bounds the net set; only queries end the
episode. Tables of more than 2**16 cells get the two-step view: the site first, then the choice.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from advgym.clients.render import check_mode, frames, lines, modes
from advgym.clients.window import Window
from advgym.core.edits import FLAT, EditsBatch
from advgym.core.env import AttackEnv
from advgym.core.lanes import Obs
from advgym.core.moves import choice_moves, edit_mask, site_moves
from advgym.core.spaces import LazyBox, stretch
from advgym.errors import AdvgymError, Malformed
from advgym.factory import make

SHOWN = 4  # lanes in a window
_PER_STATE = ("evaluated", "valid", "distance", "output", "success", "scores", "objective", "surrogate", "risk")


def make_vector(
    num_envs: int = 1, *, task: str, autoreset: str = "same-step", output: str = "numpy",
    render_mode: str | None = None, **options: Any,
) -> EditView:  # fmt: skip
    """The edit view of a task by name, as `gymnasium.make_vec` calls it.

    Args:
        render_mode: "ansi" or "rgb_array": what `render` gives, one of each lane; "human" shows the first lanes.
        options: as for `advgym.make`.
    """
    check_mode(render_mode)
    return edit_view(make(task, lanes=num_envs, autoreset=autoreset, output=output, **options), render_mode)


def edit_view(env: AttackEnv, render_mode: str | None = None) -> EditView:
    """The view that fits: increments for Fields, a flat table up to 2**16 cells, else two steps."""
    if env.proposals is not None:
        raise AdvgymError("the edit view makes one proposal per lane: use proposals=None")
    batch = env._prototype
    if isinstance(batch, EditsBatch) and batch.sites * batch.choices > FLAT:
        return TwoStepView(env, render_mode)
    return EditView(env, render_mode)


def most_steps(env: AttackEnv) -> int:
    """The most steps that an episode of the edit view takes; in two steps there are two to an edit."""
    batch = env._prototype
    two = isinstance(batch, EditsBatch) and batch.sites * batch.choices > FLAT
    return env._task.threat.queries * (1 + two)


class EditView(gym.vector.VectorEnv):
    """One edit or increment per lane and step.

    Actions: Discrete(sites * choices) for Edits (cell = site * choices + choice); a Box in [-1, 1] for Fields, in
    units of the ball's radius. Illegal edits are charged, move nothing and earn nothing. The observation is the core's,
    at the current state, scalars as (1,), with `action_mask` for Edits; the mask also comes as `info["action_mask"]`
    and from `action_masks()`.
    """

    def __init__(self, env: AttackEnv, render_mode: str | None = None) -> None:
        self.env, self.num_envs = env, env.num_envs
        self.metadata = {**env.metadata, "render_modes": modes(), "render_fps": 4}
        self.autoreset_mode, self.render_mode = env.autoreset_mode, render_mode
        self._window: Window | None = None
        self.numpy, env.output = env.output == "numpy", "torch"
        self.device, self.edits = env.device, env.kind == "edits"
        self._prototype = env._prototype
        self.single_action_space, self.action_space = self._actions(), self._actions((self.num_envs,))
        self.single_observation_space = self._observations(())
        self.observation_space = self._observations((self.num_envs,))
        self.closed = False
        self.state: Tensor

    # -- spaces ----------------------------------------------------------------------------------------------
    def _cells(self) -> int:
        batch = self._prototype
        assert isinstance(batch, EditsBatch)
        return batch.sites * batch.choices

    def _actions(self, lead: tuple[int, ...] | None = None) -> gym.Space[Any]:
        if not self.edits:
            return LazyBox(-1, 1, (*(lead or ()), *self._prototype.shape), np.float32)
        cells = self._cells()
        return gym.spaces.Discrete(cells) if lead is None else gym.spaces.MultiDiscrete(np.full(lead, cells))

    def _observations(self, lead: tuple[int, ...]) -> gym.spaces.Dict:
        out = dict(stretch(self.env.single_observation_space, lead, (1,)).items())
        for name, (shape, dtype, low, high) in self._extra().items():
            out[name] = LazyBox(low, high, (*lead, *shape), dtype)
        return gym.spaces.Dict(out)

    def _extra(self) -> dict[str, tuple[tuple[int, ...], Any, float, float]]:
        return {"action_mask": ((self._cells(),), np.int8, 0, 1)} if self.edits else {}

    # -- episodes --------------------------------------------------------------------------------------------
    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """As the core's; every reset lane is at the clean sample."""
        options = dict(options or {})
        mask = options.get("reset_mask")
        obs, info = self.env.reset(seed=seed, options=options)
        null = self.env.threat.null()
        if mask is None:
            self.state, self._last = null, obs
        else:
            where = torch.as_tensor(mask, device=self.device)
            self._start(where, null, obs)
        return self._out(self._last, info)

    def _start(self, where: Tensor, null: Tensor, first: Obs) -> None:
        self.state = torch.where(_wide(where, null), null, self.state)
        self._last = {k: torch.where(_wide(where, v), v, self._last[k]) for k, v in first.items()}

    def step(self, actions: Any) -> tuple[Obs, Any, Any, Any, dict[str, Any]]:
        """Compose, evaluate, move where the result is valid."""
        move, able = self._compose(actions)
        return self._play(move, able)

    def _play(self, move: Tensor, able: Tensor | None) -> tuple[Obs, Any, Any, Any, dict[str, Any]]:
        env = self.env
        live = env.live
        first = env._first()
        obs, reward, terminated, truncated, info = env.step(move)
        final = info.pop("final_obs", None)
        seen: Obs = (
            obs if final is None else {k: torch.where(_wide(terminated, v), final[k], v) for k, v in obs.items()}
        )
        moved = live & seen["valid"]
        if able is not None:
            moved = moved & able
        self.state = torch.where(_wide(moved, move), move, self.state)
        null = moved & ~seen["evaluated"]  # back at clean, whose answer is known and free
        fresh = dict(seen)
        for name in _PER_STATE:
            if name in seen:
                value = torch.where(_wide(null, seen[name]), first[name].to(seen[name].dtype), seen[name])
                fresh[name] = torch.where(_wide(moved, value), value, self._last[name].to(value.dtype))
        fresh["perturbation"] = self.state
        self._last = fresh
        if final is not None:
            over = torch.as_tensor(info["_final_obs"], device=self.device)
            info["final_obs"] = self._out(fresh, {})[0]
            self._start(over, env.threat.null(), obs)
        out, info = self._out(self._last, info)
        if self.numpy:
            return out, reward.cpu().numpy(), terminated.cpu().numpy(), truncated.cpu().numpy(), info
        return out, reward, terminated, truncated, info

    def _compose(self, actions: Any) -> tuple[Tensor, Tensor | None]:
        """(the proposal, where it is an edit at all)."""
        action = torch.as_tensor(actions, device=self.device)
        if not self.edits:
            if tuple(action.shape) != self.action_space.shape or not action.dtype.is_floating_point:
                raise Malformed(
                    f"actions are float32 {self.action_space.shape}, not {action.dtype} {tuple(action.shape)}"
                )
            reach = self.env.threat.reach
            step = action.to(torch.float32).clamp(-1, 1) * _wide(reach, action)
            return self.env.threat.project(self.state + step), None
        if tuple(action.shape) != (self.num_envs,) or action.dtype.is_floating_point:
            raise Malformed(f"actions are integers ({self.num_envs},), not {action.dtype} {tuple(action.shape)}")
        if bool(((action < 0) | (action >= self._cells())).any()):
            raise Malformed(f"actions are cells in [0, {self._cells()}), not {action.tolist()}")
        batch = self._prototype
        assert isinstance(batch, EditsBatch)
        edit = torch.stack([action // batch.choices, action % batch.choices], 1)
        return self._with(edit)

    def _with(self, edit: Tensor) -> tuple[Tensor, Tensor]:
        """Compose; where there is no room for one more row the illegal set is proposed as the edit twice."""
        move = self.env.threat.compose(self.state, edit)
        stuck = (move == self.state).flatten(1).all(1)
        if bool(stuck.any()):
            move = move.clone()
            move[stuck, 0] = move[stuck, 1] = edit[stuck] if move.shape[1] > 1 else -2
        return move, ~stuck

    # -- what clients read -----------------------------------------------------------------------------------
    def _mask(self) -> Tensor | None:
        if not self.edits:
            return None
        batch = self.env._batch
        assert isinstance(batch, EditsBatch)
        return edit_mask(batch, self.state).flatten(1)

    def _out(self, obs: Obs, info: dict[str, Any]) -> tuple[Obs, dict[str, Any]]:
        obs = {k: v.unsqueeze(1) if v.dim() == 1 else v for k, v in obs.items()}
        obs["perturbation"] = self.state
        mask = self._mask()
        if mask is not None:
            obs["action_mask"] = mask.to(torch.int8)
            info = {**info, "action_mask": _array(obs["action_mask"])}
        if self.numpy:
            obs = {k: _array(v) for k, v in obs.items()}
            if "final_info" in info:
                info = {**info, "final_info": {k: _array(v) for k, v in info["final_info"].items()}}
        return obs, info

    def action_masks(self) -> np.ndarray:
        """Bool (lanes, actions), the custom of sb3-contrib."""
        self.env._check_ready()
        mask = self._mask()
        if mask is None:
            raise AdvgymError("Fields have no action mask")
        return _array(mask)

    def render(self) -> tuple[Any, ...] | None:
        """By `render_mode`: text (also without one) or a frame of each lane; None where a window shows them."""
        if self.render_mode == "rgb_array":
            return frames(self)
        if self.render_mode != "human":
            return lines(self)
        several = frames(self)[:SHOWN]
        wide = min(2, len(several))
        several += (np.full_like(several[0], 255),) * (-len(several) % wide)
        grid = np.concatenate([np.concatenate(several[i : i + wide], 1) for i in range(0, len(several), wide)])
        self._window = self._window or Window(self.env._task.name)
        self._window.show(grid)
        return None

    def close(self, **kwargs: Any) -> None:
        """Close the window, if there is one; nothing else is held open."""
        if self._window is not None:
            self._window.close()
        self._window, self.closed = None, True

    def __copy__(self) -> EditView:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        """Made again from what it was made from: no labels and no weights cross over, and no episode goes on."""
        output, mode = "numpy" if self.numpy else "torch", self.render_mode
        return again, (self.env._recipe()[1], output, mode)


def again(recipe: dict[str, Any], output: str, render_mode: str | None) -> EditView:
    """An edit view from its arguments, before its first reset."""
    return edit_view(make(**{**recipe, "output": output}), check_mode(render_mode))


class TwoStepView(EditView):
    """The edit view in two steps: even steps pick a site at no cost, odd steps pick the choice, which is evaluated.

    Action: Discrete(max(sites, choices)). The observation adds `phase` and the picked `site` (-1 in phase 0).
    """

    def __init__(self, env: AttackEnv, render_mode: str | None = None) -> None:
        if env.autoreset_mode is AutoresetMode.DISABLED:
            self._partial = True
        self.site = torch.full((env.num_envs,), -1, device=env.device)
        super().__init__(env, render_mode)

    def _cells(self) -> int:
        batch = self._prototype
        assert isinstance(batch, EditsBatch)
        return max(batch.sites, batch.choices)

    def _extra(self) -> dict[str, tuple[tuple[int, ...], Any, float, float]]:
        return {**super()._extra(), "phase": ((1,), np.int64, 0, 1), "site": ((1,), np.int64, -1, self._cells() - 1)}

    @property
    def phase(self) -> int:
        """0: sites are picked; 1: choices. All lanes are in step."""
        return int(self._choosing)

    _choosing = False

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """As the core's. A partial reset is taken between edits only."""
        if (options or {}).get("reset_mask") is not None and self._choosing:
            raise AdvgymError("a partial reset comes between edits: pick the choice first")
        self._choosing, self.site = False, torch.full_like(self.site, -1)
        return super().reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Obs, Any, Any, Any, dict[str, Any]]:
        """Pick a site, or pick the choice and evaluate."""
        action = torch.as_tensor(actions, device=self.device)
        if tuple(action.shape) != (self.num_envs,) or action.dtype.is_floating_point:
            raise Malformed(f"actions are integers ({self.num_envs},), not {action.dtype} {tuple(action.shape)}")
        if bool(((action < 0) | (action >= self._cells())).any()):
            raise Malformed(f"actions are in [0, {self._cells()}), not {action.tolist()}")
        batch = self._prototype
        assert isinstance(batch, EditsBatch)
        if not self._choosing:
            self._choosing, self.site = True, action
            out, info = self._out(self._last, {})
            zero = torch.zeros(self.num_envs, device=self.device)
            over = ~self.env.live
            if self.numpy:
                return out, zero.numpy(force=True), over.numpy(force=True), np.zeros(self.num_envs, np.bool_), info
            return out, zero, over, torch.zeros_like(over), info
        edit = torch.stack([self.site, action], 1)
        self._choosing, self.site = False, torch.full_like(self.site, -1)
        # A pick beyond the table stays an edit that does not exist: charged, not evaluated.
        known = (edit[:, 0] < batch.sites) & (edit[:, 1] < batch.choices)
        move, able = self._with(torch.where(known.unsqueeze(1), edit, 0))
        return self._play(torch.where(known.view(-1, 1, 1), move, -2), able & known)

    def _mask(self) -> Tensor:
        batch = self.env._batch
        assert isinstance(batch, EditsBatch)
        if self._choosing:
            some = choice_moves(batch, self.state, self.site.clamp(0, batch.sites - 1))
            some = some & (self.site < batch.sites).unsqueeze(1)
        else:
            some = site_moves(batch, self.state)
        out = torch.zeros(self.num_envs, self._cells(), dtype=torch.bool, device=self.device)
        out[:, : some.shape[1]] = some
        return out

    def _out(self, obs: Obs, info: dict[str, Any]) -> tuple[Obs, dict[str, Any]]:
        obs, info = super()._out(obs, info)
        phase = torch.full((self.num_envs, 1), int(self._choosing), device=self.device)
        extra = {"phase": phase, "site": self.site.unsqueeze(1)}
        return {**obs, **({k: _array(v) for k, v in extra.items()} if self.numpy else extra)}, info


def _array(value: Any) -> np.ndarray:
    """A copy: clients write into what they are given (they normalise it in place), and must not reach the state."""
    out: np.ndarray = value.detach().cpu().numpy().copy() if isinstance(value, Tensor) else np.array(value)
    return out


def _wide(where: Tensor, like: Tensor) -> Tensor:
    return where.view(-1, *[1] * (like.dim() - 1))
