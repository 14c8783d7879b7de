"""What an object is, by the package and the names of its classes: `objects.toml`. No package is imported to ask."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from advgym.errors import AdvgymError

PARTS = ("tokenizer", "processor")  # kinds of what comes with a model


class Known(msgspec.Struct, frozen=True, rename={"kind": "is"}):
    """A row of `objects.toml`."""

    packages: list[str]
    classes: list[str]
    what: str
    kind: str = ""
    instead: str = ""


class Hub(msgspec.Struct, frozen=True):
    """Architectures of transformers by the end of their name, of some models alone or of all."""

    ends: str
    task: str
    models: list[str] = []


class Table(msgspec.Struct, frozen=True):
    """`objects.toml`."""

    objects: list[Known]
    inputs: dict[str, list[str]]
    columns: dict[str, list[str]]
    wholes: dict[str, list[str]]
    readers: dict[str, str]
    pipelines: dict[str, str]
    back: dict[str, str]
    hub: list[Hub]


@cache
def table() -> Table:
    """What is recognised, and what it is for."""
    return msgspec.toml.decode(Path(__file__).with_name("objects.toml").read_bytes(), type=Table)


def known(value: Any) -> Known | None:
    """The row that an object is of; None for a plain one.

    >>> known([("a fine film", 1)]) is None
    True
    """
    made_from = {(c.__module__.split(".")[0], c.__name__) for c in type(value).__mro__}
    made_from = {pair for pair in made_from if pair[0] != "builtins"}
    if not made_from:
        return None
    for row in table().objects:
        if any((package, name) in made_from for package in row.packages for name in row.classes):
            return row
    return None


def kind_of(value: Any) -> str:
    """How an object is read; "" for a plain one."""
    row = known(value)
    return "" if row is None else row.kind


def task_of(architecture: str, model_type: Any) -> str | None:
    """The task of an architecture of transformers, such as "BertForSequenceClassification"; None for others."""
    for row in table().hub:
        if architecture.endswith(row.ends) and (not row.models or model_type in row.models):
            return row.task
    return None


def task_of_model(model: Any) -> str | None:
    """The task that a model or a pipeline of transformers is certainly for; None for all else."""
    if isinstance(model, tuple) and len(model) == 2:
        model = model[0]
    kind = kind_of(model)
    if kind == "pipeline":
        return table().pipelines.get(str(model.task))
    if kind == "transformers":
        return task_of(type(model).__name__, getattr(model.config, "model_type", None))
    return None


def refuse(row: Known, given: str) -> AdvgymError:
    """An error that says what an object is, and what to pass."""
    return AdvgymError(f"{given}= is {row.what}: {row.instead}")
