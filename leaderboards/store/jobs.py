"""The queue: a job is claimed under a lease, kept by heartbeats, and ends once."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from advgym.errors import AdvgymError
from advgym.leaderboards.rules import reasons
from advgym.leaderboards.store.db import Store
from advgym.leaderboards.store.submissions import clean, day_of
from advgym.leaderboards.store.tables import job, submission

ATTEMPTS = 3
REFUNDS = 3  # of the platform's faults that give a team its quota back, a day: nobody tries for nothing without end
LOG_PART = 4096  # characters kept of a log's beginning, and of its end


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed job: the submission's id and what it says, and which attempt (from 1) this is."""

    id: str
    board: str
    phase: str
    track: str
    team: str
    name: str
    blob: str
    card: dict[str, Any]
    hidden: bool
    attempt: int
    created: float


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A worker with a job, as the organiser sees it; epoch seconds."""

    worker: str
    job: str
    board: str
    done: int
    total: int
    attempt: int
    seen: float
    lease: float


# Built once: building a statement costs as much as running it. SQLite, with its one writer, leaves SKIP LOCKED out.
_HANDED_IN = [  # SQLite's RETURNING knows no other table but in a subquery
    sa.select(submission.c[name]).where(submission.c.id == job.c.submission).scalar_subquery().label(name)
    for name in ("id", "board", "phase", "track", "team", "name", "blob", "card", "hidden", "created")
]
_OLDEST = sa.select(job.c.number).where(job.c.state == "queued").order_by(job.c.number).limit(1)
_TAKE = (
    sa.update(job)
    .where(job.c.number == _OLDEST.with_for_update(skip_locked=True).scalar_subquery())
    .values(
        state="running", worker=sa.bindparam("by"), attempts=job.c.attempts + 1, lease=sa.bindparam("until"),
        seen=sa.bindparam("now"), started=sa.bindparam("now"), done=0, total=0,
    )
    .returning(job.c.attempts, *_HANDED_IN)
)  # fmt: skip


def claim(store: Store, worker: str, lease_s: float) -> Job | None:
    """Take the oldest queued job for `lease_s` seconds, or None. No two workers get the same one."""
    now = store.clock()
    with store.write(durable=False) as connection:  # undone, it is a job that waits in the queue
        row = connection.execute(_TAKE, {"by": worker, "now": now, "until": now + lease_s}).mappings().one_or_none()
    if row is None:
        return None
    found = dict(row)
    card = msgspec.json.decode(found.pop("card"), type=dict[str, Any])
    return Job(attempt=found.pop("attempts"), card=card, **found)


def heartbeat(store: Store, job_: Job, worker: str, lease_s: float, done: int = 0, total: int = 0) -> bool:
    """Keep the lease and report progress; False: it was cancelled, or given to another: stop and write nothing."""
    now = store.clock()
    query = sa.update(job).where(*_held(job_, worker), job.c.state == "running")
    with store.write(durable=False) as connection:
        values = {"lease": now + lease_s, "seen": now, "done": done, "total": total}
        return connection.execute(query.values(values)).rowcount == 1


def finish(store: Store, job_: Job, worker: str, entry: str, log: str = "") -> bool:
    """The entry is in the record: the job is scored.

    Only the lease's holder may say so; a second time changes nothing. A job cancelled after its entry was written is
    scored: the record decides.

    Returns:
        Whether the job is scored with this entry.
    """
    if not entry:
        raise AdvgymError("finish needs the id of the entry that `write_entry` gave")
    # Scored already, with this entry: the database was brought up to the record before the worker got here.
    open_ = sa.or_(job.c.state.in_(("running", "cancelled")), job.c.entry == entry)
    query = sa.update(job).where(*_held(job_, worker), open_)
    end = {
        "state": "scored", "entry": entry, "reason": "", "detail": "", "log": cut(log), "done": job.c.total,
        "finished": sa.case((job.c.state == "scored", job.c.finished), else_=store.clock()),
    }  # fmt: skip
    with store.write() as connection:
        if connection.execute(query.values(end)).rowcount == 1:
            connection.execute(sa.update(submission).where(submission.c.id == job_.id).values(counted=True))
            return True
        already = sa.select(job.c.entry).where(job.c.submission == job_.id, job.c.state == "scored")
        return connection.scalar(already) == entry


def fail(store: Store, job_: Job, worker: str, reason: str, detail: str = "", log: str = "") -> bool:
    """End a job with a reason code; the platform's fault gives the quota back.

    Args:
        store: the database.
        job_: as claimed.
        worker: who holds it.
        reason: a code of reasons.toml.
        detail: always shown to the team: on a hidden phase an exception's type and line, and no more.
        log: what it wrote; withheld on a hidden phase until that closes.

    Returns:
        False when the worker does not hold it any more, or it is over.
    """
    platform = reasons.find(reason).blame == "platform"
    end = {
        "state": "failed", "reason": reason, "detail": reasons.tidy(detail), "log": cut(log),
        "finished": store.clock(),
    }  # fmt: skip
    query = sa.update(job).where(*_held(job_, worker), job.c.state == "running")
    with store.write() as connection:
        if connection.execute(query.values(end)).rowcount != 1:
            return False
        if platform:
            _refund(store, connection, job_.id)
        return True


def _refund(store: Store, connection: sa.Connection, id: str) -> None:
    """Give the quota of a submission back, where its team has had fewer than `REFUNDS` today (UTC)."""
    s = submission.c
    team = connection.scalar(sa.select(s.team).where(s.id == id))
    given = sa.select(sa.func.count()).select_from(submission).join(job)
    given = given.where(s.team == team, s.day == day_of(store.clock()), ~s.counted, job.c.state == "failed")
    if (connection.scalar(given) or 0) < REFUNDS:
        connection.execute(sa.update(submission).where(s.id == id).values(counted=False))


def release(store: Store, job_: Job, worker: str) -> bool:
    """A worker that is shutting down puts its job back at its place in the queue, and the attempt does not count."""
    back = {"state": "queued", "worker": "", "lease": None, "attempts": job.c.attempts - 1, "done": 0, "total": 0}
    with store.write() as connection:
        query = sa.update(job).where(*_held(job_, worker), job.c.state == "running")
        return connection.execute(query.values(back)).rowcount == 1


def requeue_expired(store: Store) -> int:
    """Jobs whose lease has run out go back to their place in the queue, or fail as "worker-lost" after 3 attempts.

    A server calls it through `rebuild.recover`, so that no worker is called lost whose entry is in the record.

    Returns:
        How many there were.
    """
    now = store.clock()
    lost = (job.c.state == "running", job.c.lease < now)
    back = {"state": "queued", "worker": "", "lease": None, "done": 0, "total": 0}
    end = {"state": "failed", "reason": "worker-lost", "detail": "", "finished": now}
    with store.write(lock="requeue") as connection:
        over = connection.execute(
            sa.update(job).where(*lost, job.c.attempts >= ATTEMPTS).values(end).returning(job.c.submission)
        )
        failed = [row.submission for row in over]
        for id in failed:
            _refund(store, connection, id)
        again = connection.execute(sa.update(job).where(*lost, job.c.attempts < ATTEMPTS).values(back))
        return len(failed) + again.rowcount


def working(store: Store) -> list[Work]:
    """The workers that hold a job now, by name."""
    query = sa.select(job, submission.c.board).join(submission).where(job.c.state == "running")
    with store.read() as connection:
        rows = connection.execute(query.order_by(job.c.worker, job.c.number)).all()
    return [
        Work(
            worker=r.worker, job=r.submission, board=r.board, done=r.done, total=r.total, attempt=r.attempts,
            seen=r.seen, lease=r.lease,
        )
        for r in rows
    ]  # fmt: skip


def cut(log: str) -> str:
    """A log's first and last 4 KB, printable."""
    log = clean(log)
    if len(log) <= 2 * LOG_PART:
        return log
    return f"{log[:LOG_PART]}\n[... {len(log) - 2 * LOG_PART} characters left out ...]\n{log[-LOG_PART:]}"


def _held(job_: Job, worker: str) -> tuple[sa.ColumnElement[bool], ...]:
    # The attempt too: a worker that slept through its lease may bear the name of the one that has the job now.
    return job.c.submission == job_.id, job.c.worker == worker, job.c.attempts == job_.attempt
