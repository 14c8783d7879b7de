"""The hash of the code that decides scores: when it changes, entries turn stale."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from advgym import registry
from advgym.errors import AdvgymError
from advgym.leaderboards.entry import canonical

if TYPE_CHECKING:
    from advgym.leaderboards.board import Board

# What says which inputs count, what they cost, who won and how that is summed up.
CORE = (
    "aims.py", "asking.py", "batch.py", "blind.py", "book.py", "cached.py", "clean.py", "columns.py", "costs.py",
    "drawn.py", "edits.py", "env.py", "episodes.py", "field.py", "given.py", "glyphs.py", "goals.py", "keyed.py",
    "lanes.py", "moves.py",
    "needs.py", "offers.py", "oracle.py", "reading.py", "results.py", "rng.py", "run.py", "settings.py",
    "settle.py", "task.py", "threat.py", "verifier.py", "victim.py",
    "leaderboards/boundary/guard.py", "leaderboards/boundary/recorder.py", "leaderboards/boundary/referee.py",
    "leaderboards/boundary/terms.py", "leaderboards/contestant.py", "leaderboards/evaluate.py",
    "leaderboards/facts.py", "leaderboards/fresh.py", "leaderboards/headline.py", "leaderboards/intervals.py",
    "leaderboards/measured.py", "leaderboards/outcome.py", "leaderboards/scoring.py",
    "leaderboards/second_answer.py", "leaderboards/shards.py",
)  # fmt: skip
# What those import of the core and what decides no score: words, look-ups, shapes, files, models of one's own.
ASIDE = (
    "checkpoint.py", "content.py", "contract.py", "errors.py", "flags.py", "foreign.py", "ids.py", "registry.py",
    "spaces.py", "weights.py",
)  # fmt: skip
SHOWN = ("show.py",)  # files of a domain that only draw
SCORING = ("*.py", "*.json")  # of a domain and the packages in it: code, and what its columns are calibrated with


def scorer_hash(board: Board) -> str:
    """SHA-256 over the sources that decide the scores of a board: the core's, its tasks' domains', and the tasks' rows.

    Other domains may change without making a board's entries stale. Names and order are part of it; line ends are not.
    """
    digest = hashlib.sha256()
    rows = {task.id: registry.task_row(task.id)[1] for task in board.tasks}
    files = {name: registry.HOME / name for name in CORE}
    for row in rows.values():
        files.update(_domain(str(row["make"]).partition(":")[0]))
    for name, path in sorted(files.items()):
        try:
            text = path.read_bytes().replace(b"\r\n", b"\n")
        except OSError as error:
            raise AdvgymError(f"cannot read {path}, which decides scores: {error.strerror}; reinstall advgym") from None
        digest.update(f"{name}\n{len(text)}\n".encode() + text)
    digest.update(canonical(rows))
    return digest.hexdigest()


def _domain(module: str) -> dict[str, Path]:
    """The files of the package that makes a task, or the one file where it is in none."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise AdvgymError(f"cannot find the source of {module!r}, which makes a task of this board")
    place = Path(spec.origin)
    package = spec.parent or module
    if package == module:
        return {f"{package}/{place.name}": place}
    paths = [p for kind in SCORING for p in sorted(place.parent.rglob(kind)) if p.name not in SHOWN]
    return {f"{package}/{p.relative_to(place.parent).as_posix()}": p for p in paths}
