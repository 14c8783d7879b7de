"""`advgym new`: a folder that works, to start from."""

from __future__ import annotations

import re
from pathlib import Path

from advgym.cli.printing import escape, out
from advgym.errors import AdvgymError, DataError, unknown
from advgym.registry import HOME, KINDS

TEMPLATES = HOME / "templates"
FILES = {
    "agent": {
        "card.toml": "agent_card.toml.txt",
        "agent.py": "agent_{kind}.py.txt",
        "test_agent.py": "agent_test.py.txt",
        "README.md": "agent_readme.md.txt",
    },
    "defense": {
        "card.toml": "defense_card.toml.txt",
        "defense.py": "defense.py.txt",
        "test_defense.py": "defense_test.py.txt",
        "README.md": "defense_readme.md.txt",
    },
}


def write_folder(what: str, path: Path, kind: str) -> int:
    """Write the templates of an agent or a defense into a new or empty folder."""
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise AdvgymError(f"{path} exists and is not an empty folder; name another")
    name = re.sub(r"[^a-z0-9]+", "-", path.resolve().name.lower()).strip("-") or f"own-{what}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        for file, template in FILES[what].items():
            text = (TEMPLATES / template.format(kind=kind)).read_text(encoding="utf-8")
            for key, word in (("@NAME@", name), ("@KIND@", kind), ("@PATH@", path.as_posix())):
                text = text.replace(key, word)
            (path / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {error.filename or path}: {error.strerror}") from None
    out().print(f"wrote {escape(path)}/: {', '.join(FILES[what])}", soft_wrap=True)
    option = "--agent" if what == "agent" else "--agent square --defense"
    out().print(
        f"next:  [cyan]pytest {escape(path)}[/]\n       [cyan]advgym attack TASK {option} {escape(path)}[/]"
        "   [dim](`advgym list tasks`)[/]",
        soft_wrap=True,
    )
    return 0
