"""A board by name or file: found, read, checked, hashed, and what is asked of it."""

from __future__ import annotations

import hashlib
import math
import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from advgym import registry
from advgym.errors import AdvgymError, DataError, unknown
from advgym.leaderboards.rules.board_tables import WIDEN, Board, BoardTask, Phase
from advgym.leaderboards.rules.board_values import shape_problems, value_problems

MOST_BYTES = 1 << 20  # of a board's file
UNSCORED = ("title", "summary", "opens", "closes", "quota")  # what no score depends on
LATER = (("limits", "job_s"),)  # keys that the first boards had not: at their default they are not hashed, like `widen`
DURATIONS = 32  # a hidden phase tells how long a job took in at most so many steps


def folder() -> Path:
    """Where the boards that ship are."""
    return Path(__file__).parents[1] / "boards"


def builtin() -> dict[str, Path]:
    """The boards that ship: name -> file."""
    return {path.stem: path for path in sorted(folder().glob("*.toml"))}


def known(boards: str | Path | None = None) -> dict[str, Path]:
    """Every board by name: those that ship, then those in `boards` (else in $ADVGYM_BOARDS), which go first by name.

    Raises:
        DataError: where that folder does not exist.
    """
    where = boards or os.environ.get("ADVGYM_BOARDS")
    if not where:
        return builtin()
    if not Path(where).is_dir():
        raise DataError(f"{where} is not a folder of boards (NAME.toml); `advgym new board PATH` writes one")
    return {**builtin(), **{path.stem: path for path in sorted(Path(where).glob("*.toml"))}}


def find(name: str | Path, boards: str | Path | None = None) -> Path:
    """The file of a board: `name` is a name, or the path of a TOML file."""
    text = str(name)
    if text.endswith(".toml") or "/" in text:
        path = Path(text)
        if not path.is_file():
            raise DataError(f"there is no board file {text}; `advgym list boards` names what there is")
        return path
    table = known(boards)
    if text not in table:
        raise unknown("board", text, table, "The path of a .toml file works too.")
    return table[text]


def load(name: str | Path, boards: str | Path | None = None) -> Board:
    """A board by name or by the path of its TOML.

    Args:
        name: of a board that ships or that lies in `boards`; or a path.
        boards: a folder of boards; $ADVGYM_BOARDS by default.

    Raises:
        AdvgymError: with every problem of the file, one a line.
    """
    path = find(name, boards)
    raw = read(path)
    problems = shape_problems(raw, Board, "") or value_problems(_convert(raw, path))
    if problems:
        raise AdvgymError(f"{path} is not a board:\n" + "\n".join(f"  {p}" for p in problems))
    return _convert(raw, path)


def read(path: Path) -> dict[str, Any]:
    """The tables of a board's file, unchecked."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path} is larger than {MOST_BYTES} bytes; a board is a short TOML")
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the board {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a board in TOML: {error}") from None
    return found


def _convert(raw: dict[str, Any], path: Path) -> Board:
    return msgspec.structs.replace(msgspec.convert(raw, Board), name=raw.get("name", path.stem))


def board_hash(board: Board) -> str:
    """SHA-256 of everything in a board that decides scores: its canonical JSON without title, summary, dates, quota.

    A later closing date or another title makes no entry stale; another budget does.
    """
    table = {k: v for k, v in msgspec.to_builtins(board).items() if k not in UNSCORED}
    usual = msgspec.to_builtins(Board(board.title, board.opens, board.closes, [], {}))
    for part, key in LATER:  # so that a phase stays open, and an entry fresh, when a newer version knows one key more
        if table[part][key] == usual[part][key]:
            del table[part][key]
    for row in table["tasks"]:
        if row["widen"] == WIDEN:
            del row["widen"]
    return hashlib.sha256(msgspec.json.encode(table, order="sorted")).hexdigest()


def told_step(board: Board) -> int:
    """Seconds between the times that a hidden phase tells: a minute, or more minutes where a job may take long.

    >>> import datetime as dt
    >>> from advgym.leaderboards.rules.board_tables import Limits
    >>> day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    >>> told_step(Board("t", day, day, [], {})), told_step(Board("t", day, day, [], {}, limits=Limits(job_s=600)))
    (240, 60)
    """
    return 60 * max(1, math.ceil(board.limits.job_s / DURATIONS / 60))


def public_data(board: Board, phase: str) -> bool:
    """Whether participants can know the samples of this phase: it is marked `public-data`."""
    return not phase_of(board, phase).hidden


def phase_of(board: Board, phase: str) -> Phase:
    """A phase of a board by name.

    Raises:
        AdvgymError: for one that the board does not have.
    """
    if phase not in board.phases:
        raise unknown(f"phase of the board {board.name}", phase, board.phases)
    return board.phases[phase]


def gives(given: str, needed: str) -> bool:
    """Whether a task of `given` knowledge lets an agent play that needs `needed`.

    Under transfer a surrogate answers everything, gradients too, so every agent can play.
    """
    return given == "transfer" or registry.KNOWLEDGE.index(needed) <= registry.KNOWLEDGE.index(given)


def task_options(board: Board, row: BoardTask) -> dict[str, Any]:
    """What `make_task` is told for a row of a board."""
    budget = {"queries": row.queries, **({"gradients": row.gradients} if row.gradients else {})}
    return {"knowledge": row.knowledge, "goal": row.goal, **budget, "probes": board.probes,
            "widen": row.widen, **row.constraint}  # fmt: skip
