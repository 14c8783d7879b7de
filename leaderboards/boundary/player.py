"""The agent's side: the environment of the contract, every answer of which comes through the boundary.

Pure functions (`threat`, `table`, `draws`, `context`) run here, on the public part of the samples; whatever asks the
victim is a message. An attack written for `AttackEnv` runs unchanged.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor
from torch.autograd.function import once_differentiable

from advgym.core.edits import EditsBatch
from advgym.core.episodes import Episodes
from advgym.core.lanes import Lanes, Obs
from advgym.core.meters import Book
from advgym.core.reading import read_proposal, read_weights
from advgym.errors import AdvgymError, BudgetExhausted, Malformed
from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary.referee import METERS
from advgym.leaderboards.boundary.wire import Channel

GRADED: tuple[m.Graded, ...] = ("scores", "objective", "surrogate")
ERRORS = {"malformed": Malformed, "exhausted": BudgetExhausted, "refused": AdvgymError}


class RemoteEnv(Lanes):
    """What `AttackEnv` is to an agent, behind the process boundary. Made from the evaluator's welcome."""

    def __init__(self, channel: Channel, public: dict[str, Any], proposals: int | None) -> None:
        self._channel, self._views = channel, {b"": 0}
        self.device, self.output, self.proposals = torch.device("cpu"), "torch", proposals
        self.autoreset_mode = AutoresetMode.DISABLED
        self._width, self._lanes, self._ready, self.closed = proposals or 1, None, True, False
        batch, threat = public["batch"], public["threat"]
        goal = SimpleNamespace(**public["goal"])
        self._task = SimpleNamespace(name=public["task"], threat=threat, goal=goal, context=public["context"],
                                     line=None)  # type: ignore[assignment]  # fmt: skip
        book = Book(batch, threat, public["objective"], public["live"])
        self._now = Episodes(batch, book, public["scores"], public["ref"], public["target"], public["objective"],
                             public["surrogate"])  # fmt: skip
        # What `Lanes` asks of its oracle: whose episodes these are, whether there is a risk, whether answers are drawn.
        model = SimpleNamespace(risk=public["risk"] or None, keyed=public["keyed"])
        self._oracle = SimpleNamespace(episodes=self._now, model=model)  # type: ignore[assignment]
        self.num_envs = len(batch)
        self._white = threat.knowledge in ("white-box", "transfer")

    # -- the contract ----------------------------------------------------------------------------------------
    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Obs, dict[str, Any]]:
        """The samples that the evaluator dealt, with the budgets as they are spent: nothing is dealt or refunded."""
        return self._first(), {}

    def step(self, actions: Any) -> tuple[Obs, Any, Any, Any, dict[str, Any]]:
        """See `AttackEnv.step`. A Field that requires grad, and weights that do, keep a first-order graph."""
        p, weights = read_proposal(actions, self._batch, (self.num_envs, *self._per()), self.device, white=self._white)
        p = p.reshape(self.num_envs, *self._per(), *self.shape)
        weights = None if weights is None else weights.reshape(p.shape[:-1])
        asks = p.requires_grad or (weights is not None and weights.requires_grad)
        if asks:
            blank = torch.zeros(0)
            number, answer = [-1], SimpleNamespace(value={})
            names = _Step.apply(self, p, blank if weights is None else weights, weights is not None, number, answer)
            answer.value.update(zip(GRADED, names, strict=True))
            got = answer.value
        else:
            got, _ = self._ask_step(p, weights, grad=False)
        return self._observe(got)

    def _ask_step(self, p: Tensor, weights: Tensor | None, *, grad: bool) -> tuple[dict[str, Tensor], int]:
        arrays = [p.detach(), *([] if weights is None else [weights.detach()])]
        return self._ask(m.Step(self._handle(), grad, weights is not None), arrays)

    def _observe(self, got: dict[str, Tensor]) -> tuple[Obs, Any, Any, Any, dict[str, Any]]:
        self._update(got)
        answer: dict[str, Tensor] = {
            k: got[k] for k in ("output", "success", "scores", "objective", "surrogate", "risk") if k in got
        }
        obs = self._feedback(got["evaluated"], got["valid"], got["distance"], answer)
        terminated = ~self._live()
        over = got.get("over")
        return obs, got["reward"], terminated, torch.zeros_like(terminated), self._info(over)

    def rank(
        self, perturbation: Any = None, cotangent: Tensor | None = None, k: int = 1, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `AttackEnv.rank`."""
        p = self.threat.null() if perturbation is None else torch.as_tensor(perturbation)
        if weights is not None:
            weights = read_weights(torch.as_tensor(weights), tuple(p.shape[:-1]))
        arrays = [p, *(torch.as_tensor(a).detach().float() for a in (cotangent, weights) if a is not None)]
        got, _ = self._ask(m.Rank(self._handle(), int(k), cotangent is not None, weights is not None), arrays)
        self._update(got)
        return got["edits"], got["gains"]

    def append(self, payload: Any) -> Tensor:
        """See `AttackEnv.append`."""
        value = torch.as_tensor(payload)
        got, _ = self._ask(m.Append(self._handle()), [value])
        assert isinstance(self._batch, EditsBatch)
        self._batch.append(value, self._lanes)  # the mirror's table grows by the same choices
        return got["choice"]

    def victim(self, x: Any, lanes: Any) -> Tensor:
        """See `AttackEnv.victim`; tensors cross the boundary, and raw inputs that tell their `parts()`."""
        if isinstance(x, Tensor | np.ndarray):
            fixed, free = [], torch.as_tensor(x).float()
        elif hasattr(x, "parts"):
            *fixed, free = x.parts()
        else:
            raise AdvgymError(
                f"raw inputs of type {type(x).__name__} do not cross the boundary: propose edits by step, or rank them"
            )
        lane = torch.as_tensor(lanes).reshape(-1)
        lane = lane if self._lanes is None else self._lanes[lane]
        if self._white and torch.is_grad_enabled() and free.requires_grad:
            out: Tensor = _Raw.apply(self, free, lane, fixed)
            return out
        got, _ = self._ask(m.Ask(0), [free.detach(), lane, *fixed])
        self._update(got)
        return got["scores"]

    def returned(self, value: Any) -> list[np.ndarray]:
        """What an attack returned, as it crosses: nothing where it does not count; the evaluator says what is wrong."""
        if value is None or self.knowledge != "transfer":
            return []
        try:
            array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
        except (TypeError, ValueError, RuntimeError):
            return [np.zeros(0)]  # no perturbations, whatever they are
        return [array] if array.dtype in (np.float32, np.float64, np.int32, np.int64) else [np.zeros(0)]

    # -- underneath ------------------------------------------------------------------------------------------
    def _handle(self) -> int:
        """The evaluator's number of this view; registered when it first asks something."""
        if self._lanes is None:
            return 0
        key = self._lanes.numpy().tobytes() + repr(self.proposals).encode()
        if key not in self._views:
            got, _ = self._ask(m.View(self.proposals), [self._lanes])
            self._views[key] = int(got["view"][0])
        return self._views[key]

    def _ask(self, message: Any, tensors: list[Tensor]) -> tuple[dict[str, Tensor], int]:
        self._channel.send(message, [t.contiguous().numpy() for t in tensors])
        reply, arrays = self._channel.recv()
        if isinstance(reply, m.Refusal):
            raise ERRORS[reply.kind](reply.text)
        assert isinstance(reply, m.Answer)
        got = {name: torch.from_numpy(a) for name, a in zip(reply.names, arrays, strict=True)}
        return got, reply.step

    def _update(self, got: dict[str, Tensor]) -> None:
        """The meters and what is held, as the evaluator keeps them."""
        book = self._book
        for name in METERS:
            if name in got:
                setattr(book, name, got[name])
        if "changed" in got:
            book.held = book.held.index_copy(0, got["changed"], got["held"])

    def close(self, **kwargs: Any) -> None:
        """Nothing is held open."""
        self.closed = True


class _Step(torch.autograd.Function):
    """A step whose backward ships the cotangents of scores, objective and surrogate."""

    @staticmethod
    def forward(ctx: Any, env: RemoteEnv, p: Tensor, weights: Tensor, weighted: bool, number: Any, out: Any) -> Any:
        got, step = env._ask_step(p, weights if weighted else None, grad=True)
        ctx.env, ctx.step, ctx.weighted = env, step, weighted
        ctx.set_materialize_grads(False)
        out.value = got
        return got["scores"].clone(), got["objective"].clone(), got["surrogate"].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        named = zip(GRADED, cotangents, strict=True)
        given = [(name, g) for name, g in named if g is not None]
        got, _ = ctx.env._ask(m.Back(ctx.step, [n for n, _ in given]), [g.float() for _, g in given])
        ctx.env._update(got)
        return None, got.get("p"), got.get("weights"), None, None, None


class _Raw(torch.autograd.Function):
    """Raw inputs through the victim, differentiable once."""

    @staticmethod
    def forward(ctx: Any, env: RemoteEnv, x: Tensor, lane: Tensor, fixed: list[Tensor]) -> Tensor:
        got, ctx.step = env._ask(m.Ask(0, True), [x.detach(), lane, *fixed])
        ctx.env = env
        env._update(got)
        return got["scores"]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        got, _ = ctx.env._ask(m.Back(ctx.step, ["scores"]), [g.float()])
        ctx.env._update(got)
        return None, got["p"], None, None
