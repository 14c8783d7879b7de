"""The ledger: one line for each thing that happened to the record, each with the hash of the one before.

A line is canonical JSON (sorted keys, no spaces) and ends in a newline. Its `hash` is the SHA-256 of the same JSON
without `hash`. A line without its newline was torn by a kill: nobody was told of it, readers pass over it and the next
`append` takes it away.
"""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

from advgym.errors import AdvgymError, DataError, unknown
from advgym.leaderboards.entries.entry import canonical
from advgym.leaderboards.store import files

KINDS = ("entry", "open", "close", "dispute", "footnote", "stale")
ZERO = "0" * 64
TAIL = 1 << 16  # bytes; no line is longer

Body = dict[str, str | int | list[str]]


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line: `seq` counts from 0, `at` is UTC, `body` names and hashes things and holds none."""

    seq: int
    prev: str
    at: str
    kind: str
    body: Body
    hash: str


def append(root: Path, kind: str, body: Body, *, once: tuple[str, ...] = (), at: dt.datetime | None = None) -> Line:
    """Add a line; it is on the disk when this returns.

    Args:
        root: the data folder.
        kind: one of `KINDS`.
        body: strings, integers and lists of strings.
        once: keys of the body: if a line of this kind has the same, non-empty, value of any, that line is returned
            and none is added.
        at: the time, now by default.

    Raises:
        DataError: the last line is damaged.
    """
    if kind not in KINDS:
        raise unknown("kind of ledger line", kind, KINDS)
    with lock(root):
        return append_locked(root, kind, body, once=once, at=at)


def append_locked(
    root: Path, kind: str, body: Body, *, once: tuple[str, ...] = (), at: dt.datetime | None = None
) -> Line:
    """`append` for who holds the `lock`."""
    for key in once:
        if body.get(key) and (same := find(root, kind, key, str(body[key]))):
            return same
    _heal(path(root))
    last = head(root)
    when = (at or dt.datetime.now(dt.UTC)).astimezone(dt.UTC).isoformat(timespec="seconds")
    line = seal(last.seq + 1 if last else 0, last.hash if last else ZERO, when, kind, body)
    data = canonical(line) + b"\n"
    if len(data) > TAIL:
        raise AdvgymError(f"a ledger line has at most {TAIL} bytes, not {len(data)}: name things by their hashes")
    msgspec.json.decode(data, type=Line)  # what cannot be read back is not written
    try:
        with path(root).open("ab", buffering=0) as file:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        if not line.seq:
            files.sync_folder(root)
    except OSError as error:  # what is there of the line is torn, and goes at the next try
        raise DataError(f"cannot write {path(root)}: {error.strerror}") from None
    return line


def seal(seq: int, prev: str, at: str, kind: str, body: Body) -> Line:
    """A line with its hash."""
    bare: dict[str, Any] = {"seq": seq, "prev": prev, "at": at, "kind": kind, "body": body}
    return Line(**bare, hash=hashlib.sha256(canonical(bare)).hexdigest())


def read(root: Path, start: int = 0) -> list[Line]:
    """The lines from `seq` `start` on, oldest first.

    Raises:
        DataError: a line that is none, with its number.
    """
    return [_decode(root, number, raw) for number, raw in enumerate(_raw(root)) if number >= start]


def head(root: Path) -> Line | None:
    """The last line, or None in an empty ledger. What it says is published: who keeps it can prove a later change."""
    try:
        with path(root).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 2 * TAIL))  # a whole line and a torn one
            whole = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    if not whole:
        return None
    line = _decode(root, -1, whole[-1])
    if seal(line.seq, line.prev, line.at, line.kind, line.body) != line:
        raise DataError(f"the last line of {path(root)} was changed: its hash is another")
    return line


def find(root: Path, kind: str, key: str, value: str) -> Line | None:
    """The first line of a kind whose body has `value` under `key`."""
    part = canonical(value)
    for number, raw in enumerate(_raw(root)):
        if part in raw:
            line = _decode(root, number, raw)
            if line.kind == kind and line.body.get(key) == value:
                return line
    return None


def verify_chain(root: Path, published: Line | None = None) -> list[str]:
    """Every fault of the ledger in words; none when it is whole.

    Args:
        root: the data folder.
        published: a head that was exported earlier; the chain must hold it.
    """
    lines, faults = sound(root)
    if published is not None and published not in lines:
        faults.append(f"the published head (seq {published.seq}, {published.hash[:16]}...) is not in the ledger")
    return faults


def sound(root: Path) -> tuple[list[Line], list[str]]:
    """The lines that still have their own hash, oldest first, and every fault of the chain in words."""
    lines, faults, prev = [], [], ZERO
    for number, raw in enumerate(_raw(root)):
        where = f"ledger line {number + 1}"
        try:
            line = _decode(root, number, raw)
        except DataError as error:
            faults.append(str(error))
            prev = ""
            continue
        if canonical(line) != raw:
            faults.append(f"{where} is not canonical JSON")
        if seal(line.seq, line.prev, line.at, line.kind, line.body).hash != line.hash:
            faults.append(f"{where} was changed: its hash is another")
        else:
            lines.append(line)
        if line.seq != number:
            faults.append(f"{where} has seq {line.seq}, not {number}: a line was added or taken away")
        if prev and line.prev != prev:
            faults.append(f"{where} does not follow the line before it")
        if line.kind not in KINDS:
            faults.append(f"{where} has an unknown kind {line.kind!r}")
        prev = line.hash
    return lines, faults


def path(root: Path) -> Path:
    """The ledger's file."""
    return root / "ledger.jsonl"


def lock(root: Path) -> Any:
    """A context in which nobody else writes to the record."""
    return files.locked(root / "ledger.lock")


def _raw(root: Path) -> list[bytes]:
    """The whole lines, without a torn last one."""
    try:
        return path(root).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"cannot read {path(root)}: {error.strerror}") from None


def _decode(root: Path, number: int, raw: bytes) -> Line:
    try:
        return msgspec.json.decode(raw, type=Line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        which = f"line {number + 1}" if number >= 0 else "the last line"
        raise DataError(f"{which} of {path(root)} is damaged: {error}") from None


def _heal(file: Path) -> None:
    """Take a torn last line away: bytes after the last newline."""
    try:
        with file.open("r+b") as handle:
            size = handle.seek(0, os.SEEK_END)
            start = max(0, size - 2 * TAIL)
            handle.seek(start)
            tail = handle.read()
            keep = start + tail.rfind(b"\n") + 1
            if keep == start and start > 0:
                raise DataError(
                    f"{file} ends in {len(tail)} bytes that are no line; restore it from its published copy"
                )
            if keep < size:
                handle.truncate(keep)
                os.fsync(handle.fileno())
    except FileNotFoundError:
        return
