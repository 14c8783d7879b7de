"""Examples of an entry as HTML fragments, drawn once by whoever has the tasks at hand, and kept on disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from advgym import __version__
from advgym.errors import AdvgymError
from advgym.leaderboards.entries.entry import Entry, Rows
from advgym.leaderboards.service.shelf import Book, Shelf
from advgym.lib.files import write_atomic
from advgym.lib.rates import mean

MOST = 4  # of a task
PATIENCE_S = 1.5  # a page waits this long for pictures before it goes without them


class Shown(msgspec.Struct):
    """One example: what `report_examples.Example` holds."""

    agent: str
    sample: int
    before: str
    after: str
    fragment: str
    line: str
    queries: int
    distance: str
    told: bool = False


Shows = list[tuple[str, list[Shown]]]


def draw(root: Path, id: str, entry: Entry, rows: Rows, tasks: Mapping[str, Any]) -> Shows:
    """Draw the examples of an entry and keep them, for the pages to show. The scorer calls this when it has scored.

    Args:
        root: the data folder.
        id: of the entry.
        rows: its judged samples.
        tasks: by task id, made with the phase's data and victims; a task that is missing is left out.
    """
    from advgym.report.examples import examples

    shows: Shows = []
    for name in dict.fromkeys(rs.task for rs in rows.sets):
        sets = [rs for rs in rows.sets if rs.task == name]
        runs: list[Any] = [
            SimpleNamespace(
                agent=rs.attack or entry.name, split=rs.split, samples=rs.samples,
                success_rate=mean([float(s.success) for s in rs.samples]),
                queries_mean=mean([float(s.queries) for s in rs.samples]),
            )
            for rs in sets
        ]  # fmt: skip
        if name in tasks:
            found = examples(tasks[name], runs, MOST)
            shows.append((name, [Shown(**vars(e)) for e in found]))
    shows = [(name, found) for name, found in shows if found]
    write_atomic(_path(root, id), msgspec.json.encode(shows))
    return shows


def _path(root: Path, id: str) -> Path:
    return Path(root) / "pictures" / __version__ / f"{id}.json"


def kept(root: Path, id: str) -> Shows | None:
    """What `draw` kept, or None."""
    path = _path(root, id)
    return msgspec.json.decode(path.read_bytes(), type=Shows) if path.is_file() else None


def draw_published(shelf: Shelf, book: Book, id: str) -> Shows:
    """Draw an entry from its published rows; nothing where tasks or their data are not installed."""
    entry, raw = book.entries[id], shelf.rows(book, id)
    if raw is None:
        return []
    rows = msgspec.json.decode(raw, type=Rows)
    tasks = {}
    for rs in rows.sets:
        if rs.task not in tasks:
            try:
                tasks[rs.task] = _task(shelf, book, entry, rs.task, rs.options)
            except (AdvgymError, ImportError):  # real data that this machine does not have
                continue
    return draw(shelf.root, id, entry, rows, tasks)


def _task(shelf: Shelf, book: Book, entry: Entry, name: str, options: dict[str, Any]) -> Any:
    if book.board.phases[entry.phase].hidden:
        from advgym.leaderboards.rules.phases import phase_tasks

        return next(t.task for t in phase_tasks(book.board, entry.phase, shelf.root) if t.row.id == name)
    from advgym.core.task import make_task

    return make_task(name, **{k: v for k, v in options.items() if k != "own"})


class Pictures:
    """Draws what nobody has drawn yet, one entry at a time, beside the requests."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._jobs: dict[str, Future[Shows]] = {}
        self._lock = threading.Lock()

    def get(self, book: Book, id: str) -> Shows | None:
        """The examples of an entry; None while they are being drawn."""
        if not book.published(book.entries[id].phase):
            return []
        found = kept(self.shelf.root, id)
        if found is not None:
            return found
        with self._lock:
            busy = any(not job.done() for job in self._jobs.values())
            job = self._jobs.get(id)
            if job is None:
                job = self._jobs[id] = self._pool.submit(draw_published, self.shelf, book, id)
        try:
            return job.result(timeout=0.0 if busy else PATIENCE_S)
        except TimeoutError:
            return None
        except Exception:  # an entry without pictures is still an entry
            logging.getLogger(__name__).exception("the examples of entry %s could not be drawn", id)
            return []

    def close(self) -> None:
        """Let go of what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)
