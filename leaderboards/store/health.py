"""Whether the record, and the database's copies of it, are what they were: looked at from a server's start on."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import sqlalchemy as sa

from advgym.errors import AdvgymError, DataError
from advgym.leaderboards.store import ledger, rebuild, record, tables
from advgym.leaderboards.store.db import Store
from advgym.leaderboards.store.record import Fault

log = logging.getLogger("advgym")
DATABASE = "database"
EVERY_S = 600.0
ANEW_S = 86400.0  # every file is read again so often, whatever the disk says of its times
AGAIN_S = 0.5  # a writer between two files looks like a fault for a moment


class Health(msgspec.Struct, frozen=True):
    """What a look at the record found, at `checked` (epoch seconds); no fault: all of it is what it was."""

    checked: float
    faults: list[Fault] = []


class Hashes:
    """SHA-256 of files; one whose inode, size and times are the same is not read again."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}
        self._since = time.monotonic()

    def __call__(self, path: Path) -> str:
        info = path.stat()
        # Also the time of the last change of the inode: nobody but the kernel sets that one.
        mark = (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        known = self._known.get(path)
        if known is None or known[0] != mark:
            known = self._known[path] = mark, record.sha_of(path)
        return known[1]

    def renew(self) -> None:
        """Forget everything once a day: a disk may rot without a word."""
        if time.monotonic() - self._since > ANEW_S:
            self._known.clear()
            self._since = time.monotonic()


class Watch:
    """Looks at the record and remembers what it found. Threads may share one.

    Args:
        store: whose copies of the entries are compared with the files.
        root: the data folder.
        tell: called with the faults after every look.
    """

    def __init__(self, store: Store, root: Path, tell: Callable[[list[Fault]], None] = lambda faults: None) -> None:
        self.store, self.root, self.tell = store, Path(root), tell
        self._hashes, self._lock = Hashes(), threading.Lock()
        self._last: Health | None = None

    @property
    def health(self) -> Health:
        """What the last look found; the first one is made here where there was none."""
        return self._last or self.look()

    def look(self) -> Health:
        """Look now. Cheap where nothing changed: files are named by the ledger, and only their times are asked."""
        with self._lock:
            self._hashes.renew()
            found = examine(self.store, self.root, self._hashes)
            if found:
                time.sleep(AGAIN_S)
                found = examine(self.store, self.root, self._hashes)
            before = self._last.faults if self._last else []
            self._last = Health(self.store.clock(), found)
        for fault in found:
            if fault not in before:
                log.error("the record is damaged: %s", fault.text)
        if before and not found:
            log.warning("the record is whole again")
        self.tell(found)
        return self._last

    def run(self, stop: threading.Event, every_s: float = EVERY_S) -> None:
        """Look from time to time until `stop` is set."""
        while not stop.wait(every_s):
            try:
                self.look()
            except Exception as error:  # the database may be away for a moment
                log.warning("the record was not looked at: %s", type(error).__name__)


def examine(store: Store, root: Path, sha: Callable[[Path], str] = record.sha_of) -> list[Fault]:
    """Everything that is wrong with the record in a server's folder and with the database's copies of it."""
    try:
        rebuild.refresh(store, root)
        return [*record.faults(root, whole=True, sha=sha), *disagreements(store, root)]
    except DataError as error:  # the ledger cannot be read at all
        return [Fault(record.LEDGER, str(error))]
    except AdvgymError as error:
        return [Fault(DATABASE, str(error))]


def disagreements(store: Store, root: Path) -> list[Fault]:
    """Where the database's copies are not what the ledger says, and where the ledger is not the one that it knew."""
    with store.read() as connection:
        known = rebuild.known(connection)
        copies = {row.id: row for row in connection.execute(sa.select(tables.entry))}
        scored = dict(connection.execute(
            sa.select(tables.job.c.entry, tables.job.c.submission).where(tables.job.c.state == "scored")
        ).tuples().all())  # fmt: skip
        note = rebuild.replaced(connection)
    lines = {str(line.body.get("entry")): line for line in ledger.sound(root)[0] if line.kind == "entry"}
    texts = [note] if note else []
    for id, line in lines.items():
        row = copies.get(id)
        if row is None:
            if known and line.seq <= known[0]:
                texts.append(f"the database has no copy of entry {id}, which ledger line {line.seq + 1} names")
        elif hashlib.sha256(row.body.encode()).hexdigest() != line.body.get("sha"):
            texts.append(f"the database's copy of entry {id} is not the entry that ledger line {line.seq + 1} names")
    texts += [f"the database has an entry {id} that no sound line of the ledger names" for id in copies.keys() - lines]
    texts += [
        f"submission {of} is scored as {id}, which the record does not hold"
        for id, of in scored.items()
        if id not in lines and id not in copies
    ]
    return [Fault(DATABASE, text) for text in texts]
