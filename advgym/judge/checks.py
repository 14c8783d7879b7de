"""The checks of a figure as rows of data: what each asks, how serious it is, what to do, and the words of its flag."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from advgym.errors import unknown


class Check(msgspec.Struct, frozen=True):
    """One row of `checks.toml`."""

    name: str
    says: str
    asks: str
    applies: str
    costs: str
    severity: Literal["void", "doubt", "note"]
    do: str
    companions: tuple[str, ...] = msgspec.field(name="with", default=())

    @property
    def pattern(self) -> re.Pattern[str]:
        """What its flags look like."""
        parts = re.split(r"\{\w+\}", self.says)
        return re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)


@cache
def checks() -> dict[str, Check]:
    """All rows by name."""
    rows = tomllib.loads((Path(__file__).parent / "checks.toml").read_text(encoding="utf-8"))
    return {name: msgspec.convert({**row, "name": name}, Check) for name, row in rows.items()}


def flag(name: str, /, **found: Any) -> str:
    """The flag of a check in words, with what was found.

    >>> flag("denied", many=3)
    '3 successes that were told are denied by the verdict, and count as failures'
    """
    if name not in checks():
        raise unknown("check", name, checks())
    return checks()[name].says.format(**found)


def check_of(text: str) -> Check | None:
    """The check that a flag of a result or an entry comes from; None for one that is no row.

    >>> check_of(flag("probabilities")).severity
    'doubt'
    >>> check_of("something else") is None
    True
    """
    return next((check for check in checks().values() if check.pattern.fullmatch(text)), None)
