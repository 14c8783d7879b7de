"""A submission as an attack or as a defense: what the evaluator plays, with a sandboxed process behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from advgym.leaderboards.board import Limits
from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary.guard import DefenseFailed, Guard
from advgym.leaderboards.boundary.referee import Session
from advgym.leaderboards.boundary.wire import Broken, Channel, Gone
from advgym.leaderboards.card import Card
from advgym.leaderboards.sandbox import Box, Ended
from advgym.task import Task

LOADING = ("syntax-error", "import-error", "no-entry-point", "card-mismatch")  # no shard would fare better
_SAID = {*LOADING, "crashed"}  # codes that the inside may report of itself


@dataclass
class Played:
    """How one turn in the sandbox went; `reason` is "" where the submission came to its end."""

    reason: str = ""
    detail: str = ""
    transcript: str = ""
    ended: Ended | None = None
    unfinished: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))


class Stopped(Exception):
    """The attack did not come to its end; `Played` says why."""


class Contestant:
    """An attack in a sandbox. Use `attack` where an agent's function is wanted; `played` tells how it went."""

    def __init__(self, box: Box, limits: Limits, card: Card) -> None:
        self.box, self.limits, self.card = box, limits, card
        self.played = Played()

    def attack(self, env: Any, *, seed: int = 0) -> None:
        """Play the dealt environment over the boundary, in a fresh process.

        Raises:
            Stopped: when the other side crashed, broke the protocol or hit a limit.
        """
        played = self.played = Played()
        turn = self.box.turn(self.limits, role="agent")
        channel = Channel(turn.sock, m.Request)
        channel.keep()
        said: Any = None
        try:
            session = Session(env, channel, turn.clock)
            session.welcome(seed, {}, list(self.card.kinds), self.card.knowledge)
            said = session.serve()
        except Broken as error:
            played.reason, played.detail = "malformed", str(error)
        except Gone as error:
            played.reason, played.detail = "exited", str(error)
        finally:
            played.ended = turn.end()
            played.transcript = channel.transcript
        if isinstance(said, m.Failed):
            played.reason = said.code if said.code in _SAID else "crashed"
            played.detail = said.what
        if said is None and played.ended.reason:
            played.reason, played.detail = played.ended.reason, played.ended.detail
        if played.reason:
            played.unfinished = env._book.live.cpu().clone()
            raise Stopped(f"{played.reason}: {played.detail}")


@contextmanager
def guarded(
    box: Box, limits: Limits, task: Task, options: dict[str, Any], env: dict[str, str], played: Played, *,
    device: str = "cpu",
) -> Iterator[Task]:  # fmt: skip
    """The task with its victim behind a submitted defense, which runs in a fresh process, on a device of its own.

    `DefenseFailed` leaves the block with `played` filled in; whoever scores counts what was not answered as broken.
    """
    turn = box.turn(limits, role="defense")
    channel = Channel(turn.sock, m.Report)
    channel.keep()
    try:
        guard = Guard(task, channel, turn.clock)
        victim = guard.enlist(task.name, options, {}, env, device)
        yield replace(task, victim=victim, defenses=(*task.defenses, "submission"))
    except DefenseFailed as failure:
        played.reason = failure.code if failure.code in {*_SAID, "malformed", "exited"} else "crashed"
        played.detail = failure.detail
        raise
    finally:
        played.ended = turn.end()
        played.transcript = channel.transcript
        if played.ended.reason and played.reason in ("exited", "malformed"):
            played.reason, played.detail = played.ended.reason, played.ended.detail
