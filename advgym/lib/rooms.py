"""Which agents and defenses ship: one attack or defense, one file, in a room of `agents` or of `agents/defenses`."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

NONE = ("shared", "defenses")  # rooms of `agents` without an attack


@cache
def rooms(home: Path, what: str) -> dict[str, str]:
    """Names to module paths, of "agent" or "defense"; nothing is imported.

    A file that reads its own domain says so first, as in `text_normalise`; its name is what follows. A room with a
    `rows.toml` has the defenses of that table, several to a file where they differ by settings alone.
    """
    domains = sorted(path.parent.name for path in home.glob("envs/*/tasks.toml"))
    found = {}
    for path in sorted((home / "agents").glob("defenses/*/[a-z]*.py" if what == "defense" else "*/[a-z]*.py")):
        folder = path.parent.relative_to(home).parts
        if folder[-1] not in NONE and not (path.parent / "rows.toml").is_file():
            name = path.stem
            for domain in domains:
                name = name.removeprefix(f"{domain}_")
            found[name.replace("_", "-")] = ".".join(("advgym", *folder, path.stem))
    for path in sorted((home / "agents").glob("defenses/*/rows.toml")) if what == "defense" else ():
        folder = path.parent.relative_to(home).parts
        for name, row in tomllib.loads(path.read_text(encoding="utf-8"))["defenses"].items():
            found[name] = ".".join(("advgym", *folder, row["loss"]))
    return found
