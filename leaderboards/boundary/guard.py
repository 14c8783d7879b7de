"""The evaluator's side of a defense: a victim whose answers come from the submission's process, and are checked."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from advgym.core.goals import BundleGoal
from advgym.core.task import Task
from advgym.core.victim import Victim
from advgym.errors import Unusable
from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary import mirror
from advgym.leaderboards.boundary.fault import Fault
from advgym.leaderboards.boundary.recorder import Recorder
from advgym.leaderboards.boundary.wire import Broken, Channel, Gone

ROOM = 1 << 20


class DefenseFailed(Unusable):
    """A defense that crashed, answered nonsense, or was stopped by a limit."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.code}: {fault.said()}")
        self.fault = fault

    @property
    def code(self) -> str:
        """The reason code."""
        return self.fault.code


class Guard:
    """The conversation with one defense process.

    Args:
        task: undefended; the defense wraps its victim.
        channel: to the defense's side.
        clock: entered while the defense is waited for.
        until: `time.monotonic()` at which the job is over.
    """

    def __init__(self, task: Task, channel: Channel, clock: Any = nullcontext, until: float = float("inf")) -> None:
        self.task, self.channel, self.clock, self.until = task, channel, clock, until
        goal = task.goal
        # Of one answer: a bundle's members are inputs of their own.
        self.shape = goal.inner.scores_shape if isinstance(goal, BundleGoal) else goal.scores_shape
        self.sent: mirror.Seen = {}
        self.dealt = False
        self.broken: DefenseFailed | None = None

    def enlist(
        self, name: str, options: dict[str, Any], settings: dict[str, Any], env: dict[str, str], device: str = "cpu",
        record: Recorder | None = None,
    ) -> Victim:  # fmt: skip
        """Start the defense, to compute on `device`; the victim that attacks and the verifier play.

        Args:
            record: is told what is asked and what is answered.
        """
        self._said(m.Loaded)
        self.dealt = True
        module = self.task.victim.module
        weights = {} if module is None else {k: v.detach().cpu() for k, v in module.state_dict().items()}
        ready, _ = self._ask(m.Enlist(name, options, settings, env, device), mirror.pack(weights), m.Ready)
        base, model = self.task.victim, _Guarded(self, ready.risk, record)
        # Gradients of a whole graph are recorded while its model runs, and do not cross: attacks take them elsewhere.
        access = "scores" if ready.access == "gradients" and self._whole() else ready.access
        victim = Victim(
            model, name=f"{base.name}+submission", access=access, keyed=ready.keyed,
            risk=model.risk_of if ready.risk else None, threshold=ready.threshold, card=base.card,
        )  # fmt: skip
        victim.watch = None if record is None else record.watch
        return victim

    def _whole(self) -> bool:
        """Whether many rows of this task's inputs are one answer."""
        batch = self.task.samples(next(iter(self.task.sizes)), [0])
        return getattr(batch.inputs(batch.look(batch.null()).form), "together", 1) > 1

    def look(self, x: Any, keys: Tensor | None, risk: bool, leaves: list[str]) -> tuple[list[Tensor], int]:
        """(scores, and the risk), checked; the step that a backward names."""
        rows, shape = len(x), self.shape
        self.channel.cap = rows * (int(np.prod(shape)) + 2) * 4 + ROOM
        packed = mirror.pack(x, self.sent)
        packed += [] if keys is None else [keys.cpu().numpy()]
        said, arrays = self._ask(m.Look(leaves, keys is not None), packed, m.Scores)
        want = [(rows, *shape), *([(rows,)] if risk else [])]
        if [tuple(a.shape) for a in arrays] != want:
            self._fail("malformed", f"answered {[tuple(a.shape) for a in arrays]} to {rows} inputs, want {want}")
        if any(a.dtype != np.float32 or not bool(np.isfinite(a).all()) for a in arrays):
            self._fail("malformed", "scores and risks are finite float32")
        return [torch.from_numpy(a) for a in arrays], said.step

    def pull(self, step: int, cotangent: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
        """Cotangents of the leaves; whatever is not finite counts as zero."""
        self.channel.cap = sum(int(np.prod(s)) for s in shapes) * 4 + ROOM
        _, arrays = self._ask(m.Pull(step), [cotangent.detach().float().cpu().contiguous().numpy()], m.Pulled)
        if [tuple(a.shape) for a in arrays] != shapes or any(a.dtype != np.float32 for a in arrays):
            self._fail("malformed", f"gradients {[tuple(a.shape) for a in arrays]}, want {shapes}")
        return [torch.nan_to_num(torch.from_numpy(a), posinf=0.0, neginf=0.0) for a in arrays]

    def _ask(self, message: Any, arrays: list[np.ndarray], want: type) -> tuple[Any, list[np.ndarray]]:
        return self._said(want, message, arrays)

    def _said(self, want: type, message: Any = None, arrays: Sequence[np.ndarray] = ()) -> tuple[Any, list[np.ndarray]]:
        """The next thing that the defense says, after `message` where there is one."""
        if self.broken is not None:
            raise self.broken
        if time.monotonic() > self.until:
            self._fail("job-limit", "")
        try:
            with self.clock():
                if message is not None:
                    self.channel.send(message, arrays)
                said, found = self.channel.recv()
        except Gone as error:
            self._fail("exited", str(error))
        except Broken as error:
            self._fail("malformed", str(error))
        if isinstance(said, m.Failed):
            code = "crashed" if self.dealt else said.code  # once it was sent anything, loading is behind it
            self._fail(code, said.text, kind=said.kind, file=said.file, line=said.line)
        if not isinstance(said, want):
            self._fail("malformed", f"answered {type(said).__name__} where {want.__name__} was asked")
        return said, found

    def _fail(self, code: str, text: str, **about: Any) -> None:
        self.broken = DefenseFailed(Fault(code=code, text=text, dealt=self.dealt, **about))
        raise self.broken


class _Guarded:
    """The model of the defended victim; no module, so that nothing of it is moved, copied or trained."""

    pure = True  # the defense has copies of its inputs anyway

    def __init__(self, guard: Guard, risk: bool, record: Recorder | None) -> None:
        self.guard, self.risk, self.record = guard, risk, record
        self.last: tuple[Any, Tensor] | None = None

    def __call__(self, x: Any, keys: Tensor | None = None) -> Tensor:
        named = leaves_of(x) if torch.is_grad_enabled() else []
        device = device_of(x)
        names, step = [n for n, _ in named], -1
        if not named:
            found, _ = self.guard.look(x, keys, self.risk, [])
        else:
            out: list[Any] = []
            scores = _Answer.apply(self.guard, self.record, x, keys, self.risk, names, out, *(t for _, t in named))
            found, step = [scores, *out[0][1:]], out[1]
        if self.record is not None:
            self.record.answered(x, keys, found, step, names)
        if self.risk:
            self.last = (x, found[1])
        return found[0].to(device)

    def risk_of(self, x: Any) -> Tensor:
        """The risk that came with the last answer; asked anew for other inputs."""
        if self.last is None or self.last[0] is not x:
            with torch.no_grad():
                self(x)
        assert self.last is not None
        return self.last[1]


def leaves_of(x: Any) -> list[tuple[str, Tensor]]:
    """The float tensors of an input that require grad; a plain tensor is named ""."""
    if isinstance(x, Tensor):
        return [("", x)] if x.requires_grad else []
    return [(k, v) for k, v in _tensors(x) if v.requires_grad]


def device_of(x: Any) -> torch.device:
    """Where an input lies; one that does not say so lies where its tensors lie."""
    if hasattr(x, "device"):
        return torch.device(x.device)
    return next((v.device for _, v in (_tensors(x) if hasattr(x, "__dict__") else [])), torch.device("cpu"))


def _tensors(x: Any) -> list[tuple[str, Tensor]]:
    fields = {f.name: getattr(x, f.name) for f in dataclasses.fields(x)} if dataclasses.is_dataclass(x) else vars(x)
    return [(k, v) for k, v in fields.items() if isinstance(v, Tensor)]


class _Answer(torch.autograd.Function):
    """Scores whose backward asks the defense for its cotangents."""

    @staticmethod
    def forward(ctx: Any, guard: Guard, record: Recorder | None, x: Any, keys: Any, risk: bool, names: list[str],
                out: list[Any], *leaves: Tensor) -> Tensor:  # fmt: skip
        found, ctx.step = guard.look(x, keys, risk, names)
        ctx.record = record
        ctx.guard, ctx.shapes, ctx.device = guard, [tuple(t.shape) for t in leaves], leaves[0].device
        out += [found, ctx.step]
        return found[0].to(leaves[0].device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        grads = ctx.guard.pull(ctx.step, g, ctx.shapes)
        if ctx.record is not None:
            ctx.record.pulled(ctx.step, g, grads)
        return None, None, None, None, None, None, None, *(x.to(ctx.device) for x in grads)
