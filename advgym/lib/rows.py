"""Rows of a tasks.toml that stand for several: a family says what some keys may be, and every choice is a row.

    [victims."{dataset}-{model}"]
    make = "module:function"
    title = "{model} on {dataset}"
    each = { dataset = ["cora", "citeseer"], model = ["sage", "gin"] }

The row `cora-sage` of it has make, title = "sage on cora", dataset = "cora" and model = "sage".
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from advgym.errors import DataError

EACH = "each"
PLACE = re.compile(r"\{([^{}]*)\}")


@dataclass
class Rows:
    """The tables of one tasks.toml."""

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    victims: dict[str, dict[str, Any]] = field(default_factory=dict)
    rescorers: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_rows(path: Path) -> Rows:
    """The tables of a file, families written out.

    Raises:
        DataError: for a file that is not there, or no TOML.
    """
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise DataError(f"cannot read the task table {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not a TOML table of tasks: {error}") from None
    return Rows(*(expanded(table.get(f"{what}s", {}), f"{path}: {what}") for what in ("task", "victim", "rescorer")))


def expanded(table: Mapping[str, dict[str, Any]], what: str) -> dict[str, dict[str, Any]]:
    """The table with the rows of every family in its place; a row that is written out wins over a family's.

    Args:
        what: the file and what one row is, for errors.
    """
    found: dict[str, dict[str, Any]] = {}
    of: dict[str, str] = {}  # the family of a row
    for name, row in table.items():
        if not isinstance(row, dict):
            raise DataError(f"{what} {name!r} is {row!r}; a row is a table")
        if EACH not in row:
            _filled(name, {}, f"{what} {name!r}")  # a name of a family, without its `each`
            found[name] = row
            continue
        for member, one in _members(name, row, f"{what} {name!r}"):
            if member in of:
                raise DataError(f"{what} {name!r}: a row {member!r} is made twice, here and by {of[member]!r}")
            of[member] = name
            found[member] = table.get(member, one)
    return found


def _members(name: str, row: Mapping[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, row) for every choice of the values of `each`."""
    each = row[EACH]
    if not isinstance(each, dict) or not each or not all(_values(v) for v in each.values()):
        raise DataError(f'{where}: each gives lists of texts or numbers, as in each = {{ model = ["a", "b"] }}')
    if twice := [key for key in each if key in row]:
        raise DataError(f"{where}: {twice[0]!r} is given twice, in each and beside it")
    if missing := [key for key in each if f"{{{key}}}" not in name]:
        raise DataError(f"{where}: its rows would share a name; put {{{missing[0]}}} into it")
    rest = {key: value for key, value in row.items() if key != EACH}
    for chosen in product(*each.values()):
        values = dict(zip(each, chosen, strict=True))
        texts = {key: _filled(v, values, where) if isinstance(v, str) else v for key, v in rest.items()}
        yield _filled(name, values, where), {**texts, **values}


def _values(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(isinstance(v, str | int | float) for v in given)


def _filled(text: str, values: Mapping[str, Any], where: str) -> str:
    """The text with the values in its places."""
    for key in PLACE.findall(text):
        if key not in values:
            known = f"each gives {', '.join(values)}" if values else "the row has no each"
            raise DataError(f"{where}: {{{key}}} in {text!r} has no value; {known}")
    return PLACE.sub(lambda place: str(values[place[1]]), text)
