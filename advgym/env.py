"""The core: every live lane proposes whole perturbations, all of them go through the victim in one forward."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from advgym.batch import Batch, Look
from advgym.book import REASONS, Book
from advgym.clean import Clean, Deck
from advgym.edits import EditsBatch, Table
from advgym.episodes import Episodes, deal
from advgym.errors import AdvgymError, Malformed, unknown
from advgym.goals import SUCCESS
from advgym.oracle import Oracle
from advgym.rng import Draws
from advgym.settle import settle
from advgym.spaces import LazyBox, action_box, observation_boxes, stretch
from advgym.task import Task
from advgym.threat import Threat
from advgym.victim import resolve_device

Obs = dict[str, Any]
AUTORESET = {"disabled": AutoresetMode.DISABLED, "same-step": AutoresetMode.SAME_STEP}


class AttackEnv(gym.vector.VectorEnv):  # type: ignore[misc]
    """A task's victim under attack, many lanes at once. Made by `make`; agents use what DESIGN calls the contract.

    Public beside Gymnasium's own: `threat`, `table`, `context`, `draws`, `rank`, `append`, `victim`, `view`, `done`,
    `kind`, `knowledge`, `proposals`.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012
    render_mode = None

    def __init__(
        self, task: Task, lanes: int = 1, proposals: int | None = None, *, split: str = "test", device: Any = "cpu",
        output: str = "torch", autoreset: str = "disabled", assigned: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        if output not in ("torch", "numpy"):
            raise unknown("output", output, ("torch", "numpy"))
        if autoreset not in AUTORESET:
            raise unknown("autoreset", autoreset, AUTORESET)
        for name, value in (("lanes", lanes), ("proposals", proposals)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise AdvgymError(f"{name} is a whole number of at least 1, not {value!r}")
        self.device, self.output, self.proposals = resolve_device(device), output, proposals
        self.autoreset_mode = AUTORESET[autoreset]
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self._task, self._split = task, task.check_split(split)
        self._width = proposals or 1
        judge = task.victim.on(self.device)
        self._transfer = task.threat.knowledge == "transfer"
        model = task.surrogate.on(self.device) if self._transfer and task.surrogate else judge
        self._oracle = Oracle(task, model)
        self._clean = Clean(task, split, self.device, model, judge if self._transfer else None)
        self._assigned = None if assigned is None else [int(i) for i in assigned]
        self.num_envs = lanes if self._assigned is None else len(self._assigned)
        self._lanes: Tensor | None = None  # of a view: which lanes of the book it plays
        self._deck: Deck | None = None
        self._now: Episodes
        self._ready = False
        self.closed = False

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

    # -- episodes --------------------------------------------------------------------------------------------
    def reset(  # type: ignore[override]
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Deal samples that the victim has right; every lane starts from clean.

        Args:
            seed: of the dealing order; the same seed deals the same samples. None goes on.
            options: "samples": ids in place of dealing (those the victim has wrong arrive finished); "targets": one per
                lane, for targeted goals; "reset_mask": bool (lanes,), restart only these (autoreset disabled).

        Where an evaluator has fixed the samples, and in a view, nothing is dealt and nothing refunded.
        """
        options = dict(options or {})
        for name in options:
            if name not in ("samples", "targets", "reset_mask"):
                raise unknown("reset option", name, ("samples", "targets", "reset_mask"))
        if self._lanes is not None or (self._assigned is not None and self._ready):
            self._check_ready()
            return self._present(self._first()), self._info(None)
        if self._assigned is not None:
            options = {}
        if seed is not None or self._deck is None:
            self._deck = Deck(self._clean, 0 if seed is None else int(np.ravel(seed)[0]))
        mask = options.get("reset_mask")
        everyone = torch.arange(self.num_envs, device=self.device)
        lanes = everyone
        if mask is not None:
            chosen = torch.as_tensor(mask, device=self.device)
            if chosen.shape != (self.num_envs,) or chosen.dtype != torch.bool or not bool(chosen.any()):
                raise Malformed(f"reset_mask is bool ({self.num_envs},) with at least one True")
            if not self._ready:
                raise AdvgymError("the first reset deals every lane: call it without reset_mask")
            lanes = everyone[chosen]
        named = self._assigned if self._assigned is not None else options.get("samples")
        ids = self._deck.deal(len(lanes)) if named is None else [int(i) for i in named]
        if len(ids) != len(lanes):
            raise AdvgymError(f"{len(lanes)} lanes are reset, but {len(ids)} samples are named")
        self._deal(lanes, ids, options.get("targets"), seed=self._deck.seed)
        return self._present(self._first()), self._info(None)

    def _deal(self, lanes: Tensor, ids: list[int], targets: Any, seed: int) -> None:
        """New episodes in `lanes`; the other lanes stay as they are."""
        new = deal(self._task, self._clean, self._split, ids, targets, seed, self.device)
        if len(lanes) == self.num_envs:
            self._now = self._oracle.episodes = new
        else:
            self._now.put(lanes, new)
        self._ready = True
        for stale in ("_view", "threat", "_prototype"):
            self.__dict__.pop(stale, None)

    def close(self, **kwargs: Any) -> None:
        """Nothing is held open."""
        self.closed = True

    # -- the step --------------------------------------------------------------------------------------------
    def step(self, actions: Any) -> tuple[Obs, Any, Any, Any, dict[str, Any]]:
        """One proposal (or P of them) per live lane, one forward of the victim.

        Args:
            actions: (lanes, [P,] *shape) float32 or int64; for Edits also a pair (edits, weights) whose weights
                (lanes, [P,] E) in [0, 1] require grad. A Field that requires grad keeps its graph.

        Raises:
            Malformed: for a wrong shape or dtype. Everything else is charged and answered as the contract says.
        """
        self._check_ready()
        p, weights = self._read(actions)
        book, width = self._book, self._width
        live = self._live()
        lane = self._lane_rows
        rows = None if self._lanes is None and width == 1 else lane
        look = self._batch.look(p, rows)
        if weights is not None:
            look = _relax(look, p, weights)
        probe = None if self._task.threat.probes else getattr(self._batch, "probe", None)
        if probe is not None:  # this threat model forbids them
            look = look._replace(real=look.real & ~p[..., 1].eq(probe).any(1))
        asks = p.requires_grad or weights is not None
        wanted = live.repeat_interleave(width) if width > 1 else live
        if not asks:  # the null perturbation is known and free, unless its gradient is asked for
            wanted = wanted & ~look.null
        if width > 1:  # where fewer than P queries are left, the first ones are evaluated
            wanted = _first(wanted.view(-1, width), self._mine(book.queries_left)).view(-1)
        evaluated = wanted & look.real
        every = bool(evaluated.all())
        book.spend(self._lanes, wanted, lane, look.digest, every=every)
        answer = self._oracle.ask(look, weights, lane, rows, None if every else evaluated, grad=asks)
        objective = answer["objective"].detach()
        won = evaluated & (objective > SUCCESS)  # the goal is reached there; it counts only where it is valid too
        if self._oracle.model.keyed:  # random draws make no attack of a clean input
            won = won & ~look.null
        if "risk" in answer:
            won = won & (answer["risk"] < self._oracle.model.threshold)
        answer["success"] = won
        held = self._batch.proposal(look.form.detach(), rows)
        reward = settle(book, self._lanes, width, look.valid & evaluated, won, objective, look.distance, held)
        obs = self._feedback(evaluated, look.valid, look.distance, answer)
        over = book.finish(self._lanes)
        terminated = ~self._live()
        info: dict[str, Any] = {}
        if over is not None:
            over = self._mine(over)
            info = self._info(over)
            if self.autoreset_mode is AutoresetMode.SAME_STEP:
                obs, info = self._autoreset(obs, over, info)
        if self.output == "numpy":
            truncated = np.zeros(self.num_envs, dtype=np.bool_)
            return self._present(obs), reward.cpu().numpy(), terminated.cpu().numpy(), truncated, info
        return obs, reward, terminated, torch.zeros_like(terminated), info

    def _read(self, actions: Any) -> tuple[Tensor, Tensor | None]:
        """The action as a flat (lanes * P, *shape) tensor on the device; raises on anything else."""
        weights = None
        batch = self._batch
        if batch.kind == "edits" and isinstance(actions, tuple) and len(actions) == 2:
            actions, weights = actions
        want = (self.num_envs, *self._per(), *batch.shape)
        try:
            p = actions if isinstance(actions, Tensor) else torch.as_tensor(np.asarray(actions))
        except (TypeError, ValueError, RuntimeError) as error:
            raise Malformed(f"a proposal is a tensor or an array of shape {want}: {error}") from None
        integral = not p.dtype.is_floating_point and not p.dtype.is_complex and p.dtype != torch.bool
        if tuple(p.shape) != want or (p.dtype.is_floating_point if batch.kind == "field" else integral) is False:
            kind = "float32" if batch.kind == "field" else "int64"
            raise Malformed(f"a proposal is {kind} {want}, not {str(p.dtype).removeprefix('torch.')} {tuple(p.shape)}")
        p = p.to(self.device, torch.float32 if batch.kind == "field" else torch.int64)
        if self.proposals is not None:
            p = p.reshape(-1, *batch.shape)
        if self._task.threat.knowledge not in ("white-box", "transfer") and (p.requires_grad or weights is not None):
            raise Malformed(f"knowledge is {self.knowledge!r}: a proposal that requires grad needs 'white-box'")
        if weights is not None:
            if not isinstance(weights, Tensor) or tuple(weights.shape) != want[:-1]:
                raise Malformed(f"weights are a float32 tensor {want[:-1]}")
            weights = weights.reshape(-1, batch.shape[0]).to(self.device)
        return p, weights

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
        obs["queries_left"] = self._mine(self._book.queries_left).clone()
        obs["gradients_left"] = self._mine(self._book.gradients_left).clone()
        obs["perturbation"] = self._mine(self._book.held).clone()
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

    def _autoreset(self, obs: Obs, over: Tensor, info: dict[str, Any]) -> tuple[Obs, dict[str, Any]]:
        """Same-step: the lanes that are over show their last observation in the info and start anew."""
        assert self._deck is not None
        final = self._present({k: v.detach() for k, v in obs.items()})
        lanes = over.nonzero().squeeze(1)
        self._deal(lanes, self._deck.deal(len(lanes)), None, self._deck.seed)
        first = self._first()
        merged = {k: torch.where(over.view(-1, *[1] * (v.dim() - 1)), first[k], v) for k, v in obs.items()}
        mask = over.cpu().numpy()
        return merged, {**info, "final_obs": final, "_final_obs": mask}

    def _info(self, over: Tensor | None) -> dict[str, Any]:
        """Empty, but for the lanes that have just finished: `final_info` and its mask."""
        if over is None:
            return {}
        book = self._book
        values = {
            "sample": self._batch.ids, "success": book.success, "perturbation": book.held,
            "distance": self._batch.look(book.held).distance,
            "queries": self._task.threat.queries - book.queries_left,
            "gradients": self._task.threat.gradients - book.gradients_left,
        }  # fmt: skip
        final = self._present({k: self._mine(v) for k, v in values.items()})
        mask = over.cpu().numpy()
        final["reason"] = np.array(REASONS)[self._mine(book.reason).cpu().numpy()]
        return {"final_info": final, "_final_info": mask}

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

    def _mine(self, values: Tensor) -> Tensor:
        return values if self._lanes is None else values[self._lanes]

    def _live(self) -> Tensor:
        return self._mine(self._now.book.live)

    def _present(self, obs: Obs) -> Obs:
        if self.output == "torch":
            return obs
        return {k: v.detach().cpu().numpy() if isinstance(v, Tensor) else v for k, v in obs.items()}

    @property
    def done(self) -> bool:
        """All lanes have finished."""
        self._check_ready()
        return not bool(self._live().any())

    @property
    def live(self) -> Tensor:
        """Bool (lanes,): those that still run."""
        self._check_ready()
        return self._live()

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

    # -- more of the victim ----------------------------------------------------------------------------------
    def rank(self, perturbation: Any = None, cotangent: Tensor | None = None, k: int = 1) -> tuple[Tensor, Tensor]:
        """The k best single edits by first order on top of `perturbation`, tiled so that no table is ever dense.

        Costs each live lane one query and one gradient. `cotangent` (lanes, *scores) replaces the surrogate's gradient.

        Returns:
            int64 (lanes, k, 2) and gains float32 (lanes, k); -1 and -inf where there are fewer, or a lane is finished.
        """
        self._check_ready()
        if not isinstance(self._batch, EditsBatch):
            raise AdvgymError("rank is for Edits; a Field takes its gradient from step")
        if self.knowledge not in ("white-box", "transfer"):
            raise AdvgymError(f"rank needs white-box knowledge; this environment gives {self.knowledge!r}")
        p = self.threat.null() if perturbation is None else torch.as_tensor(perturbation, device=self.device)
        want = (self.num_envs, *self.shape)
        if tuple(p.shape) != want or p.dtype != torch.int64:
            raise Malformed(f"a perturbation is int64 {want}, not {p.dtype} {tuple(p.shape)}")
        want = (self.num_envs, *self._task.goal.scores_shape)
        if cotangent is not None and tuple(cotangent.shape) != want:
            raise Malformed(f"a cotangent is {want}, as the scores, not {tuple(cotangent.shape)}")
        book = self._book
        able = self._live() & (self._mine(book.queries_left) > 0) & (self._mine(book.gradients_left) > 0)
        edits = torch.full((self.num_envs, k, 2), -1, device=self.device)
        gains = torch.full((self.num_envs, k), -torch.inf, device=self.device)
        index = able.nonzero().squeeze(1)
        if len(index):
            lane = index if self._lanes is None else self._lanes[index]
            given = None if cotangent is None else cotangent[index]
            edits[index], gains[index] = self._oracle.rank(p[index], lane, given, k)
            book.finish(tell=False)
        return edits, gains

    def append(self, payload: Any) -> Tensor:
        """Open tables: one payload per lane, int64 (lanes, width), becomes a choice; the ids, -1 where it is full."""
        self._check_ready()
        if not isinstance(self._batch, EditsBatch) or not self._batch.slots:
            raise AdvgymError(f"the table of {self._task.name} is closed; a task with slots takes new choices")
        value = torch.as_tensor(payload, device=self.device)
        if value.dim() != 2 or len(value) != self.num_envs or value.dtype != torch.int64:
            raise Malformed(f"a payload is int64 ({self.num_envs}, width), not {value.dtype} {tuple(value.shape)}")
        return self._batch.append(value, self._lanes)

    def victim(self, x: Any, lanes: Any) -> Tensor:
        """The same metered model on raw inputs, for foreign libraries: one query per row, charged to `lanes`.

        Raises:
            BudgetExhausted: before anything is evaluated, when a lane has fewer queries left than rows asked.
        """
        self._check_ready()
        lane = torch.as_tensor(lanes, device=self.device).reshape(-1)
        if lane.dtype != torch.int64 or not bool(((lane >= 0) & (lane < self.num_envs)).all()):
            raise Malformed(f"lanes are integers from 0 to {self.num_envs - 1}, not {lane.tolist()}")
        lane = lane if self._lanes is None else self._lanes[lane]
        white = self.knowledge in ("white-box", "transfer") and torch.is_grad_enabled()
        scores = self._oracle.raw(x, lane, grad=white)
        self._book.finish(tell=False)
        return self._task.goal.output(scores) if self.knowledge == "decision" else scores

    def view(self, lanes: Any = None, proposals: int | None = None) -> AttackEnv:
        """The same lanes from clean again, with the same meters and best so far: restarts, cascades, inner attacks.

        Args:
            lanes: bool (lanes,) or indices into this environment's lanes, taken in ascending order; None for all.
            proposals: perturbations per lane and step in the view.
        """
        if not self._ready:
            self.reset()
        every = torch.arange(self.num_envs, device=self.device)
        chosen = every if lanes is None else torch.as_tensor(lanes, device=self.device)
        if chosen.dtype == torch.bool and chosen.shape == every.shape:
            chosen = chosen.nonzero().squeeze(1)
        chosen = torch.unique(chosen.long() if chosen.dtype != torch.bool else every[:0])
        if not len(chosen) or chosen[0] < 0 or chosen[-1] >= self.num_envs:
            raise Malformed(f"a view takes at least one lane: indices below {self.num_envs}, or as many bools")
        twin = object.__new__(AttackEnv)
        stale = (
            "_lane_rows",
            "threat",
            *(f"{kind}{name}_space" for kind in ("", "single_") for name in ("action", "observation")),
        )
        twin.__dict__.update({k: v for k, v in self.__dict__.items() if k not in stale})
        twin._lanes = chosen if self._lanes is None else self._lanes[chosen]
        twin.proposals, twin._width = proposals, proposals or 1
        twin.num_envs = len(chosen)
        twin.autoreset_mode = AutoresetMode.DISABLED
        twin.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.DISABLED}
        return twin

    def render(self) -> tuple[str, ...]:  # type: ignore[override]
        """One line per lane: what its held perturbation does."""
        self._check_ready()
        line = self._task.line
        look = self._batch.look(self._book.held)
        lanes = range(len(self._batch)) if self._lanes is None else self._lanes.tolist()
        name = line or (lambda batch, i, form: f"sample {int(batch.ids[i])}")
        return tuple(name(self._batch, i, look.form[i]) for i in lanes)

    def __repr__(self) -> str:
        return f"advgym.make({self._task.name!r}, lanes={self.num_envs}, proposals={self.proposals})"


def _first(wanted: Tensor, left: Tensor) -> Tensor:
    """The first `left` of each lane's wanted proposals: bool (lanes, P)."""
    return wanted & (wanted.cumsum(1) <= left.unsqueeze(1))


def _relax(look: Look, p: Tensor, weights: Tensor) -> Look:
    """Relaxed edits count only where every weight is 1, and are no input where one leaves [0, 1]."""
    pad, w = p[..., 0] < 0, weights.detach()
    real = look.real & (pad | ((w >= 0) & (w <= 1))).all(1)
    # The form is sorted, the weights are not: edits commute, so the proposal itself is applied.
    return look._replace(form=p, real=real, valid=look.valid & real & (pad | (w == 1)).all(1))
