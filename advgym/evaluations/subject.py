"""Whose robustness is asked for: a model and data as a user names them, as a task and its options.

The domain is read off what is certain (a registered victim, a checkpoint's architecture, the files of a folder, the
shape of samples); where nothing is, it is asked for by name.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from advgym import registry
from advgym.core.own.known import kind_of, task_of, task_of_model
from advgym.core.own.samples import read_samples
from advgym.errors import AdvgymError, DataError, unknown
from advgym.lib.hub import settle

PEEK = 64  # files of a folder that are looked at


class Subject(NamedTuple):
    """What is audited: the task by name, options that make it, and why it was taken."""

    task: str
    options: dict[str, Any]
    why: str


class Columns(msgspec.Struct, frozen=True):
    """A table whose columns say what it is for."""

    any: set[str]
    also: set[str]
    task: str


class Table(msgspec.Struct, frozen=True):
    """`rows.toml`."""

    budgets: dict[str, int]
    agents: dict[str, dict[str, str]]
    tasks: dict[str, str]
    prefixes: dict[str, str]
    classes: dict[str, str]
    samples: dict[str, str]
    columns: list[Columns]
    features: dict[str, str]
    files: dict[str, list[str]]


@cache
def table() -> Table:
    """What an audit plays, and how it tells what a model and data are for."""
    return msgspec.toml.decode((Path(__file__).parent / "rows.toml").read_bytes(), type=Table)


def read(model: Any, data: Any = None, *, domain: str | None = None, task: str | None = None) -> Subject:
    """The subject of an audit.

    Args:
        model: a registered victim, "transformers:NAME|FOLDER" or its like, "module:object", or the object itself.
        data: a data set's name, a path, "module:object", or samples; None for the data a registered victim belongs to.
        domain: image, text, graph or speech; task: a task's name.

    Raises:
        AdvgymError: where the domain cannot be told, the model is none, or there is no data.
    """
    if domain is not None and domain not in table().tasks:
        raise unknown("domain", domain, table().tasks)
    named = isinstance(model, str) and model in registry.victims()
    found = model if not isinstance(model, str) or named or _by_prefix(model) else imported(model, "model")
    if isinstance(data, str) and ":" in data and not Path(data).exists():
        data = imported(data, "data")
    data = read_samples(data, "data")
    if task is None and named and domain is None:
        home = _home(model)
        if home is not None:
            over = {} if data is None else given(data)
            return Subject(home, {"victim": model, **over}, f"the task of the victim {model!r}")
    if data is None and (task is None or "dataset" not in registry.task_row(task)[1]):
        raise AdvgymError("there is nothing to attack: pass data=, a data set's name, a path or samples")
    if task is None:
        task, why = _task(model, found, data, domain)
    else:
        task, why = registry.task_row(task)[0], "asked for"
    return Subject(task, {"victim": found, **({} if data is None else given(data))}, why)


def given(data: Any) -> dict[str, Any]:
    """Data as options of a task: a name or a path, or samples."""
    return {"dataset": str(data)} if isinstance(data, str | Path) else {"samples": data}


def _by_prefix(model: str) -> bool:
    """Whether it is a victim of the kind "transformers:NAME"."""
    head = model.partition(":")[0]
    return ":" in model and head in registry.victims()


def imported(text: str, what: str) -> Any:
    """The object of "module:object", the current folder being searched first.

    Raises:
        AdvgymError: naming what is missing.
    """
    module, colon, name = text.partition(":")
    if not colon or not name:
        known = ", ".join(sorted(registry.victims())[:8])
        raise AdvgymError(
            f"{what} {text!r} is no name that is registered ({known} ...: `advgym list victims`), no "
            "transformers:NAME, and no module:object"
        )
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise AdvgymError(f"{what} {text!r}: cannot import {module!r}: {error}") from None
    except AttributeError:
        raise AdvgymError(f"{what} {text!r}: module {module!r} has no {name!r}") from None
    return found


def _home(victim: str) -> str | None:
    """The first task whose own victim it is; else the first on the same data."""
    rows = registry.tasks()
    own = [name for name, row in rows.items() if row.get("victim") == victim]
    make, trained = (registry.victims()[victim].get(key) for key in ("make", "dataset"))
    domain = str(make).partition("advgym.envs.")[2].split(".")[0]
    same = [n for n, row in rows.items() if row.get("dataset") == trained and n.startswith(f"{domain}/")]
    return next(iter([*own, *(same if trained else [])]), None)


# -- what the task is ------------------------------------------------------------------------------------------------
def _task(model: Any, found: Any, data: Any, domain: str | None) -> tuple[str, str]:
    """(the task, why): of the model where that is certain, else of the data, within the domain that was named."""
    for guess, given, why in (
        (_of_name, model, "the checkpoint"), (_of_model, found, "the model's class"), (_of_data, data, "the data"),
    ):  # fmt: skip
        task = guess(given)
        if task is not None and domain in (None, task.split("/")[0]):
            return task, why
    if domain is None:
        raise AdvgymError(
            f"the domain cannot be told from the model and the data: say domain= ({', '.join(table().tasks)}), or "
            "task=, a task's name (`advgym list tasks`)"
        )
    return table().tasks[domain], "asked for"


def _of_name(model: Any) -> str | None:
    """The task of a checkpoint, by its kind or by its architecture."""
    if not isinstance(model, str) or ":" not in model:
        return None
    head, _, source = model.partition(":")
    if head in table().prefixes or head != "transformers":
        return table().prefixes.get(head)
    source, _, options = source.partition("?")
    if "prompt=" in options:
        return table().prefixes.get("prompted")
    config = Path(source) / "config.json"
    if config.is_file():
        about = json.loads(config.read_text(encoding="utf-8"))
    else:
        settle(source, "model")
        from transformers import AutoConfig

        try:
            about = AutoConfig.from_pretrained(source).to_dict()
        except (OSError, ValueError) as error:
            raise AdvgymError(f"no checkpoint {source!r} here: {str(error).splitlines()[0]}") from None
    name = str((about.get("architectures") or [""])[0])
    return task_of(name, about.get("model_type"))


def _of_model(model: Any) -> str | None:
    """Certain from the classes alone that it is made of."""
    if (task := task_of_model(model)) is not None:
        return task
    inner = getattr(model, "model", model)
    parts = [*_modules(inner), *(step for _, step in getattr(inner, "steps", []))]
    names = {kind.__name__ for part in parts for kind in type(part).__mro__} - {"DictVectorizer"}
    for known, task in table().classes.items():
        if known in names or (known[0] == "*" and any(name.endswith(known[1:]) for name in names)):
            return task
    return None


def _modules(model: Any) -> list[Any]:
    listed = getattr(model, "modules", None)
    try:
        return list(listed()) if callable(listed) else [model]
    except TypeError:  # a class, not an object
        return []


def _of_data(data: Any) -> str | None:
    if isinstance(data, str | Path):
        return _of_registered(str(data)) or _of_path(Path(data).expanduser())
    known, label = table().samples, None
    if kind_of(data) == "datasets":
        kinds = [type(kind).__name__ for kind in (data.features or {}).values()]
        return table().features.get(next((k for k in kinds if k in table().features), "")) or _of_columns(data.features)
    first = data[0] if isinstance(data, list | tuple) and data else data
    if isinstance(first, Mapping):
        return _of_columns(first)
    if isinstance(first, tuple | list) and first:
        first, label = first[0], first[-1]
    for name, task in known.items():
        if name.isidentifier() and hasattr(first, name):
            return task
    if isinstance(first, str):
        return known.get("str")
    dims = str(len(getattr(first, "shape", ())))
    several = f"{dims} several" if isinstance(label, str) and " " in label else ""
    return known.get(several) or known.get(dims)


def _of_registered(name: str) -> str | None:
    """The task of its domain for one's own model, of a registered data set."""
    domain = next((task.split("/")[0] for task, row in registry.tasks().items() if row.get("dataset") == name), None)
    return table().tasks.get(domain or "")


def _of_path(path: Path) -> str | None:
    """By the names of a file or of a folder's files; a table by its columns."""
    if not path.exists():
        raise DataError(f"no data {str(path)!r}: it is neither a registered data set nor a file or folder")
    files = [path] if path.is_file() else [f for f, _ in zip(sorted(path.rglob("*")), range(PEEK), strict=False)]
    for file in files:
        if file.suffix in (".csv", ".jsonl", ".json"):
            task = _of_columns(_columns(file))
            if task is not None:
                return task
        for task, ends in table().files.items():
            if file.name.lower().endswith(tuple(ends)):
                return task
    return None


def _of_columns(names: Iterable[str]) -> str | None:
    """The task of a table's columns."""
    have = {str(name).strip().lower() for name in names}
    return next((row.task for row in table().columns if have & row.any and have >= row.also), None)


def _columns(file: Path) -> set[str]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        if file.suffix == ".csv":
            return {name.strip().lower() for name in next(csv.reader(lines), [])}
        try:
            found = json.loads(lines.readline())
        except json.JSONDecodeError:
            return set()
    return {str(key).lower() for key in found} if isinstance(found, dict) else set()
