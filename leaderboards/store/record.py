"""The record: an entry, its rows, and the line of the ledger that makes them count."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from advgym.errors import AdvgymError, DataError
from advgym.leaderboards.entries.entry import Entry, Rows, canonical, rows_bytes
from advgym.leaderboards.store import files, ledger

ID = re.compile(r"[0-9a-f]{16}")
LEDGER = "ledger.jsonl"
T = TypeVar("T")


class Fault(msgspec.Struct, frozen=True):
    """Something of the record that is not what it was: `where` is a file below the data folder, `text` says what."""

    where: str
    text: str


def sha_of(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Superseded(AdvgymError):
    """A newer version of the entry came first; attribute `newer` is its id."""

    def __init__(self, old: str, newer: str) -> None:
        super().__init__(f"entry {old} was superseded by {newer} meanwhile: go on from that one")
        self.newer = newer


def write_entry(root: Path, entry: Entry, rows: Rows, submission: str = "", *, step_s: int = 0) -> str:
    """Put an entry into the record: its rows, itself, then its line in the ledger, which is what counts.

    A kill between the steps leaves files that no line names, and nothing reads those. The same entry again, or another
    one of the same submission, adds nothing.

    Args:
        root: the data folder.
        entry: with the hash of `rows` in it.
        rows: its judged samples.
        submission: the id of the job it was scored for; "" for a baseline or a new version by hand.
        step_s: its line tells the time in steps of so many seconds (`board.told_step` on a hidden phase), not in one.

    Returns:
        The id of the entry that the record holds: this one's, or the earlier one's of the same submission.

    Raises:
        AdvgymError: the entry cannot be written as JSON and read back, or it was made for other rows.
        Superseded: the entry that this one is a new version of has another new version already.
    """
    data, rest = canonical(entry), rows_bytes(rows, entry.rows)
    if _sha(rest) != entry.rows:
        raise AdvgymError(f"the entry was made for rows {entry.rows[:16]!r}, not for these ({_sha(rest)[:16]})")
    for raw, type in ((data, Entry), (rest, Rows)):  # NaN would become null
        try:
            back = msgspec.json.decode(raw, type=type)
        except msgspec.DecodeError as error:
            raise AdvgymError(f"the entry cannot be kept: {error}; are all its numbers finite?") from None
        if (rows_bytes(back, entry.rows) if isinstance(back, Rows) else canonical(back)) != raw:
            raise AdvgymError("the entry cannot be kept: it reads back as something else")
    body: ledger.Body = {
        "entry": entry.id, "sha": _sha(data), "rows": entry.rows, "board": files.check_name(entry.board),
        "phase": entry.phase, "track": entry.track, "submission": submission,
        **({"supersedes": entry.supersedes} if entry.supersedes else {}),
    }  # fmt: skip
    with ledger.lock(root):
        known = ledger.find(root, "entry", "submission", submission) if submission else None
        known = known or ledger.find(root, "entry", "entry", entry.id)
        if known is None:
            newer = ledger.find(root, "entry", "supersedes", entry.supersedes) if entry.supersedes else None
            if newer is not None:
                raise Superseded(entry.supersedes, str(newer.body["entry"]))
            folder = root / "entries" / entry.board
            files.write(folder / f"{entry.id}.rows.json", rest)
            files.write(folder / f"{entry.id}.json", data)
            now = time.time()
            at = dt.datetime.fromtimestamp(now // step_s * step_s if step_s else now, dt.UTC)
            known = ledger.append_locked(root, "entry", body, at=at)
    return str(known.body["entry"])


def recorded(root: Path, submission: str) -> str:
    """The entry that the record holds for a submission, "" for none: a worker that takes over asks before it runs."""
    line = ledger.find(root, "entry", "submission", submission) if submission else None
    return str(line.body["entry"]) if line else ""


def read_entries(root: Path, board: str) -> list[Entry]:
    """A board's entries in the ledger's order, superseded and stale ones among them.

    Raises:
        DataError: a file is missing or is not what the ledger says.
    """
    lines = [line for line in ledger.read(root) if line.kind == "entry" and line.body.get("board") == board]
    return [load_entry(root, line) for line in lines]


def read_entry(root: Path, id: str) -> Entry | None:
    """The entry of an id, or None when the record has none."""
    line = ledger.find(root, "entry", "entry", id) if ID.fullmatch(id) else None
    return load_entry(root, line) if line else None


def read_rows(root: Path, entry: Entry) -> Rows:
    """The judged samples of an entry.

    Raises:
        DataError: the file is missing or is not what the entry says.
    """
    where = _path(root, entry.board, entry.id, ".rows.json")
    return _load(where, entry.rows, Rows)


def load_entry(root: Path, line: ledger.Line) -> Entry:
    """The entry that a line of the ledger names.

    Raises:
        DataError: the file is missing or is not what the line says.
    """
    board, id, sha = (str(line.body.get(key, "")) for key in ("board", "entry", "sha"))
    return _load(_path(root, board, id, ".json"), sha, Entry)


def _path(root: Path, board: str, id: str, ending: str) -> Path:
    if not ID.fullmatch(id):
        raise DataError(f"{id[:80]!r} is not the id of an entry (16 small hexadecimal digits)")
    return root / "entries" / files.check_name(board) / (id + ending)


def _load(where: Path, sha: str, type: type[T]) -> T:
    try:
        raw = where.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {where}, which the record names: {error.strerror}") from None
    if _sha(raw) != sha:
        raise DataError(f"{where} was changed: it has SHA-256 {_sha(raw)[:16]}..., the record says {sha[:16]}...")
    try:
        return msgspec.json.decode(raw, type=type)
    except msgspec.DecodeError as error:
        raise DataError(f"{where} cannot be read by this version: {error}") from None


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check_record(root: Path) -> list[str]:
    """What is wrong with a data folder's ledger, entries, rows and phase cards, in words; rows may be absent."""
    return [fault.text for fault in faults(root)]


def faults(root: Path, *, whole: bool = False, sha: Callable[[Path], str] = sha_of) -> list[Fault]:
    """Every file of the record that is not what its ledger says, and what is wrong with the ledger.

    Args:
        root: the data folder.
        whole: rows and phase cards that are missing are faults too: a server has them all, a published copy may not.
        sha: the SHA-256 of a file; a server remembers those of files that did not change.
    """
    lines, chain = ledger.sound(root)
    found = [Fault(LEDGER, text) for text in chain]
    cards: dict[str, str] = {}
    for line in lines:
        if line.kind == "entry":
            found += _entry_faults(root, line, whole, sha)
        elif line.kind in ("open", "close"):
            cards[card_name(line)] = str(line.body.get("card", ""))
    for where, digest in cards.items():
        if whole or (root / where).is_file():
            found += card_faults(root, where, digest)
    for path in sorted((root / "phases").glob("*/*.json")):
        where = path.relative_to(root).as_posix()
        if where not in cards:
            found.append(Fault(where, f"{where} is a phase's card, and no line of the ledger opens that phase"))
    return found


def card_name(line: ledger.Line) -> str:
    """The file of the phase's card that a line of the ledger is about, below the data folder."""
    return f"phases/{line.body.get('board', '')}/{line.body.get('phase', '')}.json"


def card_faults(root: Path, where: str, digest: str) -> list[Fault]:
    """What is wrong with a phase's card, whose SHA-256 the ledger gives."""
    try:
        now = _sha(canonical(msgspec.json.decode((root / where).read_bytes())))
    except OSError as error:
        return [Fault(where, f"cannot read {where}, which the ledger names: {error.strerror}")]
    except msgspec.DecodeError:
        now = ""
    return [] if now == digest else [Fault(where, f"{where} was changed: it is not the card that the ledger names")]


def _entry_faults(root: Path, line: ledger.Line, whole: bool, sha: Callable[[Path], str]) -> list[Fault]:
    found = []
    board, id = str(line.body.get("board", "")), str(line.body.get("entry", ""))
    for ending, key, must in ((".json", "sha", True), (".rows.json", "rows", whole)):
        where = f"entries/{board}/{id}{ending}"
        try:
            path, said = _path(root, board, id, ending), str(line.body.get(key, ""))
            now = sha(path) if must or path.is_file() else said
        except OSError as error:
            found.append(Fault(where, f"cannot read {where}, which the record names: {error.strerror}"))
        except AdvgymError as error:
            return [Fault(LEDGER, f"ledger line {line.seq + 1} names no entry: {error}")]
        else:
            if now != said:
                text = f"{where} was changed: it has SHA-256 {now[:16]}..., the record says {said[:16]}..."
                found.append(Fault(where, text))
    return found
