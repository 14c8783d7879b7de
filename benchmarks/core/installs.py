"""What each install fetches: packages and megabytes of every extra, read off this environment."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

from benchmarks._common import arguments, table

ROOT = Path(__file__).resolve().parents[2]
INSTALLS = ("", "image", "text", "graph", "speech", "report", "data", "all", "all,server", "rl", "peers", "ray", "dev")
CUDA = re.compile(r"^(nvidia-|cuda-|triton$)")


def key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(name: str, extras: set[str]) -> list[Requirement]:
    """What a distribution needs here with these extras; of ours the pyproject.toml says it."""
    if key(name) == "advgym":
        import tomllib

        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        optional = [line for extra in extras for line in project["optional-dependencies"][extra]]
        return [Requirement(line) for line in [*project["dependencies"], *optional]]
    found = [Requirement(line) for line in metadata.distribution(name).requires or []]
    about = default_environment()
    return [
        r for r in found if r.marker is None or any(r.marker.evaluate({**about, "extra": e}) for e in {"", *extras})
    ]


def closure(extras: set[str]) -> tuple[set[str], set[str]]:
    """Names of the distributions that come with advgym[extras], and of those that are not here."""
    todo, seen, lost = [("advgym", frozenset(extras))], set(), set()
    while todo:
        name, more = todo.pop()
        if (name, more) in seen:
            continue
        seen.add((name, more))
        try:
            todo += [(key(r.name), frozenset(r.extras)) for r in wanted(name, set(more))]
        except metadata.PackageNotFoundError:
            lost.add(name)
    return {name for name, _ in seen} - lost - {"advgym"}, lost


def megabytes(name: str) -> float:
    """Of a distribution's files as they lie on the disk."""
    files = metadata.distribution(name).files or []
    return sum(path.stat().st_size for f in files if (path := Path(str(f.locate()))).is_file()) / 1e6


def main() -> None:
    args = arguments(__doc__)
    size: dict[str, float] = {}
    rows: list[list[object]] = []
    for extra in INSTALLS:
        names, lost = closure(set(filter(None, extra.split(","))))
        for name in names:
            size[name] = size[name] if name in size else megabytes(name)
        whole, cuda = sum(size[n] for n in names), sum(size[n] for n in names if CUDA.match(n))
        rows.append([f"advgym[{extra}]" if extra else "advgym", len(names), round(whole), round(cuda),
                     round(whole - cuda), ", ".join(sorted(lost)) or "-"])  # fmt: skip
    head = ["install", "packages", "MB", "MB of CUDA", "MB without", "not here"]
    table("installs, megabytes on the disk", head, rows, args.json)


if __name__ == "__main__":
    main()
