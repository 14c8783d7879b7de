"""What was handed in: the quota, its state, cancelling. A submission and its one job share an id."""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa

from advgym.errors import AdvgymError
from advgym.leaderboards.rules import reasons
from advgym.leaderboards.rules.board_tables import Quota
from advgym.leaderboards.store.db import Store
from advgym.leaderboards.store.tables import job, submission

STATES = ("queued", "running", "scored", "failed", "cancelled")
LIVE = ("queued", "running")
STEP_S = 240  # of the times that hidden phases tell, for a board that this server does not know
Steps = Callable[[str], int]  # `board.told_step` by a board's name
HIDDEN_DETAIL = 120  # characters of detail on a hidden phase: an exception's type and line, not its samples


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A submission as its team sees it.

    Attributes:
        position: in the queue, 1 is the next; 0 when it is not queued.
        done, total: progress of the run, in shards.
        text: what to do about `reason`; "" without one. blame: "participant", "platform" or "".
        log: first and last of what it wrote; "" on a hidden phase until that is revealed.
        counted: whether it counts against the quota.
        created, started, finished: epoch seconds, 0 for not yet.

    On a hidden phase a team is told no more than the organiser means it to learn (docs/cheats.md): times in steps of
    minutes, no progress, no worker, no attempts; and a job is running until the step in which it ended is over.
    """

    id: str
    board: str
    phase: str
    track: str
    team: str
    name: str
    blob: str
    state: str
    position: int
    done: int
    total: int
    attempts: int
    worker: str
    reason: str
    text: str
    blame: str
    log: str
    entry: str
    hidden: bool
    counted: bool
    created: float
    started: float
    finished: float


def submit(
    store: Store, team: str, board: str, phase: str, track: str, blob: str, card: dict[str, Any], quota: Quota,
    *, hidden: bool = False, key: str = "",
) -> str:  # fmt: skip
    """Take one from the quota and queue a job, or neither.

    Args:
        store: the database.
        team: whose quota it is.
        board, phase, track: where it plays.
        blob: SHA-256 of the archive among the artefacts.
        card: its card, as JSON data; `name` is shown in lists.
        quota: of the board, for each phase; days are UTC's.
        hidden: the phase hides its samples, so the log is withheld until `reveal`.
        key: a client's own id of the request: given again, it finds the first submission and takes nothing.

    Returns:
        The submission's id.

    Raises:
        Refused: "over-quota".
    """
    now = store.clock()
    day = day_of(now)
    with store.write(lock=f"quota {team} {board} {phase}") as connection:
        if key:
            key = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()  # whatever length and bytes it has
            mine = sa.select(submission.c.id).where(submission.c.team == team, submission.c.key == key)
            if found := connection.scalar(mine):
                return str(found)
        today, total = _spent(connection, team, board, phase, day)
        if total >= quota.total:
            raise reasons.Refused("over-quota", f"{total} of {quota.total} in this phase")
        if today >= quota.per_day:
            hours = (24 * 3600 - now % (24 * 3600)) / 3600
            raise reasons.Refused(
                "over-quota", f"{today} of {quota.per_day} today (UTC); the next is free in {hours:.1f} hours"
            )
        id = "s" + secrets.token_hex(6)
        row = {
            "id": id, "key": key or None, "board": board, "phase": phase, "track": track, "team": team,
            "name": clean(str(card.get("name", "")))[:200], "blob": blob, "card": msgspec.json.encode(card).decode(),
            "hidden": hidden, "counted": True, "day": day, "created": now,
        }  # fmt: skip
        connection.execute(sa.insert(submission).values(row))
        connection.execute(sa.insert(job).values(submission=id, state="queued"))
    return id


def spent(store: Store, team: str, board: str, phase: str) -> tuple[int, int]:
    """What a team has used of its quota: (today, in all)."""
    with store.read() as connection:
        return _spent(connection, team, board, phase, day_of(store.clock()))


def cancel(store: Store, id: str, team: str = "") -> bool:
    """Cancel a queued job (its quota is given back) or a running one (it is not).

    Args:
        store: the database.
        id: of the submission.
        team: only this team's; "" is the organiser.

    Returns:
        False when it is over already.

    Raises:
        AdvgymError: no such submission of this team.
    """
    with store.write() as connection:
        mine = sa.true() if not team else submission.c.team == team
        both = sa.select(job.c.state).join(submission).where(submission.c.id == id, mine).with_for_update(of=job)
        state = connection.scalar(both)
        if state is None:
            raise AdvgymError(f"no submission {id!r}" + (f" of team {team!r}" if team else ""))
        if state not in LIVE:
            return False
        # The worker's name stays: one that has just written the entry may still say so, and then it is scored.
        end = {"state": "cancelled", "reason": "cancelled", "finished": store.clock()}
        connection.execute(sa.update(job).where(job.c.submission == id).values(end))
        if state == "queued":
            connection.execute(sa.update(submission).where(submission.c.id == id).values(counted=False))
        return True


def usual_step(board: str) -> int:
    """That of a board that nobody knows."""
    return STEP_S


def status(store: Store, id: str, *, full: bool = False, steps: Steps = usual_step) -> Status | None:
    """A submission's state, or None when there is none.

    Args:
        store: the database.
        id: of the submission.
        full: for the organiser: of a hidden phase, too, all there is.
        steps: seconds between the times that hidden phases tell, by the board's name.
    """
    with store.read() as connection:
        row = connection.execute(_query().where(submission.c.id == id)).one_or_none()
        if row is None:
            return None
        ahead = 0
        if row.state == "queued":
            before = sa.select(sa.func.count()).where(job.c.state == "queued", job.c.number < row.number)
            ahead = connection.scalar(before) or 0
    return _status(row, ahead + 1, full, steps, store.clock())


def listing(
    store: Store, *, team: str = "", board: str = "", state: str = "", limit: int = 100, full: bool = False,
    steps: Steps = usual_step,
) -> list[Status]:  # fmt: skip
    """Submissions, the newest first, of one team, board or state where given; `full` and `steps` as in `status`."""
    wanted = [(submission.c.team, team), (submission.c.board, board), (job.c.state, state)]
    query = _query().where(*[column == value for column, value in wanted if value])
    with store.read() as connection:
        rows = connection.execute(query.order_by(job.c.number.desc()).limit(limit)).all()
        queue = sa.select(job.c.submission).where(job.c.state == "queued").order_by(job.c.number)
        places = {id: place for place, id in enumerate(connection.scalars(queue), 1)}
    return [_status(row, places.get(row.id, 0), full, steps, store.clock()) for row in rows]


def counts(store: Store, board: str = "") -> dict[str, int]:
    """How many submissions are in each state."""
    query = sa.select(job.c.state, sa.func.count()).join(submission).group_by(job.c.state)
    with store.read() as connection:
        rows = connection.execute(query.where(submission.c.board == board) if board else query).all()
    return {state: 0 for state in STATES} | {state: count for state, count in rows}


def reveal(store: Store, board: str, phase: str) -> int:
    """A hidden phase has closed: show its logs. Returns how many submissions that concerns."""
    query = sa.update(submission).where(submission.c.board == board, submission.c.phase == phase, submission.c.hidden)
    with store.write() as connection:
        return connection.execute(query.values(hidden=False)).rowcount


def clean(text: str) -> str:
    """Text without control characters (newline and tab aside), which a database or a terminal would trip over."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(c for c in text if c in "\n\t" or not (c < " " or "\x7f" <= c < "\xa0"))


def day_of(now: float) -> str:
    """The date in UTC, which quotas go by."""
    return dt.datetime.fromtimestamp(now, dt.UTC).date().isoformat()


def _spent(connection: sa.Connection, team: str, board: str, phase: str, day: str) -> tuple[int, int]:
    s = submission.c
    today = sa.func.coalesce(sa.func.sum(sa.case((s.day == day, 1), else_=0)), 0)
    query = sa.select(today, sa.func.count()).where(s.team == team, s.board == board, s.phase == phase, s.counted)
    used = connection.execute(query).one()
    return int(used[0]), int(used[1])


def _query() -> sa.Select[Any]:
    return sa.select(submission, job).join_from(submission, job)


def _status(row: sa.Row[Any], place: int, full: bool, steps: Steps, now: float) -> Status:
    secret = row.hidden and not full
    detail = row.detail[:HIDDEN_DETAIL] if secret else row.detail
    found = Status(
        id=row.id, board=row.board, phase=row.phase, track=row.track, team=row.team, name=row.name, blob=row.blob,
        state=row.state, position=place if row.state == "queued" else 0, done=row.done, total=row.total,
        attempts=row.attempts, worker=row.worker, reason=row.reason,
        text=_said(row.reason, detail, row.counted) if row.reason else "",
        blame=reasons.find(row.reason).blame if row.reason else "", log="" if secret else row.log, entry=row.entry,
        hidden=row.hidden, counted=row.counted, created=row.created, started=row.started or 0.0,
        finished=row.finished or 0.0,
    )  # fmt: skip
    return _told(found, steps(row.board), now) if secret else found


def _told(s: Status, step: int, now: float) -> Status:
    """What a team learns of a job on a hidden phase: neither how far it is nor, to the second, when it ended."""
    end = s.finished // step * step
    s = msgspec.structs.replace(
        s, created=s.created // 60 * 60, started=s.started // step * step, finished=end, done=0, total=0, worker="",
        attempts=min(s.attempts, 1),
    )  # fmt: skip
    if s.state in ("queued", "running", "cancelled") or now >= end + step:
        return s
    return msgspec.structs.replace(
        s, state="running", reason="", text="", blame="", entry="", counted=True, finished=0.0
    )


def _said(reason: str, detail: str, counted: bool) -> str:
    """The sentence of a reason; of a fault of the platform, what became of the quota."""
    text = reasons.text(reason, detail)
    if reasons.find(reason).blame != "platform":
        return text
    return text + (
        "; this team's refunds of the day are spent, so it counts" if counted else "; the quota was given back"
    )
