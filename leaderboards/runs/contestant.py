"""A submission as an attack or as a defense: what the evaluator plays, with a sandboxed process behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from msgspec import structs
from torch import Tensor

from advgym.core.task import Task
from advgym.core.victim import DRAWS
from advgym.errors import AdvgymError, Malformed
from advgym.judge.evaluator import evaluator
from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary.fault import Fault
from advgym.leaderboards.boundary.guard import DefenseFailed, Guard
from advgym.leaderboards.boundary.recorder import Recorder
from advgym.leaderboards.boundary.referee import Session
from advgym.leaderboards.boundary.terms import Late, Unanswered
from advgym.leaderboards.boundary.wire import Broken, Channel, Gone
from advgym.leaderboards.entries.card import Card
from advgym.leaderboards.rules.board_tables import Limits
from advgym.leaderboards.sandbox import Box, Ended

LOADING = ("syntax-error", "import-error", "no-entry-point", "card-mismatch")  # no shard would fare better
_SAID = {"syntax-error", "import-error", "no-entry-point", "crashed"}  # codes that the inside may report of itself
Reproduced = Callable[[Any, Exception], bool]  # (request, what it raised): whether asking nothing raises the same


@dataclass
class Played:
    """How one turn in the sandbox went; `reason` is "" where the submission came to its end."""

    fault: Fault = field(default_factory=Fault)
    transcript: str = ""
    ended: Ended | None = None
    unfinished: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    @property
    def reason(self) -> str:
        """The reason code."""
        return self.fault.code


class Stopped(Exception):
    """The attack did not come to its end; `Played` says why."""


class Contestant:
    """An attack in a sandbox. Use `attack` where an agent's function is wanted; `played` tells how it went.

    Args:
        reproduced: told of a request whose answering failed; True: the platform is to blame. Without it the agent is.
        until: `time.monotonic()` at which the job is over.
    """

    def __init__(
        self, box: Box, limits: Limits, card: Card, reproduced: Reproduced | None = None, until: float = float("inf")
    ) -> None:
        self.box, self.limits, self.card, self.reproduced, self.until = box, limits, card, reproduced, until
        self.played = Played()

    def attack(self, env: Any, *, seed: int = 0) -> Tensor | None:
        """Play the dealt environment over the boundary, in a fresh process; what the attack returned.

        Raises:
            Malformed: for a return of more than one array.
            Stopped: when the other side crashed, broke the protocol, hit a limit, or asked for what cannot be answered.
        """
        played = self.played = Played()
        turn = self.box.turn(self.limits, role="agent")
        channel = Channel(turn.sock, m.Request)
        channel.keep()
        said: Any = None
        dealt = False
        try:
            session = Session(env, channel, turn.clock, turn.charge, self.until)
            said = session.loaded()
            if isinstance(said, m.Loaded) and (wrong := mismatch(said, self.card)):
                played.fault = Fault(code="card-mismatch", text=wrong)
            elif isinstance(said, m.Loaded):
                said, dealt = None, True
                session.welcome(seed, {})
                said = session.serve()
        except Broken as error:
            played.fault = Fault(code="malformed", text=str(error), dealt=dealt)
        except Gone as error:
            played.fault = Fault(code="exited", text=str(error), dealt=dealt)
        except Late:
            played.fault = Fault(code="job-limit", text="", dealt=dealt)
        except Unanswered as failure:
            if self.reproduced is not None and self.reproduced(failure.request, failure.error):
                raise AnswerFailed(str(failure)) from failure
            text = f"{type(failure.request).__name__}: {failure.error}"
            played.fault = Fault(code="bad-request", kind=type(failure.error).__name__, text=text[:300], dealt=dealt)
        finally:
            played.ended = turn.end()
            played.transcript = channel.transcript
        if isinstance(said, m.Failed):
            played.fault = said_fault(said, dealt)
        if said is None and played.ended.reason and played.reason not in ("bad-request", "job-limit"):
            played.fault = Fault(code=played.ended.reason, text=played.ended.detail, dealt=dealt)
        if played.reason:
            played.unfinished = evaluator(env).book.live.cpu().clone()
            raise Stopped(f"{played.reason}: {played.fault.said()}")
        if len(session.returned) > 1:
            raise Malformed(f"an attack returns one perturbation per lane, not {len(session.returned)} arrays")
        return session.returned[0] if session.returned else None


class AnswerFailed(AdvgymError):
    """A request failed, and so does the null perturbation of the same lanes: the platform is to blame."""


def said_fault(said: m.Failed, dealt: bool) -> Fault:
    """What the inside says of its end. Once something was dealt, it may no longer call it a fault of loading."""
    code = said.code if said.code in _SAID and not (dealt and said.code in LOADING) else "crashed"
    return Fault(code=code, kind=said.kind, file=said.file, line=said.line, text=said.text, dealt=dealt)


def mismatch(said: m.Loaded, card: Card) -> str:
    """What a registered attack says of itself otherwise than its card; "" where they agree."""
    if not said.registered:
        return ""
    mine = (sorted(said.kind), said.knowledge, said.proposals)
    theirs = (sorted(card.kinds), card.knowledge, card.proposals)
    for name, one, other in zip(("kind", "knowledge", "proposals"), mine, theirs, strict=True):
        if one != other:
            return f"{name} is {one!r} in @register_agent, and {other!r} on the card"
    return ""


@contextmanager
def guarded(
    box: Box, limits: Limits, task: Task, options: dict[str, Any], env: dict[str, str], played: Played, *,
    device: str = "cpu", record: Recorder | None = None, until: float = float("inf"),
) -> Iterator[Task]:  # fmt: skip
    """The task with its victim behind a submitted defense, which runs in a fresh process, on a device of its own.

    `DefenseFailed` leaves the block with `played` filled in; whoever scores counts what was not answered as broken.

    Args:
        record: is told what the defense answers. until: `time.monotonic()` at which the job is over.
    """
    # The mean of several draws is the evaluator's wish, so a randomised defense has the time for all of them.
    wide = structs.replace(limits, cpu_s=limits.cpu_s * DRAWS, wall_s=limits.wall_s * DRAWS)
    turn = box.turn(wide, role="defense")
    turn.allow(limits)
    channel = Channel(turn.sock, m.Report)
    channel.keep()
    try:
        guard = Guard(task, channel, turn.clock, until)
        victim = guard.enlist(task.name, options, {}, env, device, record)
        if victim.keyed:
            turn.allow(wide)
        yield replace(task, victim=victim, defenses=(*task.defenses, "submission"))
    except DefenseFailed as failure:
        known = failure.fault.code in {*_SAID, "malformed", "exited", "job-limit"}
        played.fault = failure.fault if known else structs.replace(failure.fault, code="crashed")
        raise
    finally:
        played.ended = turn.end()
        played.transcript = channel.transcript
        if played.ended.reason and played.reason in ("exited", "malformed"):
            played.fault = Fault(code=played.ended.reason, text=played.ended.detail, dealt=played.fault.dealt)
