"""A study's file: the axes of a grid, what is left out of it, and the cells that it stands for."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from advgym import registry
from advgym.errors import AdvgymError, DataError, unknown
from advgym.lib.settings import check_seed
from advgym.lib.weights import fingerprint

MOST = 20_000  # cells of a study
NAMED = ("task", "agent", "victim", "defense", "seed")  # axes that stand beside the options of a task
TABLES = ("study", "axes", "settings", "skip", "seen")
HEAD = ("title", "about", "compare", "union", "curve")
SHARED = {"episodes": 100, "lanes": 64, "split": "test", "clean": 1000}


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One attack of a study: everything that decides its result."""

    task: str
    agent: str
    victim: str = ""
    defenses: tuple[str, ...] = ()
    seed: int = 0
    options: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    episodes: int = 100
    lanes: int = 64
    split: str = "test"
    clean: int = 1000

    @property
    def key(self) -> str:
        """Of its content: the name of its file."""
        return fingerprint(msgspec.to_builtins(self))[:20]

    @property
    def command(self) -> str:
        """What plays this cell alone."""
        import shlex

        numbers = {"seed": self.seed, "episodes": self.episodes, "lanes": self.lanes, "clean": self.clean}
        parts = ["advgym", "attack", self.task, "--agent", self.agent, "--split", self.split]
        parts += [part for name, value in numbers.items() for part in (f"--{name}", str(value))]
        given = {**({"victim": self.victim} if self.victim else {}), **self.options}
        for whose, pairs in (("task", given), ("agent", self.settings)):
            for key, value in pairs.items():
                text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
                parts += ["--set", f"{whose}.{key}={text}"]
        for defense in self.defenses:
            parts += ["--defense", defense]
        return shlex.join(parts)


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says, and its cells."""

    title: str
    about: str
    axes: dict[str, list[Any]]
    cells: list[Cell]
    compare: str  # the axis whose values are compared with each other
    union: str = ""  # the axis over which samples have their worst case: threat models
    seen: dict[str, list[str]] = {}  # of a victim or defense, the values of `union` that it was trained against
    curve: str = ""  # the axis of radii, played until nothing stands


def read(path: str | Path) -> Study:
    """Read a study.

    Raises:
        DataError: for a file that cannot be read, an empty axis, a grid without cells or with too many.
    """
    path = Path(path)
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the study {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not TOML: {error}") from None
    head = told.get("study", {})
    strange = set(told) - set(TABLES) or set(head) - {*HEAD, *SHARED}
    if strange:
        raise unknown("entry of a study", min(strange), [*TABLES, *HEAD, *SHARED])
    axes = {key: value if isinstance(value, list) else [value] for key, value in told.get("axes", {}).items()}
    for needed in ("task", "agent"):
        if needed not in axes:
            raise DataError(f"{path}: [axes] names no {needed}; a study has a task and an agent, or several")
    for key, values in axes.items():
        if not values:
            raise DataError(f"{path}: the axis {key!r} is empty, so there is no cell; give it a value or leave it out")
    size = 1
    for values in axes.values():
        size *= len(values)
    if size > MOST:
        raise DataError(f"{path}: the axes make {size:,} cells, at most {MOST:,}; cut an axis, or make two studies")
    shared = {key: head.get(key, value) for key, value in SHARED.items()}
    cells = list(_cells(axes, shared, told.get("settings", {}), told.get("skip", [])))
    if not cells:
        raise DataError(f"{path}: every cell is skipped; see [[skip]]")
    compare = str(head.get("compare", "agent"))
    if compare not in axes:
        raise unknown("axis to compare", compare, axes)
    union, curve, seen = str(head.get("union", "")), str(head.get("curve", "")), told.get("seen", {})
    for what, axis in (("have the union over", union), ("draw a curve over", curve)):
        if axis and axis not in axes:
            raise unknown(f"axis to {what}", axis, axes)
    for value in axes.get(curve, []):
        number_of(value)
    seen = _seen(path, seen, axes, union)
    return Study(title=str(head.get("title", path.stem)), about=str(head.get("about", "")), axes=axes, cells=cells,
                 compare=compare, union=union, curve=curve, seen=seen)  # fmt: skip


def _seen(path: Path, seen: Any, axes: Mapping[str, list[Any]], union: str) -> dict[str, list[str]]:
    """What each victim or defense was trained against: both are values of axes."""
    rows = {str(v) for axis in ("victim", "defense") for v in axes.get(axis, [])}
    if seen and not union:
        raise DataError(f'{path}: [seen] says what is no unseen threat of a union; name its axis, union = "task"')
    for name, values in seen.items():
        if name not in rows:
            raise unknown("victim or defense in [seen]", name, rows)
        for value in values if isinstance(values, list) else [values]:
            if value not in axes[union]:
                raise unknown(f"{union} in [seen]", value, axes[union])
    return {name: list(values) if isinstance(values, list) else [values] for name, values in seen.items()}


def number_of(value: Any) -> float:
    """A radius on a curve: a number, or a fraction such as "8/255"."""
    try:
        above, _, below = str(value).partition("/")
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise DataError(f"a curve is over numbers or fractions such as 8/255, not {value!r}") from None


def axes_of(study: Study) -> list[str]:
    """The axes that have more than one value."""
    return [name for name, values in study.axes.items() if len(values) > 1]


def value_of(cell: Cell, axis: str) -> Any:
    """What a cell has on an axis."""
    if axis == "defense":
        return "+".join(cell.defenses) or "none"
    return getattr(cell, axis) if axis in ("task", "agent", "victim", "seed") else cell.options.get(axis, "")


def _cells(
    axes: Mapping[str, list[Any]], shared: Mapping[str, Any], settings: Mapping[str, Any], skip: list[dict[str, Any]]
) -> Iterator[Cell]:
    known: dict[str, set[str]] = {}
    for values in itertools.product(*axes.values()):
        at = dict(zip(axes, values, strict=True))
        if any(all(_fits(at.get(k), v) for k, v in rule.items()) for rule in skip):
            continue
        task = registry.task_row(str(at["task"]))[0]
        agent = str(at["agent"])
        name, _, own = agent.partition("/")  # "pgd/long": the settings under that name
        known.setdefault(task, {*registry.task_row(task)[1].get("constraint", {}), "knowledge", "goal", "queries",
                                "gradients", "least", "probes", "surrogate", "dataset"})  # fmt: skip
        options = {k: v for k, v in at.items() if k not in NAMED and v != ""}
        for key in options:
            if key not in known[task]:
                raise unknown(f"axis for {task}", key, [*NAMED, *known[task]])
        defense = at.get("defense", "")
        yield Cell(
            task=task, agent=registry.agent(name).name, victim=str(at.get("victim", "")),
            defenses=tuple(defense if isinstance(defense, list) else [defense] if defense else []),
            seed=_whole(at.get("seed", 0)), options=options, settings=dict(settings.get(agent, {})), **shared,
        )  # fmt: skip
        if own and agent not in settings:
            raise AdvgymError(f'agent {agent!r} stands for settings under [settings."{agent}"], and there are none')


def _fits(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, list) else value == wanted


def _whole(value: Any) -> int:
    try:
        return check_seed(value)
    except AdvgymError as error:
        raise DataError(f"seeds: {error}") from None
