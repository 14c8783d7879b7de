"""From the record back to the database: the copy of the entries, and what became of each submission."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import sqlalchemy as sa

from advgym.errors import AdvgymError, DataError
from advgym.leaderboards.entries.entry import Entry, canonical
from advgym.leaderboards.store import jobs, ledger, record, tables
from advgym.leaderboards.store.db import Store
from advgym.leaderboards.store.ledger import Line

HEAD = "ledger"  # the key in `meta` of the last line that the database knows: "seq hash"
REPLACED = "replaced"  # that of the note that the ledger was not the one that the database knew


def rebuild(store: Store, root: Path) -> list[str]:
    """Check the record and copy all of it into the database again.

    Where the two disagree about a submission, the record decides; submissions that only the record knows come back as
    scored ones, and count against their team's quota.

    Returns:
        What is wrong, in words: damaged lines, entries and rows that are not what the ledger says, and scored jobs that
        the ledger does not know. Entries that are wrong are left out.
    """
    faults = ledger.verify_chain(root)
    try:
        lines = ledger.read(root)
    except DataError as error:
        return faults or [str(error)]
    good, bad = _load(root, lines, rows=True)
    with store.write(lock="rebuild") as connection:
        connection.execute(sa.delete(tables.entry))
        _copy(store, connection, good, lines)
        t = tables.job.c
        held = t.entry.in_(sa.select(tables.entry.c.id))
        astray = sa.select(t.submission, t.entry).where(t.state == "scored", ~held).order_by(t.number)
        missing = connection.execute(astray).all()
    lost_ones = [f"submission {s} is scored as {e}, which the record does not hold" for s, e in missing]
    return [*faults, *bad, *lost_ones]


def refresh(store: Store, root: Path) -> list[str]:
    """Copy what the ledger has gained since the last time (cheap when nothing); returns faults as `rebuild` does."""
    with store.read() as connection:
        known_ = known(connection)
    try:
        last = ledger.head(root)
        if known_ == ((last.seq, last.hash) if last else None):
            return []
        lines = ledger.read(root)
    except DataError as error:
        return [str(error)]
    at = known_[0] if known_ else -1
    if known_ and (at >= len(lines) or lines[at].hash != known_[1]):  # not the ledger that it was
        _note(store, at, known_[1], len(lines))
        return rebuild(store, root)
    good, bad = _load(root, lines[at + 1 :], rows=False)
    with store.write(lock="rebuild") as connection:
        _copy(store, connection, good, lines)
    return bad


def recover(store: Store, root: Path) -> list[str]:
    """What a server does every few seconds: `refresh`, then `jobs.requeue_expired`; returns the faults.

    In this order: a worker that died between writing its entry and saying so has done its job, not lost it.
    """
    faults = refresh(store, root)
    jobs.requeue_expired(store)
    return faults


def entries(store: Store, board: str) -> list[Entry]:
    """A board's entries in the ledger's order, from the database's copy (`refresh` it first)."""
    query = sa.select(tables.entry.c.body).where(tables.entry.c.board == board).order_by(tables.entry.c.seq)
    with store.read() as connection:
        return [msgspec.json.decode(body, type=Entry) for body in connection.scalars(query)]


def known(connection: sa.Connection) -> tuple[int, str] | None:
    """(seq, hash) of the last line that the database knows."""
    value = _meta(connection, HEAD)
    if not value:
        return None
    seq, hash = value.split()
    return int(seq), hash


def replaced(connection: sa.Connection) -> str:
    """The note that the ledger lost or changed lines that the database knew; "" where it never did."""
    return _meta(connection, REPLACED)


def accept(store: Store) -> bool:
    """Forget that note: the organiser knows of it (a copy was restored). Returns whether there was one."""
    with store.write() as connection:
        return connection.execute(sa.delete(tables.meta).where(tables.meta.c.key == REPLACED)).rowcount == 1


def _meta(connection: sa.Connection, key: str) -> str:
    return str(connection.scalar(sa.select(tables.meta.c.value).where(tables.meta.c.key == key)) or "")


def _note(store: Store, seq: int, hash: str, lines: int) -> None:
    """Keep the first such note: rebuilding makes the two agree again, and nobody would hear of it."""
    when = dt.datetime.fromtimestamp(store.clock(), dt.UTC).isoformat(timespec="seconds")
    text = (
        f"since {when} the ledger is not the one that this database knew: it had line {seq + 1} with hash "
        f"{hash[:16]}..., and now has {lines} lines without it. Where it was not restored on purpose it was rewritten"
    )
    with store.write() as connection:
        connection.execute(store.insert(tables.meta).values(key=REPLACED, value=text).on_conflict_do_nothing())


def _load(root: Path, lines: list[Line], rows: bool) -> tuple[list[tuple[Line, Entry]], list[str]]:
    good, bad = [], []
    for line in lines:
        if line.kind != "entry":
            continue
        try:
            entry = record.load_entry(root, line)
            if entry.rows != line.body.get("rows"):
                raise DataError(f"entry {entry.id} and ledger line {line.seq + 1} name different rows")
            if rows:
                record.read_rows(root, entry)
            good.append((line, entry))
        except AdvgymError as error:
            bad.append(str(error))
    return good, bad


def _copy(store: Store, connection: sa.Connection, found: list[tuple[Line, Entry]], lines: list[Line]) -> None:
    for line, entry in found:
        of = str(line.body.get("submission", ""))
        row = {
            "id": entry.id, "seq": line.seq, "submission": of or None, "board": entry.board, "phase": entry.phase,
            "track": entry.track, "body": canonical(entry).decode(),
        }  # fmt: skip
        connection.execute(store.insert(tables.entry).values(row).on_conflict_do_nothing())
        if of:
            _settle(store, connection, of, line, entry)
    last = f"{lines[-1].seq} {lines[-1].hash}" if lines else ""
    head = store.insert(tables.meta).values(key=HEAD, value=last)
    connection.execute(head.on_conflict_do_update(index_elements=["key"], set_={"value": last}))


def _settle(store: Store, connection: sa.Connection, id: str, line: Line, entry: Entry) -> None:
    """A submission that the record has scored is scored, whatever its job said."""
    when = dt.datetime.fromisoformat(line.at)
    given = {
        "id": id, "board": entry.board, "phase": entry.phase, "track": entry.track, "team": entry.team,
        "name": entry.name, "blob": entry.submission, "card": "{}", "hidden": False, "counted": True,
        "day": when.astimezone(dt.UTC).date().isoformat(), "created": when.timestamp(),
    }  # fmt: skip
    s, j = tables.submission, tables.job
    connection.execute(store.insert(s).values(given).on_conflict_do_nothing())
    connection.execute(store.insert(j).values(submission=id, state="running").on_conflict_do_nothing())
    end = {"state": "scored", "entry": entry.id, "reason": "", "detail": "", "finished": when.timestamp()}
    settled = connection.execute(sa.update(j).where(j.c.submission == id, j.c.state != "scored").values(end)).rowcount
    if settled:
        connection.execute(sa.update(s).where(s.c.id == id).values(counted=True))
