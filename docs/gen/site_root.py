"""Pages from the files beside docs/: figures, changes, contributing, security."""

from __future__ import annotations

import re
from pathlib import Path

FROM = {  # file: (page, title in the navigation)
    "benchmarks/README.md": ("figures.md", "Figures and their commands"),
    "CHANGELOG.md": ("changelog.md", "Changes"),
    "CONTRIBUTING.md": ("contributing.md", "Contributing"),
    "SECURITY.md": ("security.md", "Security"),
}
LINK = re.compile(r"\]\(([^)\s]+)\)")


def pages(root: Path):
    """(page: its text), and the navigation."""
    made = {page: rewritten((root / file).read_text(), file, root) for file, (page, _) in FROM.items()}
    return made, [{title: page} for page, title in FROM.values()]


def rewritten(text: str, file: str, root: Path) -> str:
    """The text with its links as they are from the top of docs/; a file outside of the site is named, not linked.

    >>> rewritten("[a](docs/rl.md), [b](CHANGELOG.md#x), [c](advgym/ids.py)", "README.md", Path("."))
    '[a](rl.md), [b](changelog.md#x), c (`advgym/ids.py`)'
    """

    def place(match: re.Match[str]) -> str:
        target, hash_, part = match[1].partition("#")
        if not target or ":" in target:
            return match[0]
        path = str((root / file).parent.joinpath(target).resolve().relative_to(root.resolve()))
        if path in FROM:
            return f"]({FROM[path][0]}{hash_}{part})"
        if path.startswith("docs/"):
            return f"]({path.removeprefix('docs/')}{hash_}{part})"
        return f"](<outside {path}>)"

    found = LINK.sub(place, text)
    return re.sub(r"\[([^\]]*)\]\(<outside ([^>]*)>\)", r"\1 (`\2`)", found)
