"""Which agents and defenses ship: one attack or defense, one file, in a room of `agents` or of `agents/defenses`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

NONE = ("shared", "defenses")  # rooms of `agents` without an attack


@cache
def rooms(home: Path, what: str) -> dict[str, str]:
    """Names to module paths, of "agent" or "defense"; nothing is imported.

    A file that reads its own domain says so first, as in `text_normalise`; its name is what follows.
    """
    domains = sorted(path.parent.name for path in home.glob("envs/*/tasks.toml"))
    found = {}
    for path in sorted((home / "agents").glob("defenses/*/[a-z]*.py" if what == "defense" else "*/[a-z]*.py")):
        folder = path.parent.relative_to(home).parts
        if folder[-1] not in NONE:
            name = path.stem
            for domain in domains:
                name = name.removeprefix(f"{domain}_")
            found[name.replace("_", "-")] = ".".join(("advgym", *folder, path.stem))
    return found
