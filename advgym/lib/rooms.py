"""Which agents and defenses ship: one attack or defense, one file, in a room of `agents` or of `agents/defenses`."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

NONE = ("shared", "defenses", "mrr")  # rooms of `agents` without an attack or a defense


@cache
def rooms(home: Path, what: str) -> dict[str, str]:
    """Names to module paths, of "agent" or "defense"; nothing is imported.

    A file that reads its own domain says so first, as in `text_normalise`; its name is what follows. A room with a
    `rows.toml` has the defenses of that table, several to a file where they differ by settings alone, and those of its
    other files.
    """
    domains = sorted(path.parent.name for path in home.glob("envs/*/tasks.toml"))
    found, losses = {}, set()
    for path in sorted((home / "agents").glob("defenses/*/rows.toml")) if what == "defense" else ():
        for name, row in tomllib.loads(path.read_text(encoding="utf-8"))["defenses"].items():
            found[name] = ".".join(("advgym", *path.parent.relative_to(home).parts, row["loss"]))
            losses.add(found[name])
    for path in sorted((home / "agents").glob("defenses/*/[a-z]*.py" if what == "defense" else "*/[a-z]*.py")):
        folder = path.parent.relative_to(home).parts
        module = ".".join(("advgym", *folder, path.stem))
        if folder[-1] not in NONE and module not in losses:
            name = path.stem
            for domain in domains:
                name = name.removeprefix(f"{domain}_")
            found[name.replace("_", "-")] = module
    return found


@cache
def vocabulary() -> dict[str, str]:
    """The words for what agents need and tasks offer, from `needs.toml`; `advgym.core.offers` says who offers what."""
    found: dict[str, str] = tomllib.loads(Path(__file__).with_name("needs.toml").read_text(encoding="utf-8"))["needs"]
    return found
