"""The evaluator's side of an attack: it deals, asks the victim, keeps the meters and believes nothing it is sent.

Who is to blame for a failure is decided here, by where it was raised: what a request makes the evaluator raise is
`Unanswered`, the participant's, unless the same comes of asking nothing (`leaderboards/runs/fresh.py`). Who pays is
decided here, too: time that neither the victim took nor a query paid for runs on the agent's clock.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.core.env import AttackEnv
from advgym.errors import AdvgymError, BudgetExhausted, DataError, Malformed, VictimError
from advgym.judge.evaluator import evaluator
from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary import mirror
from advgym.leaderboards.boundary.terms import Late, Refused, Timed, Unanswered, count, public_goal
from advgym.leaderboards.boundary.wire import Broken, Channel

GRAPHS = 16  # steps whose graph is kept for a backward
METERS = ("queries_left", "gradients_left", "potential", "live", "reason")
MOST_RANKED = 1 << 16
MOST_PROPOSALS = 1024
MOST_VIEWS = 4096
MOST_WIDTH = 64  # integers of an appended payload
MOST_PARTS = 1 << 20  # numbers of a raw input that is made of parts
ROOM = 1 << 22  # bytes of a frame beside its largest arrays


class Session:
    """One shard's conversation.

    Args:
        env: dealt and reset by the evaluator (`assigned`).
        channel: to the agent's side.
        clock: `clock()` is entered while the agent's side is waited for.
        charge: takes seconds of work that nothing paid for, to be put on the agent's clock.
        until: `time.monotonic()` at which the whole job is over, whatever it is doing.
    """

    def __init__(
        self, env: AttackEnv, channel: Channel, clock: Any = nullcontext, charge: Callable[[float], None] | None = None,
        until: float = float("inf"),
    ) -> None:  # fmt: skip
        self.env, self.channel, self.clock, self.charge, self.until = env, channel, clock, charge, until
        self.ours = ours = evaluator(env)
        self.victim = ours.oracle.model = Timed(ours.oracle.model)
        self.views: list[AttackEnv] = [env]
        self.graphs: OrderedDict[int, tuple[list[Tensor], dict[str, Tensor]]] = OrderedDict()
        self.steps = 0
        self.held = ours.book.held
        self.returned: list[Tensor] = []
        size = ours.batch.null()[0].numel() * 8 * MOST_PROPOSALS
        size = len(ours.batch) * min(size, 1 << 24)
        channel.cap = min(max(size, 0 if env.kind == "field" else 24 * MOST_PARTS) + ROOM, 1 << 29)
        budget = ours.task.threat.queries + ours.task.threat.gradients
        self.most_frames = 10_000 + 64 * budget

    def loaded(self) -> m.Loaded | m.Done | m.Failed:
        """Wait until the agent's side has imported its code, before it is sent anything."""
        with self.clock():
            message, _ = self.channel.recv()
        if not isinstance(message, m.Loaded | m.Done | m.Failed):
            raise Broken(f"{type(message).__name__} before anything was dealt")
        return message

    def welcome(self, seed: int, settings: dict[str, Any]) -> None:
        """Send what is public of the dealt episodes."""
        env, ours, now = self.env, self.ours, self.ours.episodes
        goal = public_goal(ours.task.goal)
        public = {
            "task": ours.task.name, "batch": now.batch, "threat": ours.task.threat, "goal": goal,
            "context": dict(ours.task.context), "live": now.book.live, "ref": now.ref, "target": now.target,
            "risk": ours.oracle.model.risk is not None,
            "keyed": env.keyed,
        }  # fmt: skip
        told = env.knowledge != "decision"
        for name in ("scores", "objective", "surrogate"):
            value = getattr(now, name)
            public[name] = value if told else torch.zeros_like(value)
        with self.clock():
            self.channel.send(m.Welcome(seed, env.proposals, settings), mirror.pack(public))

    def serve(self) -> m.Done | m.Failed:
        """Answer until the agent's side says that it is done (a last backward is charged after the last step).

        Raises:
            Broken, Gone: when the other side breaks the protocol or is no more.
            Unanswered: what answering a request raised.
            Late: the job's time is over.
        """
        while True:
            with self.clock():
                message, arrays = self.channel.recv()
            if isinstance(message, m.Done | m.Failed):
                self.returned = [torch.from_numpy(a) for a in arrays]
                return message
            if self.channel.frames > self.most_frames:
                raise Broken(f"more than {self.most_frames} messages in one shard")
            if time.monotonic() > self.until:
                raise Late
            reply, out = self._charged(message, [torch.from_numpy(a) for a in arrays])
            with self.clock():
                self.channel.send(reply, [t.detach().cpu().contiguous().numpy() for t in out])

    def _charged(self, message: Any, arrays: list[Tensor]) -> tuple[Any, list[Tensor]]:
        """Answer one request, and put on the agent's clock what neither the victim took nor a query paid for."""
        book, started, asked = self.ours.book, time.perf_counter(), self.victim.seconds
        had, rows = int(book.queries_left.sum()), 0
        try:
            rows = self._rows_of(message)
            return self._reply(message, arrays)
        finally:
            paid = (had - int(self.ours.book.queries_left.sum())) // book.price
            share = 1.0 - min(paid / rows, 1.0) if rows else 1.0
            free = time.perf_counter() - started - (self.victim.seconds - asked)
            if self.charge is not None and share > 0:
                self.charge(max(free, 0.0) * share)

    def _rows_of(self, message: Any) -> int:
        """The queries that a request may pay for; none of what is always free."""
        if not isinstance(message, m.Step | m.Rank) or not 0 <= message.view < len(self.views):
            return 1 if isinstance(message, m.Ask) else 0
        view = self.views[message.view]
        return view.num_envs * (view._width if isinstance(message, m.Step) else 1)

    def _reply(self, message: Any, arrays: list[Tensor]) -> tuple[Any, list[Tensor]]:
        if not isinstance(message, m.Step | m.Back | m.Rank | m.Append | m.Ask | m.View):
            raise Broken(f"{type(message).__name__} where a request was due")
        if not isinstance(message, m.Back) and self.env.done:
            return m.Refusal("exhausted", "every lane is over: nothing that is asked now can count"), []
        try:
            named, step = self._answer(message, arrays)
        except VictimError as error:
            raise Unanswered(message, error) from error
        except Malformed as error:
            return m.Refusal("malformed", str(error)[:500]), []
        except BudgetExhausted as error:
            return m.Refusal("exhausted", str(error)[:500]), []
        except AdvgymError as error:  # in order, but not granted
            return m.Refusal("refused", str(error)[:500]), []
        except Exception as error:
            raise Unanswered(message, error) from error
        return m.Answer(list(named), step), list(named.values())

    def _answer(self, message: Any, arrays: list[Tensor]) -> tuple[dict[str, Tensor], int]:
        if isinstance(message, m.Step):
            return self._step(message, arrays)
        if isinstance(message, m.Back):
            return self._back(message, arrays), -1
        if isinstance(message, m.Rank):
            return self._rank(message, arrays), -1
        if isinstance(message, m.Append):
            return self._append(message, arrays), -1
        if isinstance(message, m.Ask):
            return self._raw(message, arrays)
        return self._new_view(message, arrays), -1

    # -- what can be asked -----------------------------------------------------------------------------------
    def _step(self, message: m.Step, arrays: list[Tensor]) -> tuple[dict[str, Tensor], int]:
        env = self._view(message.view)
        count(arrays, 2 if message.weighted else 1)
        p = arrays[0].to(env.device)
        action: Any = p
        leaves = [p]
        if message.weighted:
            weights = arrays[1].to(env.device)
            leaves, action = [weights], (p, weights)
        if message.grad:
            if not leaves[0].is_floating_point():
                raise Malformed("only a Field, or the weights of edits, can require grad")
            leaves[0].requires_grad_()
        obs, reward, _, _, info = env.step(action)
        flat = {k: self._rows(v, env) for k, v in obs.items() if k in _FEEDBACK}
        step = -1
        if message.grad:
            step = self.steps = self.steps + 1
            self.graphs[step] = (leaves, {k: flat[k] for k in ("scores", "objective", "surrogate")})
            while len(self.graphs) > GRAPHS:
                self.graphs.popitem(last=False)
        named = {**flat, "reward": reward, **self._state()}
        if "_final_info" in info:
            named["over"] = torch.from_numpy(np.asarray(info["_final_info"]))
        return named, step

    @staticmethod
    def _rows(value: Tensor, env: AttackEnv) -> Tensor:
        """Feedback as (lanes * P, ...): one row a proposal."""
        return value.reshape(-1, *value.shape[2:]) if env.proposals is not None else value

    def _back(self, message: m.Back, arrays: list[Tensor]) -> dict[str, Tensor]:
        if message.step not in self.graphs:
            raise Refused(f"the graph of that step is gone: call backward within {GRAPHS} steps")
        leaves, outs = self.graphs[message.step]
        count(arrays, len(message.of))
        if len(set(message.of)) != len(message.of) or not set(message.of) <= set(outs):
            raise Malformed(f"cotangents are of {', '.join(outs)}, each once")
        given = []
        for name, g in zip(message.of, arrays, strict=True):
            if g.shape != outs[name].shape or g.dtype != torch.float32 or not bool(torch.isfinite(g).all()):
                raise Malformed(f"a cotangent of {name} is finite float32 {tuple(outs[name].shape)}")
            given.append(g.to(self.env.device))
        pairs = [(outs[n], g) for n, g in zip(message.of, given, strict=True) if outs[n].requires_grad]
        grads: Any = [None]
        if pairs:
            grads = torch.autograd.grad(
                [o for o, _ in pairs], leaves, [g for _, g in pairs], retain_graph=True, allow_unused=True
            )
        grad = torch.zeros_like(leaves[0]) if grads[0] is None else grads[0]
        leaf = "p" if len(outs) == 1 or self.env.kind == "field" else "weights"
        return {leaf: grad, **self._state()}

    def _append(self, message: m.Append, arrays: list[Tensor]) -> dict[str, Tensor]:
        count(arrays, 1)
        if self.env.kind != "edits" or not getattr(self.ours.batch, "slots", 0):
            raise Refused("the table of this task is closed")
        if arrays[0].dim() != 2 or not 1 <= arrays[0].shape[1] <= MOST_WIDTH:
            raise Malformed(f"a payload is int64 (lanes, 1 to {MOST_WIDTH}), not {tuple(arrays[0].shape)}")
        return {"choice": self._view(message.view).append(arrays[0].to(self.env.device))}

    def _rank(self, message: m.Rank, arrays: list[Tensor]) -> dict[str, Tensor]:
        count(arrays, 1 + message.along + message.weighted)
        if not 1 <= message.k <= MOST_RANKED:
            raise Malformed(f"k is 1 to {MOST_RANKED}, not {message.k}")
        self._check_white("rank")
        if self.env.kind != "edits":
            raise Refused("rank is for Edits; a Field takes its gradient from step")
        along = arrays[1].to(self.env.device) if message.along else None
        weights = arrays[-1].to(self.env.device) if message.weighted else None
        for name, given in (("a cotangent is", along), ("weights are", weights)):
            if given is not None and (given.dtype != torch.float32 or not bool(torch.isfinite(given).all())):
                raise Malformed(f"{name} finite float32")
        edits, gains = self._view(message.view).rank(arrays[0].to(self.env.device), along, message.k, weights)
        return {"edits": edits, "gains": gains, **self._state()}

    def _raw(self, message: m.Ask, arrays: list[Tensor]) -> tuple[dict[str, Tensor], int]:
        if len(arrays) < 2:
            raise Malformed(f"raw inputs come with their lanes, not with {len(arrays)} arrays")
        x, lane, *fixed = arrays
        if x.dtype != torch.float32 or not bool(torch.isfinite(x).all()):
            raise Malformed("raw inputs are finite float32")
        x = x.to(self.env.device)
        if message.grad:
            self._check_white("a gradient")
            x.requires_grad_()
        clean = self.ours.batch.inputs(self.ours.batch.look(self.ours.batch.null()).form)
        whole = self._tensor(clean, x, lane, fixed) if isinstance(clean, Tensor) else self._made(clean, x, lane, fixed)
        try:
            with torch.set_grad_enabled(message.grad):
                scores = self.env.victim(whole, lane)
        except VictimError as error:
            if not fixed:
                raise
            raise Refused(str(error)) from None  # a victim that takes no raw inputs of this kind
        step = -1
        if message.grad:
            if fixed:
                self.graphs.clear()  # such a graph may be large: the last one is kept
            step = self.steps = self.steps + 1
            self.graphs[step] = ([x], {"scores": scores})
            while len(self.graphs) > GRAPHS:
                self.graphs.popitem(last=False)
        return {"scores": scores, **self._state()}, step

    @staticmethod
    def _tensor(clean: Tensor, x: Tensor, lane: Tensor, fixed: list[Tensor]) -> Tensor:
        """Raw inputs that are one tensor, a row a lane."""
        if fixed:
            raise Malformed("raw inputs of this task are one tensor")
        if x.shape[1:] != clean.shape[1:]:
            raise Malformed(f"raw inputs are finite float32 (n, {', '.join(map(str, clean.shape[1:]))})")
        if len(x) != len(lane.reshape(-1)):
            raise Malformed(f"{len(x)} inputs need {len(x)} lanes, not {len(lane.reshape(-1))}")
        return x

    def _made(self, clean: Any, x: Tensor, lane: Tensor, fixed: list[Tensor]) -> Any:
        """One raw input that the clean inputs of its lane make of parts, x the last."""
        if not hasattr(clean, "raw"):
            raise Refused("raw inputs of this task do not cross the boundary: propose edits by step, or rank them")
        if lane.dtype != torch.int64 or lane.numel() != 1 or not 0 <= int(lane) < self.env.num_envs:
            raise Malformed(f"one raw input of this task needs one lane from 0 to {self.env.num_envs - 1}")
        if len(fixed) != 1 or len(x.reshape(-1)) > MOST_PARTS:
            raise Malformed(f"a raw input of this task has two parts, of at most {MOST_PARTS} numbers")
        try:
            return clean.of_lane(int(lane)).raw(fixed[0].to(self.env.device), x)
        except DataError as error:
            raise Malformed(str(error)) from None

    def _new_view(self, message: m.View, arrays: list[Tensor]) -> dict[str, Tensor]:
        count(arrays, 1)
        if len(self.views) >= MOST_VIEWS:
            raise Refused(f"at most {MOST_VIEWS} different views of a shard")
        if message.proposals is not None and not 1 <= message.proposals <= MOST_PROPOSALS:
            raise Malformed(f"proposals is 1 to {MOST_PROPOSALS}, not {message.proposals}")
        if arrays[0].dtype != torch.int64 or arrays[0].dim() != 1:
            raise Malformed("a view names its lanes as int64 (n,)")
        self.views.append(self.env.view(arrays[0].to(self.env.device), message.proposals))
        return {"view": torch.tensor([len(self.views) - 1])}

    # -- small things ----------------------------------------------------------------------------------------
    def _view(self, number: int) -> AttackEnv:
        if not 0 <= number < len(self.views):
            raise Malformed(f"no view {number}")
        return self.views[number]

    def _check_white(self, what: str) -> None:
        if self.env.knowledge not in ("white-box", "transfer"):
            raise Refused(f"{what} needs white-box knowledge; this environment gives {self.env.knowledge!r}")

    def _state(self) -> dict[str, Tensor]:
        """The meters of every lane, and what is held where that has changed."""
        book = self.ours.book
        named = {
            name: getattr(book, name) for name in ("queries_left", "gradients_left", "potential", "live", "reason")
        }
        if book.held is not self.held:
            changed = (book.held != self.held).flatten(1).any(1).nonzero().squeeze(1)
            if len(changed):
                named["changed"], named["held"] = changed, book.held[changed]
            self.held = book.held
        return named


_FEEDBACK = ("evaluated", "valid", "distance", "output", "success", "scores", "objective", "surrogate", "risk")
