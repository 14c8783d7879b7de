"""What every client sees of the running lanes: spaces, observations, and the free, public functions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.edits import EditsBatch, Table
from advgym.core.episodes import Episodes
from advgym.core.meters import REASONS, Book
from advgym.core.oracle import Oracle
from advgym.core.rng import Draws
from advgym.core.spaces import LazyBox, action_box, observation_boxes, stretch
from advgym.core.task import Task
from advgym.core.threat import Threat
from advgym.errors import AdvgymError, Malformed

Obs = dict[str, Any]
# What is kept once it was asked for, of these lanes and so many proposals: a view asks anew.
OF_LANES = ("_lane_rows", "_found", "_quiet", "threat", "action_space", "observation_space", "single_action_space",
            "single_observation_space", "_source")  # fmt: skip


def _again(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """An environment from what made it."""
    return function(**arguments)


class Lanes(gym.vector.VectorEnv):
    """The reading side of `AttackEnv`: nothing here asks the victim or spends anything."""

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012
    render_mode = None

    num_envs: int
    proposals: int | None
    output: str
    autoreset_mode: AutoresetMode
    device: torch.device
    _task: Task
    _split: str
    _width: int
    _lanes: Tensor | None  # of a view: which lanes of the book it plays
    _oracle: Oracle
    _now: Episodes
    _ready: bool
    _found: tuple[Tensor, Tensor] | None = None  # some `live`, and which lanes run by it
    _source: tuple[Callable[..., Any], dict[str, Any]] | None = None  # what made it by name, and with what

    # -- what it is ------------------------------------------------------------------------------------------
    @property
    def _batch(self) -> Batch:
        return self._now.batch

    @property
    def _book(self) -> Book:
        return self._now.book

    @cached_property
    def _prototype(self) -> Batch:
        return self._batch if self._ready else self._task.samples(self._split, [0], self.device)

    @property
    def kind(self) -> str:
        """Either "field" or "edits"."""
        return self._prototype.kind

    @property
    def knowledge(self) -> str:
        """What this environment tells: "transfer", "decision", "score" or "white-box"."""
        return self._task.threat.knowledge

    @property
    def keyed(self) -> bool:
        """Whether the victim draws at random: the same input asked again is then answered anew."""
        return bool(self._oracle.model.keyed)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one perturbation."""
        return self._prototype.shape

    @property
    def context(self) -> Any:
        """What is public beside the samples: a graph, a vocabulary ..."""
        return self._task.context

    def _per(self) -> tuple[int, ...]:
        return () if self.proposals is None else (self.proposals,)

    @cached_property
    def single_action_space(self) -> LazyBox:  # type: ignore[override]
        return action_box(self._prototype, self._per())

    @cached_property
    def action_space(self) -> LazyBox:  # type: ignore[override]
        return action_box(self._prototype, (self.num_envs, *self._per()))

    @cached_property
    def single_observation_space(self) -> gym.spaces.Dict:  # type: ignore[override]
        risk = self._oracle.model.risk is not None
        return gym.spaces.Dict({**observation_boxes(self._task, self._prototype, self._per(), risk=risk)})

    @cached_property
    def observation_space(self) -> gym.spaces.Dict:  # type: ignore[override]
        return stretch(self.single_observation_space, (self.num_envs,))

    # -- observations ----------------------------------------------------------------------------------------
    def _feedback(self, evaluated: Tensor, valid: Tensor, distance: Tensor, answer: dict[str, Tensor]) -> Obs:
        obs: Obs = {"evaluated": evaluated, "valid": valid, "distance": distance}
        names = ["output", "success"]
        if self._task.threat.knowledge != "decision":
            names += ["scores", "objective", "surrogate", *(["risk"] if "risk" in answer else [])]
        for name in names:
            obs[name] = answer[name]
        if self.proposals is not None:
            lead = (self.num_envs, self._width)
            obs = {k: v.view(*lead, *v.shape[1:]) for k, v in obs.items()}
        return self._with_state(obs)

    def _with_state(self, obs: Obs) -> Obs:
        # Copies: what a client writes into its observation reaches neither the meters nor what is held.
        book = self._book
        obs["queries_left"], obs["gradients_left"] = self._mine(
            torch.stack([book.queries_left, book.gradients_left]), 1
        )
        obs["perturbation"] = self._mine(book.held).clone()
        if self._now.target is not None:
            obs["target"] = self._mine(self._now.target).clone()
        for name, value in self._view.items():
            obs[name] = self._mine(value).clone()
        return obs

    @cached_property
    def _view(self) -> dict[str, Tensor]:
        return self._batch.view()

    def _first(self) -> Obs:
        """What reset shows: the victim's clean answer, at no cost."""
        now, n = self._now, self.num_envs
        no = torch.zeros(n, dtype=torch.bool, device=self.device)
        answer = {"scores": now.scores, "objective": now.objective, "surrogate": now.surrogate, "output": now.ref}
        answer = {k: self._mine(v) for k, v in answer.items()} | {"success": no}
        if self._oracle.model.risk is not None:
            answer["risk"] = torch.zeros(n, device=self.device)
        wide = {k: v.repeat_interleave(self._width, 0) for k, v in answer.items()}
        no = no.repeat_interleave(self._width, 0)
        return self._feedback(no, ~no, torch.zeros(len(no), device=self.device), wide)

    def _info(self, over: Tensor | None) -> dict[str, Any]:
        """Empty, but for the lanes that have just finished: `final_info` and its mask."""
        if over is None:
            return {}
        book = self._book
        values = {
            "sample": self._batch.ids, "success": book.success, "perturbation": book.held,
            "distance": self._batch.look(book.held).distance,
            "queries": book.used,
            "gradients": self._task.threat.gradients - book.gradients_left,
        }  # fmt: skip
        final = self._present({k: self._mine(v) for k, v in values.items()})
        mask = over.cpu().numpy()
        final["reason"] = np.array(REASONS)[self._mine(book.reason).cpu().numpy()]
        return {"final_info": final, "_final_info": mask}

    # -- more of the same lanes ------------------------------------------------------------------------------
    def view(self, lanes: Any = None, proposals: int | None = None) -> Self:
        """The same lanes from clean again, with the same meters and best so far: restarts, cascades, inner attacks.

        Args:
            lanes: bool (lanes,), or indices into this environment's lanes, each once and ascending; None for all.
            proposals: perturbations per lane and step in the view.
        """
        if not self._ready:
            self.reset()
        every = torch.arange(self.num_envs, device=self.device)
        chosen = every if lanes is None else torch.as_tensor(lanes, device=self.device)
        if chosen.dtype == torch.bool and chosen.shape == every.shape:
            chosen = chosen.nonzero().squeeze(1)
        whole = chosen.dim() == 1 and chosen.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
        if not whole or not len(chosen) or chosen.min() < 0 or chosen.max() >= self.num_envs:
            raise Malformed(f"a view takes at least one lane: indices below {self.num_envs}, or as many bools")
        chosen = chosen.long()
        if not bool((chosen[1:] > chosen[:-1]).all()):  # the oracle's keys and meters count on the order
            raise Malformed(
                f"a view's lanes ascend, each once: {sorted(set(chosen.tolist()))}, not {chosen.tolist()}; its rows "
                "are in that order"
            )
        twin = copy.copy(self)
        for name in OF_LANES:
            vars(twin).pop(name, None)
        twin._lanes = chosen if self._lanes is None else self._lanes[chosen]
        twin.proposals, twin._width = proposals, proposals or 1
        twin.num_envs = len(chosen)
        twin.autoreset_mode = AutoresetMode.DISABLED
        twin.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.DISABLED}
        return twin

    # -- small things ----------------------------------------------------------------------------------------
    def _check_ready(self) -> None:
        if not self._ready:
            raise gym.error.ResetNeeded("call reset before step")
        if self._now is not self._oracle.episodes:
            raise AdvgymError("the episodes of this view are over: its environment was reset; take another view")

    @cached_property
    def _lane_rows(self) -> Tensor:
        """The lane of every row of a step, in order."""
        lanes = torch.arange(self.num_envs, device=self.device) if self._lanes is None else self._lanes
        return lanes.repeat_interleave(self._width)

    def _mine(self, values: Tensor, axis: int = 0) -> Tensor:
        return values if self._lanes is None else values.index_select(axis, self._lanes)

    @cached_property
    def _quiet(self) -> Tensor:
        """Evaluated, success, terminated, truncated, bool (4, lanes), of a step in which every lane runs and fails."""
        return torch.tensor([[True], [False], [False], [False]], device=self.device).repeat(1, self.num_envs)

    def _live(self) -> Tensor:
        return self._mine(self._now.book.live)

    def _running(self) -> Tensor:
        """Which lanes run, int64. The device is asked once for each `live`, which is replaced and never written."""
        live = self._now.book.live
        if self._found is None or self._found[0] is not live:
            self._found = live, self._mine(live).nonzero().squeeze(1)
        return self._found[1]

    def _present(self, obs: Obs) -> Obs:
        if self.output == "torch":
            return obs
        return {k: v.detach().cpu().numpy() if isinstance(v, Tensor) else v for k, v in obs.items()}

    @property
    def done(self) -> bool:
        """All lanes have finished."""
        self._check_ready()
        return not len(self._running())

    @property
    def live(self) -> Tensor:
        """Bool (lanes,): those that still run."""
        self._check_ready()
        return self._live().clone()

    @property
    def asks_left(self) -> Tensor:
        """int64 (lanes,): proposals that each lane may still ask about (a query each; of bundles one per member)."""
        self._check_ready()
        return self._mine(self._book.queries_left) // self._book.price

    @cached_property
    def threat(self) -> Threat:
        """The threat model's pure functions, over the lanes of this environment."""
        self._check_ready()
        return Threat(self._batch, self._lanes, self._task.threat)

    @property
    def table(self) -> Table:
        """The choices of every lane (Edits)."""
        self._check_ready()
        if not isinstance(self._batch, EditsBatch):
            raise AdvgymError(f"{self._task.name} takes Fields; only Edits have a table")
        return Table(self._batch, self._lanes)

    def draws(self, seed: int) -> Draws:
        """Random numbers keyed by (seed, sample, call): the same for a sample whichever lane it runs in."""
        self._check_ready()
        return Draws(seed, self._mine(self._batch.ids))

    def render(self) -> tuple[str, ...]:
        """One line per lane: what its held perturbation does."""
        self._check_ready()
        line = self._task.line
        look = self._batch.look(self._book.held)
        lanes = range(len(self._batch)) if self._lanes is None else self._lanes.tolist()
        name = line or (lambda batch, i, form: f"sample {int(batch.ids[i])}")
        return tuple(name(self._batch, i, look.form[i]) for i in lanes)

    def _recipe(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        """What makes it again.

        Raises:
            AdvgymError: for a view, and for an environment of a task that was handed in as an object.
        """
        if self._source is None:
            raise AdvgymError(
                "this environment cannot be pickled: it is a view, or its task is an object; make it by name with "
                "advgym.make or gymnasium.make"
            )
        return self._source

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        """Made again from its arguments: no label and no budget crosses over, and no episode goes on."""
        return _again, self._recipe()

    def __repr__(self) -> str:
        return f"advgym.make({self._task.name!r}, lanes={self.num_envs}, proposals={self.proposals})"
