"""Settings of agents and defenses: their types, read off the signature, and the values that were declared for them."""

from __future__ import annotations

import inspect
import math
import numbers
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advgym.errors import AdvgymError, unknown

TYPES: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both allowed unless `above`, which leaves `low` out; None for no bound."""

    low: float | None = None
    high: float | None = None
    above: bool = False

    def __contains__(self, value: object) -> bool:
        number = float(value)  # type: ignore[arg-type]
        over = self.low is None or (number > self.low if self.above else number >= self.low)
        return over and (self.high is None or number <= self.high)

    def __str__(self) -> str:
        if self.low is None or self.high is None or self.above:
            parts = [] if self.low is None else [f"{'above' if self.above else 'of at least'} {self.low:g}"]
            most = [] if self.high is None else [f"{'' if parts else 'of '}at most {self.high:g}"]
            return " and ".join(parts + most)
        return f"from {self.low:g} to {self.high:g}"


COUNT, NATURAL = Range(1), Range(0)  # one or more; none or more
SHARE, POSITIVE = Range(0, 1), Range(0, above=True)
Allowed = Range | tuple[str, ...]
SEEDS = (0, 2**63 - 1)  # whatever draws, in every command and in Python


def check_seed(seed: Any) -> int:
    """The seed as an integer.

    >>> check_seed(7)
    7

    Raises:
        AdvgymError: for what is no whole number within `SEEDS`.
    """
    whole = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
    if not whole or not SEEDS[0] <= int(seed) <= SEEDS[1]:
        raise AdvgymError(f"a seed is a whole number from {SEEDS[0]} to {SEEDS[1]}, not {seed!r}")
    return int(seed)


def check_named(**given: Any) -> None:
    """Refuse arguments that are an empty or blank text where a name is wanted.

    >>> check_named(victim="digits-cnn", dataset=None)
    """
    for key, value in given.items():
        if isinstance(value, str) and not value.strip():
            raise AdvgymError(f"{key}= is an empty name: leave it out, or name one")


def settings_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only arguments and their defaults, `seed` aside."""
    found = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY and p.name != "seed"}


def type_of(function: Callable[..., Any], name: str) -> type | None:
    """One of `TYPES`, by the annotation or else the default; None where neither says."""
    bare = inspect.unwrap(getattr(function, "func", function))
    try:
        told = typing.get_type_hints(bare).get(name)
    except (NameError, TypeError):  # annotations that only a type checker can read
        told = None
    if told is None:
        default = inspect.signature(function).parameters[name].default
        told = type(default)
    return told if told in TYPES else None


def checked(
    what: str, function: Callable[..., Any], given: Mapping[str, Any], allowed: Mapping[str, Allowed]
) -> dict[str, Any]:
    """The settings as the function takes them.

    A whole number may be written as 1e3, and a number as a whole one; true and false are no numbers, and neither NaN
    nor an infinity is a setting.

    Args:
        what: whose settings, for errors; allowed: values of some of them.

    Raises:
        AdvgymError: for a name, a type or a value that is not allowed, with what is.
    """
    parameters = inspect.signature(function).parameters
    some = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY] if not some else list(given)
    out = {}
    for name, value in given.items():
        if name not in known:
            raise unknown(f"setting of {what}", name, [n for n in known if n != "seed"])
        kind = type_of(function, name) if name in parameters else None
        out[name] = _value(f"setting {name!r} of {what}", value, kind, allowed.get(name))
    return out


def _value(what: str, value: Any, kind: type | None, allowed: Allowed | None) -> Any:
    found = value if kind is None else _typed(value, kind)
    if found is None and kind is not None:
        raise AdvgymError(f"{what} is {TYPES[kind]}{_more(allowed)}, not {value!r}")
    if isinstance(allowed, tuple) and found not in allowed:
        raise unknown(what, value, allowed)
    if isinstance(allowed, Range) and isinstance(found, int | float) and found not in allowed:
        raise AdvgymError(f"{what} is {TYPES.get(kind or float, 'a number')}{_more(allowed)}, not {value!r}")
    return found


def _more(allowed: Allowed | None) -> str:
    if isinstance(allowed, tuple):
        return " among " + ", ".join(allowed)
    return f" {allowed}" if allowed is not None else ""


def _typed(value: Any, kind: type) -> Any:
    """The value as that type; None where it is none."""
    if kind is str:
        return str(value) if isinstance(value, str | Path) else None
    if kind is bool:
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        return None
    if isinstance(value, numbers.Integral):
        return kind(int(value))
    if kind is float:
        return float(value)
    return int(float(value)) if float(value).is_integer() else None


@dataclass(frozen=True)
class Setting:
    """One setting in words, for people and programs."""

    name: str
    type: str  # "a whole number", or "any value" where nothing says
    allowed: str  # "at least 1", "linf, l2"; "" for any of its type
    default: str  # as Python writes it; "" where it has to be given


def settings_in_words(function: Callable[..., Any], allowed: Mapping[str, Allowed]) -> list[Setting]:
    """Each setting with its type, what is allowed and its default."""
    found = []
    for name, default in settings_of(function).items():
        kind, values = type_of(function, name), allowed.get(name)
        some = ", ".join(values) if isinstance(values, tuple) else str(values or "").removeprefix("of ")
        given = "" if default is inspect.Parameter.empty else repr(default)
        found.append(Setting(name, TYPES[kind] if kind else "any value", some, given))
    return found


def described(function: Callable[..., Any], allowed: Mapping[str, Allowed]) -> dict[str, str]:
    """Each setting in one line: its type, what is allowed, its default."""
    out = {}
    for s in settings_in_words(function, allowed):
        told = s.type + _more(allowed.get(s.name)) if s.type in TYPES.values() else s.type
        out[s.name] = told + (f"; {s.default} by default" if s.default else "")
    return out
