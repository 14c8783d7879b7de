"""Anyone's check of an entry: its rows judged again, its submission run again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from advgym.core.task import Task
from advgym.errors import DataError
from advgym.leaderboards.entries.entry import Entry, Rows, RowSet
from advgym.leaderboards.entries.own_rows import verify_entry
from advgym.leaderboards.rules.board import load
from advgym.leaderboards.runs.contestant import Played
from advgym.leaderboards.runs.evaluate import evaluate, settle_ground
from advgym.leaderboards.runs.rivals import Rivals, unpacked
from advgym.leaderboards.runs.shards import Runner, against
from advgym.leaderboards.runs.stage import Stage
from advgym.leaderboards.sandbox import Box
from advgym.leaderboards.sandbox.workfolder import WorkFolder
from advgym.leaderboards.scoring.outcome import DISPUTE
from advgym.leaderboards.store import artefacts

Kind = TypeVar("Kind", Entry, Rows)


def read_entry_file(path: Path) -> tuple[Entry, Rows]:
    """An entry's file, and the rows beside it.

    Raises:
        DataError: for a file that is no entry, or whose rows are not there.
    """
    return _decoded(path, Entry), _decoded(path.with_name(f"{path.stem}.rows.json"), Rows)


def _decoded(where: Path, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(where.read_bytes(), type=kind)
    except OSError as error:
        hint = "; the rows of a hidden phase are published when it closes" if kind is Rows else ""
        raise DataError(f"cannot read {where}: {error.strerror}{hint}") from None
    except msgspec.DecodeError as error:
        raise DataError(f"{where} is not what the record holds: {error}") from None


def recheck(path: Path, *, boards: str | None = None, device: str = "cpu", level: str | None = None) -> list[str]:
    """Judge every row of an entry again and sum its figures up again; the disagreements in words.

    Args:
        path: DIR/entries/BOARD/ID.json of a data folder. A defense also needs its archive in DIR/blobs.
        level: of the sandbox that a defense runs in.
    """
    entry, rows = read_entry_file(path)
    root = _root(path)
    stage = Stage(load(entry.board, boards), entry.phase, root, device)
    if entry.track == "attack":
        facts = [msgspec.structs.replace(f, seeds=entry.run_seeds) for f in stage.facts]
        return verify_entry(entry, rows, stage.board, facts, _plain(stage), device=device)
    with opened(root, entry, stage, level) as runner:
        ground = settle_ground(runner)
        return verify_entry(entry, rows, stage.board, ground.facts, _defended(runner), device=device)


def rerun(path: Path, *, boards: str | None = None, device: str = "cpu", level: str | None = None) -> list[str]:
    """Run an entry's submission again; what came out differently, in words."""
    entry, _ = read_entry_file(path)
    root = _root(path)
    stage = Stage(load(entry.board, boards), entry.phase, root, device)
    with opened(root, entry, stage, level) as runner:
        again, _ = evaluate(runner, created=entry.created)
    same = [
        ("headline", again.headline, entry.headline), ("transcript", again.transcript, entry.transcript),
        ("rows", again.rows, entry.rows), ("submission", again.submission, entry.submission),
        ("board", again.board_hash, entry.board_hash),
    ]  # fmt: skip
    return [f"{name} is {new}, the entry says {old}" for name, new, old in same if new != old]


@contextmanager
def opened(root: Path | None, entry: Entry, stage: Stage, level: str | None) -> Iterator[Runner]:
    """A runner of an entry's submission, from the record's own archive."""
    if root is None or not entry.submission:
        raise DataError("this entry's submission is not here: its archive lies in DIR/blobs of a server's data folder")
    with WorkFolder("audit") as scratch:
        take = partial(Box, level)

        folder = scratch / "submission"
        card = unpacked(artefacts.get(root, entry.submission), folder, stage.board)
        with Rivals(stage, root, take) as rivals:
            runner = Runner(stage, card, folder, take, rival=rivals)
            try:
                yield runner
            finally:
                runner.close()


def _plain(stage: Stage) -> Any:
    tasks = {t.row.id: t.task for t in stage.tasks}

    @contextmanager
    def task_of(rows: RowSet) -> Iterator[Task]:
        yield tasks[rows.task]

    return task_of


def _defended(runner: Runner) -> Any:
    tasks = {t.row.id: t for t in runner.stage.tasks}

    @contextmanager
    def task_of(rows: RowSet) -> Iterator[Task]:
        here = tasks[rows.task]
        known = not rows.attack.startswith(DISPUTE)
        with runner.defended(here, Played()) as task:
            yield against(task, here.task.victim, runner.rival(rows.attack if known else "noise"))

    return task_of


def _root(path: Path) -> Path | None:
    """The data folder that an entry's file lies in, where it does."""
    folder = path.resolve().parent.parent
    return folder.parent if folder.name == "entries" else None
