"""The hash of the code that decides scores: when it changes, entries turn stale."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from advgym import registry
from advgym.errors import AdvgymError
from advgym.leaderboards.entries.entry import canonical

if TYPE_CHECKING:
    from advgym.leaderboards.rules.board_tables import Board

# What says which inputs count, what they cost, who won and how that is summed up.
DECIDES = ("core", "judge", "lib", "leaderboards/boundary", "leaderboards/runs", "leaderboards/scoring")
ASIDE = ("show.py", "show", "tasks.toml")  # of a domain: what only draws, and rows, which are hashed one by one
SCORING = ("*.py", "*.json", "*.toml")  # code, and the tables that it reads


def scorer_hash(board: Board) -> str:
    """SHA-256 over the sources that decide the scores of a board: DECIDES, its tasks' domains, and the tasks' rows.

    Other domains may change without making a board's entries stale. Names and order are part of it; line ends are not.
    """
    digest = hashlib.sha256()
    rows = {task.id: registry.task_row(task.id)[1] for task in board.tasks}
    files = house()
    for row in rows.values():
        files.update(domain(str(row["make"]).partition(":")[0]))
    for name, path in sorted(files.items()):
        try:
            text = path.read_bytes().replace(b"\r\n", b"\n")
        except OSError as error:
            raise AdvgymError(f"cannot read {path}, which decides scores: {error.strerror}; reinstall advgym") from None
        digest.update(f"{name}\n{len(text)}\n".encode() + text)
    digest.update(canonical(rows))
    return digest.hexdigest()


def house() -> dict[str, Path]:
    """The files of DECIDES by their names below the package."""
    found: dict[str, Path] = {}
    for folder in DECIDES:
        inside = _sources(registry.HOME / folder)
        if not inside:
            raise AdvgymError(f"cannot read {registry.HOME / folder}, which decides scores; reinstall advgym")
        found.update({f"{folder}/{name}": path for name, path in inside.items()})
    return found


def domain(module: str) -> dict[str, Path]:
    """The files of the domain whose module makes a task: of another package its own folder, or the one file."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise AdvgymError(f"cannot find the source of {module!r}, which makes a task of this board")
    place = Path(spec.origin)
    package = spec.parent or module
    if package == module:
        return {f"{package}/{place.name}": place}
    folder = place.parent
    if package.startswith("advgym.envs."):  # a domain's rooms belong together
        package = ".".join(package.split(".")[:3])
        folder = Path(str(importlib.import_module(package).__file__)).parent
    return {f"{package}/{name}": path for name, path in _sources(folder).items()}


def _sources(folder: Path) -> dict[str, Path]:
    paths = [(p.relative_to(folder), p) for kind in SCORING for p in sorted(folder.rglob(kind))]
    return {name.as_posix(): path for name, path in paths if not {name.name, name.parts[0]} & set(ASIDE)}
