"""The core: every live lane proposes whole perturbations, all of them go through the victim in one forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from advgym.core.batch import pick
from advgym.core.clean import Clean, Deck
from advgym.core.edits import EditsBatch
from advgym.core.episodes import deal
from advgym.core.field import FieldBatch
from advgym.core.goals import SUCCESS
from advgym.core.lanes import Lanes, Obs
from advgym.core.meters import NOT_ATTACKED, settle
from advgym.core.oracle import Oracle
from advgym.core.reading import bound, first_of, read_proposal, read_weights, relax
from advgym.core.task import Task
from advgym.core.victim import resolve_device
from advgym.errors import AdvgymError, Malformed, unknown
from advgym.lib.settings import check_seed

AUTORESET = {"disabled": AutoresetMode.DISABLED, "same-step": AutoresetMode.SAME_STEP}


class AttackEnv(Lanes):
    """A task's victim under attack, many lanes at once. Made by `make`; agents use what DESIGN calls the contract.

    Public beside Gymnasium's own: `threat`, `table`, `context`, `draws`, `rank`, `append`, `victim`, `view`, `done`,
    `kind`, `knowledge`, `keyed`, `proposals`.
    """

    def __init__(
        self, task: Task, lanes: int = 1, proposals: int | None = None, *, split: str = "test", device: Any = "cpu",
        output: str = "torch", autoreset: str = "disabled", assigned: Sequence[int] | None = None,
        clean: Clean | None = None,
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
        self._truth = Clean(task, split, self.device, judge) if clean is None else clean
        self._clean = self._truth if model is judge else Clean(task, split, self.device, model, self._truth)
        self._assigned = None if assigned is None else [int(i) for i in assigned]
        self.num_envs = lanes if self._assigned is None else len(self._assigned)
        self._lanes = None
        self._white = task.threat.knowledge in ("white-box", "transfer")
        self._deck: Deck | None = None
        self._ready = False
        self.closed = False

    # -- episodes --------------------------------------------------------------------------------------------
    def reset(
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
            self._deck = Deck(self._clean, 0 if seed is None else _first_seed(seed))
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
        p, weights = read_proposal(actions, self._batch, (self.num_envs, *self._per()), self.device, white=self._white)
        batch, book, width = self._now.batch, self._now.book, self._width
        live = self._live()
        lane = self._lane_rows
        rows = None if self._lanes is None and width == 1 else lane
        finite = False  # for certain, as what was projected is
        if isinstance(batch, FieldBatch) and p is actions and self._task.threat.widen is None:
            finite = self.threat.projected(p)
            look = batch.look(p, rows, finite=finite)
        else:
            look = batch.look(p, rows)
        if weights is not None:
            look = relax(look, p, weights)
        look = bound(look, p, weights, pick(batch.reach, rows), self._task.threat.widen)
        if not self._task.threat.probes and isinstance(batch, EditsBatch):  # this threat model forbids them
            look = look._replace(real=look.real & ~batch.asks_only(p[..., 1]).any(1))
        asks = p.requires_grad or (weights is not None and weights.requires_grad)
        wanted = live.repeat_interleave(width) if width > 1 else live
        if not asks:  # the null perturbation is known and free, unless its gradient is asked for
            wanted = wanted & ~look.null
        if width > 1:  # where fewer than P queries are left, the first ones are evaluated
            wanted = first_of(wanted.view(-1, width), self._mine(book.queries_left) // book.price).view(-1)
        known = finite and asks  # those rows are evaluated whose lanes run
        evaluated = wanted if known else wanted & look.real
        index: Tensor | None = self._running() if known else evaluated.nonzero().squeeze(1)
        if index is not None and len(index) == len(evaluated):
            index = None
        book.spend(self._lanes, wanted, lane, look.digest, every=index is None)
        answer, told = self._oracle.ask(look, weights, lane, rows, index, grad=asks)
        objective = answer["objective"].detach()
        won: Tensor | None = None
        if told.most > 0:
            won = evaluated & (objective > SUCCESS)  # the goal is reached there; it counts only where it is valid too
            if self._oracle.model.keyed:  # random draws make no attack of a clean input
                won = won & ~look.null
            if "risk" in answer:
                won = won & (answer["risk"] < self._oracle.model.threshold)
        held = batch.proposal(look.form.detach(), rows)
        if self.knowledge == "decision":
            said = self._task.goal.progress(answer["output"], pick(self._now.ref, rows))
            objective = objective if said is None else said
        counts = None if told.valid else look.valid & evaluated
        reward = settle(book, self._lanes, width, counts, won, objective, look.distance, held)
        was, over = book.live, book.finish(self._lanes, won=won is not None)
        if index is None and width == 1 and won is None and book.live is was:
            evaluated, answer["success"], terminated, truncated = self._quiet.clone()
        else:
            answer["success"] = torch.zeros_like(evaluated) if won is None else won
            evaluated, terminated = evaluated.clone() if known else evaluated, ~self._live()
            truncated = torch.zeros_like(terminated)
        obs = self._feedback(evaluated, look.valid, look.distance, answer)
        info: dict[str, Any] = {}
        if over is not None:
            over = self._mine(over)
            info = self._info(over)
            if self.autoreset_mode is AutoresetMode.SAME_STEP:
                obs, info = self._autoreset(obs, over, info)
        if self.output == "numpy":
            a, b, c = (t.cpu().numpy() for t in (reward, terminated, truncated))
            return self._present(obs), a, b, c, info
        return obs, reward, terminated, truncated, info

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

    def _hand_in(self, returned: Any) -> None:
        """What an attack returned is its last word under transfer; elsewhere the best that was asked counts.

        None is the last proposed. What is not valid changes nothing; the null perturbation is the clean sample, free.

        Raises:
            Malformed: for anything but one perturbation per lane.
        """
        if returned is None or self.knowledge != "transfer":
            return
        given = returned.detach() if isinstance(returned, Tensor) else returned
        p, weights = read_proposal(given, self._batch, (self.num_envs,), self.device, white=True)
        if weights is not None:
            raise Malformed("an attack returns whole edits, without weights")
        batch, book = self._batch, self._book
        look = bound(batch.look(p), p, None, batch.reach, self._task.threat.widen)
        mine = book.reason != NOT_ATTACKED
        book.hand_in(batch.proposal(look.form), mine & look.valid & look.real, mine & ~look.null, look.digest)

    # -- more of the victim ----------------------------------------------------------------------------------
    def rank(
        self, perturbation: Any = None, cotangent: Tensor | None = None, k: int = 1, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The k best single edits by first order on top of `perturbation`, tiled so that no table is ever dense.

        Costs each live lane one query and one gradient. `cotangent` (lanes, *scores) replaces the surrogate's gradient;
        with `weights` (lanes, E) in [0, 1] the perturbation is applied as far as they say, where the task relaxes so.

        Returns:
            int64 (lanes, k, 2) and gains float32 (lanes, k); -1 and -inf where there are fewer, or a lane is finished.
        """
        self._check_ready()
        if not isinstance(self._batch, EditsBatch):
            raise AdvgymError("rank is for Edits; a Field takes its gradient from step")
        if not self._white:
            raise AdvgymError(f"rank needs white-box knowledge; this environment gives {self.knowledge!r}")
        p = self.threat.null() if perturbation is None else torch.as_tensor(perturbation, device=self.device)
        want = (self.num_envs, *self.shape)
        if tuple(p.shape) != want or p.dtype != torch.int64:
            raise Malformed(f"a perturbation is int64 {want}, not {p.dtype} {tuple(p.shape)}")
        want = (self.num_envs, *self._task.goal.scores_shape)
        if cotangent is not None:
            cotangent = torch.as_tensor(cotangent, device=self.device)
            if tuple(cotangent.shape) != want or not cotangent.is_floating_point():
                raise Malformed(
                    f"a cotangent is float32 {want}, as the scores, not {cotangent.dtype} {tuple(cotangent.shape)}"
                )
            cotangent = cotangent.to(torch.float32)
        if weights is not None:
            if not self.table.weighted:
                raise AdvgymError(f"{self._task.name} ranks edits on top of whole ones: rank without weights")
            weights = read_weights(torch.as_tensor(weights, device=self.device), tuple(p.shape[:-1])).detach()
            if not bool(((weights >= 0) & (weights <= 1) | (p[..., 0] < 0)).all()):
                raise Malformed("weights are in [0, 1]")
        book = self._book
        able = self._live() & (self._mine(book.queries_left) >= book.price) & (self._mine(book.gradients_left) > 0)
        edits = torch.full((self.num_envs, k, 2), -1, device=self.device)
        gains = torch.full((self.num_envs, k), -torch.inf, device=self.device)
        index = able.nonzero().squeeze(1)
        if len(index) and self._task.threat.widen is not None:
            index = self._within(p, weights, index)
        if len(index):
            lane = index if self._lanes is None else self._lanes[index]
            given = None if cotangent is None else cotangent[index]
            part = None if weights is None else weights[index]
            edits[index], gains[index] = self._oracle.rank(p[index], lane, given, k, part)
        book.finish(tell=False)
        return edits, gains

    def _within(self, p: Tensor, weights: Tensor | None, index: Tensor) -> Tensor:
        """Those of the lanes `index` whose perturbation may be evaluated; the others are charged all the same."""
        lane = index if self._lanes is None else self._lanes[index]
        look = self._batch.look(p[index], lane)
        given = None if weights is None else weights[index]
        near = bound(look, p[index], given, self._batch.reach[lane], self._task.threat.widen).real | ~look.real
        self._oracle.fine(lane[~near], look.digest[~near])
        return index[near]

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
        white = self._white and torch.is_grad_enabled()
        scores = self._oracle.raw(x, lane, grad=white)
        self._book.finish(tell=False)
        return self._task.goal.output(scores) if self.knowledge == "decision" else scores


def _first_seed(seed: int | Sequence[int]) -> int:
    """The seed, of several the first, each checked."""
    several = list(seed) if isinstance(seed, (Sequence, np.ndarray)) else [seed]
    if not several:
        raise AdvgymError("seed is a whole number, or one for each lane, not an empty list")
    checked = [check_seed(one) for one in several]
    return checked[0]
