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
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from advgym import registry
from advgym.errors import AdvgymError, DataError, unknown

PEEK = 64  # files of a folder that are looked at


class Subject(NamedTuple):
    """What is audited: the task by name, options that make it, and why it was taken."""

    task: str
    options: dict[str, Any]
    why: str


@cache
def table() -> dict[str, Any]:
    """`rows.toml`."""
    return tomllib.loads((Path(__file__).parent / "rows.toml").read_text(encoding="utf-8"))


def read(model: Any, data: Any = None, *, domain: str | None = None, task: str | None = None) -> Subject:
    """The subject of an audit.

    Args:
        model: a registered victim, "transformers:NAME|FOLDER" or its like, "module:object", or the object itself.
        data: a data set's name, a path, "module:object", or samples; None for the data a registered victim belongs to.
        domain: image, text, graph or speech; task: a task's name.

    Raises:
        AdvgymError: where the domain cannot be told, the model is none, or there is no data.
    """
    if domain is not None and domain not in table()["tasks"]:
        raise unknown("domain", domain, table()["tasks"])
    named = isinstance(model, str) and model in registry.victims()
    found = model if not isinstance(model, str) or named or _by_prefix(model) else imported(model, "model")
    if isinstance(data, str) and ":" in data and not Path(data).exists():
        data = imported(data, "data")
    if task is None and named and domain is None:
        home = _home(model)
        if home is not None:
            over = {} if data is None else _data(data)
            return Subject(home, {"victim": model, **over}, f"the task of the victim {model!r}")
    if data is None and (task is None or "dataset" not in registry.task_row(task)[1]):
        raise AdvgymError("there is nothing to attack: pass data=, a data set's name, a path or samples")
    if task is None:
        task, why = _task(model, found, data, domain)
    else:
        task, why = registry.task_row(task)[0], "asked for"
    return Subject(task, {"victim": found, **({} if data is None else _data(data))}, why)


def _data(data: Any) -> dict[str, Any]:
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


# -- what the domain is ----------------------------------------------------------------------------------------------
def _task(model: Any, found: Any, data: Any, domain: str | None) -> tuple[str, str]:
    tasks = table()["tasks"]
    guesses: Iterator[tuple[str | None, str]] = iter(
        [] if domain else [(_of_hub(model), "the checkpoint's architecture"), (_of_model(found), "the model's class")]
    )
    for task, why in guesses:
        if task is not None:
            return task, why
    guess = domain or _of_data(data)
    if guess == "speech" and _transcripts(data):
        guess = "transcripts"
    if guess is None:
        raise AdvgymError(
            "the domain cannot be told from the model and the data: say domain= (image, text, graph or speech), or "
            "task=, a task's name (`advgym list tasks`)"
        )
    return tasks[guess], "asked for" if domain else "the data"


def _of_hub(model: Any) -> str | None:
    """The task of a checkpoint of transformers, by its architecture."""
    if not isinstance(model, str) or not model.startswith("transformers:"):
        return "speech/transcribe" if isinstance(model, str) and model.startswith("torchaudio:") else None
    source = model.partition(":")[2]
    config = Path(source) / "config.json"
    if config.is_file():
        about = json.loads(config.read_text(encoding="utf-8"))
    else:
        from transformers import AutoConfig

        try:
            about = AutoConfig.from_pretrained(source).to_dict()
        except (OSError, ValueError) as error:
            raise AdvgymError(f"no checkpoint {source!r} here: {str(error).splitlines()[0]}") from None
    name = str((about.get("architectures") or [""])[0])
    for row in table()["hub"]:
        if name.endswith(row["ends"]) and about.get("model_type") in row.get("models", [about.get("model_type")]):
            return str(row["task"])
    return None


def _of_model(model: Any) -> str | None:
    """Certain from the class alone: message passing is for graphs, a fitted text pipeline for texts."""
    inner = getattr(model, "model", model)
    names = {kind.__name__ for part in _modules(inner) for kind in type(part).__mro__}
    if "MessagePassing" in names:
        return str(table()["tasks"]["graph"])
    steps = [type(step).__name__ for _, step in getattr(inner, "steps", [])]
    if any(name.endswith("Vectorizer") and name != "DictVectorizer" for name in steps):
        return str(table()["tasks"]["text"])
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
    if hasattr(data, "edge_index") or (isinstance(data, tuple) and data and hasattr(data[0], "edge_index")):
        return "graph"
    first = data[0] if isinstance(data, list | tuple) and data else None
    if isinstance(first, tuple | list) and first:
        first = first[0]
    if isinstance(first, str):
        return "text"
    dims = len(getattr(first, "shape", ()))
    return {1: "speech", 2: "image", 3: "image"}.get(dims)


def _of_registered(name: str) -> str | None:
    return next((task.split("/")[0] for task, row in registry.tasks().items() if row.get("dataset") == name), None)


def _of_path(path: Path) -> str | None:
    """By the names of a file or of a folder's files; a table by its columns."""
    if not path.exists():
        raise DataError(f"no data {str(path)!r}: it is neither a registered data set nor a file or folder")
    files = [path] if path.is_file() else [f for f, _ in zip(sorted(path.rglob("*")), range(PEEK), strict=False)]
    kinds = table()["files"]
    for file in files:
        if file.suffix in (".csv", ".jsonl", ".json"):
            columns = _columns(file)
            if "path" in columns or "audio" in columns:
                return "speech"
            if {"text", "sentence", "review"} & columns:
                return "text"
        for kind, ends in kinds.items():
            if file.name.lower().endswith(tuple(ends)):
                return str(kind)
    return None


def _columns(file: Path) -> set[str]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        if file.suffix == ".csv":
            return {name.strip().lower() for name in next(csv.reader(lines), [])}
        try:
            found = json.loads(lines.readline())
        except json.JSONDecodeError:
            return set()
    return {str(key).lower() for key in found} if isinstance(found, dict) else set()


def _transcripts(data: Any) -> bool:
    """Whether recordings come with texts of more than a class's name: only own samples say so."""
    if isinstance(data, list | tuple) and data and isinstance(data[0], tuple | list) and len(data[0]) == 2:
        return isinstance(data[0][1], str) and " " in data[0][1]
    if isinstance(data, str | Path) and Path(data).is_file() and Path(data).suffix in (".csv", ".jsonl"):
        return "text" in _columns(Path(data))
    return False
