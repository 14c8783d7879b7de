"""`advgym bench`: the scripts behind the published numbers, which live in a checkout."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from rich.table import Table

from advgym.cli.printing import err, escape, out
from advgym.cli.shared.tables import print_table
from advgym.errors import AdvgymError, unknown
from advgym.registry import HOME


def folder() -> Path:
    """benchmarks/ beside the package, or below the working folder."""
    for root in (HOME.parent, Path.cwd()):
        if (root / "benchmarks").is_dir() and (root / "pyproject.toml").is_file():
            return root / "benchmarks"
    raise AdvgymError("benchmarks come with a checkout of the repository, not with the package: run this inside one")


def scripts() -> dict[str, Path]:
    """Names to paths."""
    return {p.stem.replace("_", "-"): p for p in sorted(folder().rglob("[a-z]*.py"))}


def summary(path: Path) -> str:
    """First line of the docstring; the script is not run."""
    try:
        text = ast.get_docstring(ast.parse(path.read_text()))
    except SyntaxError:
        text = "(does not parse)"
    return (text or "").split("\n")[0]


def run_bench(name: str | None, rest: list[str]) -> int:
    """List them, or run one in its own process; its exit code."""
    found = scripts()
    if name is None:
        if not found:
            out().print(f"no benchmarks in {escape(folder())} yet")
            return 0
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("name", style="cyan", no_wrap=True)
        table.add_column("summary")
        for key, path in found.items():
            table.add_row(escape(key), escape(summary(path)))
        print_table(table)
        return 0
    key = name.removesuffix(".py").replace("_", "-")
    if key not in found:
        raise unknown("benchmark", name, found)
    command = [sys.executable, str(found[key]), *rest]
    err().print(f"[dim]$ {escape(' '.join(command))}[/]", soft_wrap=True)
    places = os.pathsep.join(filter(None, [str(folder().parent), os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "PYTHONPATH": places}
    return subprocess.run(command, cwd=folder().parent, env=env, check=False).returncode
