"""A submission's state in words, and as a stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import msgspec
from starlette.concurrency import run_in_threadpool

from advgym.leaderboards.store.db import Store
from advgym.leaderboards.store.submissions import LIVE, Status, Steps, status

STREAMS = 200  # at once
EVERY_S = 1.0
QUIET_S = 15.0  # a comment keeps a silent connection open


def line(s: Status) -> str:
    """Where a submission stands, in one line.

    >>> from types import SimpleNamespace as N
    >>> line(N(state="queued", position=2, done=0, total=0, attempts=0))
    'position 2 in the queue'
    """
    if s.state == "queued":
        return "next in the queue" if s.position == 1 else f"position {s.position} in the queue"
    if s.state == "running":
        again = f", attempt {s.attempts}" if s.attempts > 1 else ""
        return (f"{s.done} of {s.total} shards done" if s.total else "the sandbox is starting") + again
    return {"scored": "it is on the board", "failed": "it was not scored", "cancelled": "by its team"}.get(s.state, "")


def steps(s: Status) -> list[tuple[str, str]]:
    """(step, "past", "here", "bad" or "") of the way to a score."""
    last = s.state if s.state in ("failed", "cancelled") else "scored"
    names = ["received", "queued", "running", last]
    if s.state in LIVE:
        at = names.index(s.state)
        return [(n, "past" if i < at else "here" if i == at else "") for i, n in enumerate(names)]
    if s.state == "scored":
        return [(n, "past") for n in names]
    ran = s.started > 0
    return [("received", "past"), ("queued", "past"), ("running", "past" if ran else ""), (last, "bad")]


class Feed:
    """Streams of progress; each ends when its submission does."""

    def __init__(self, store: Store, steps: Steps) -> None:
        self.store, self.steps, self.open = store, steps, 0

    def full(self) -> bool:
        """Whether no more streams are taken."""
        return self.open >= STREAMS

    async def events(self, id: str) -> AsyncIterator[bytes]:
        """Server-sent events: {state, line, done, total, over} whenever that changes."""
        self.open += 1
        last, quiet = b"", 0.0
        try:
            while True:
                s = await run_in_threadpool(partial(status, self.store, id, steps=self.steps))
                if s is None:
                    return
                over = s.state not in LIVE
                now = msgspec.json.encode(
                    {"state": s.state, "line": line(s), "done": s.done, "total": s.total, "over": over}
                )
                quiet = 0.0 if now != last else quiet + EVERY_S
                if now != last:
                    yield b"data: " + now + b"\n\n"
                elif quiet >= QUIET_S:
                    quiet = 0.0
                    yield b": still here\n\n"
                if over:
                    return
                last = now
                await asyncio.sleep(EVERY_S)
        finally:
            self.open -= 1
