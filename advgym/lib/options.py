"""Options of tasks and victims as typed structs: a field is an option, with its type, its range and its help.

    class Ball(Options):
        eps: Annotated[float, Meta(gt=0, description="radius in pixel units")]
        lattice: Annotated[int, Meta(ge=0, le=65536, description="levels per unit, 0 for plain floats")]

    @takes(Ball)
    def ball(spec: Spec, options: Ball) -> Task: ...

Types are int, float, bool, str, Literal, tuple[str, ...], and Any for what the factory reads by itself. Where a number
is wanted its text and a fraction such as "8/255" do as well.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from advgym.errors import AdvgymError, unknown
from advgym.lib.settings import TYPES, Range


class Options(msgspec.Struct, kw_only=True):
    """What every table of options derives from."""


T = TypeVar("T", bound=Options)
Words = tuple[str, ...]


class Field(NamedTuple):
    """One option: `kind` is a type of the module's docstring, `allowed` its range or words."""

    kind: Any
    allowed: Range | Words | None
    help: str
    default: Any = msgspec.NODEFAULT

    def __str__(self) -> str:
        if isinstance(self.allowed, tuple):
            return f"one of {', '.join(self.allowed)}"
        told = TYPES.get(self.kind, "words with commas between" if self.kind is Words else "any value")
        return told if self.allowed is None else f"{told} {self.allowed}"


@cache
def fields_of(kind: type[Options]) -> dict[str, Field]:
    """The options of a struct, in order."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(kind):
        hint, *notes = typing.get_args(hints[field.name]) if hasattr(hints[field.name], "__metadata__") else [Any]
        hint = hint if notes else hints[field.name]
        meta = next((note for note in notes if isinstance(note, msgspec.Meta)), msgspec.Meta())
        allowed: Range | Words | None = None
        if typing.get_origin(hint) is Literal:
            hint, allowed = str, tuple(map(str, typing.get_args(hint)))
        elif any(bound is not None for bound in (meta.ge, meta.gt, meta.le)):
            low = meta.ge if meta.gt is None else meta.gt
            allowed = Range(low, meta.le, above=meta.gt is not None)
        found[field.name] = Field(hint, allowed, meta.description or "", field.default)
    return found


def read(kind: type[T], given: Mapping[str, Any], what: str = "") -> T:
    """The options as a struct; what is not given has its default.

    Args:
        what: whose options, for errors; tasks name the option alone.

    Raises:
        AdvgymError: for a name, a type or a value that is not allowed, with what is.
    """
    fields = fields_of(kind)
    of = f" of {what}" if what else ""
    for name in given:
        if name not in fields:
            raise unknown(f"option{of}", name, fields)
    for name, field in fields.items():
        if name not in given and field.default is msgspec.NODEFAULT:
            raise AdvgymError(f"{name}{of} is not given: it is {field}")
    return kind(**{name: value_of(f"{name}{of}", value, fields[name]) for name, value in given.items()})


def value_of(what: str, value: Any, field: Field) -> Any:
    """The value as an option takes it.

    Raises:
        AdvgymError: for what is none, with what is allowed and the option's help.
    """
    found = _typed(value, field.kind)
    if isinstance(field.allowed, tuple) and isinstance(found, str) and found not in field.allowed:
        raise unknown(f"value of option {what}", value, field.allowed, field.help and f"It is {field.help}.")
    if (found is None and field.kind is not Any) or (isinstance(field.allowed, Range) and found not in field.allowed):
        raise AdvgymError(f"{what} is {field}{field.help and f' ({field.help})'}, not {value!r}")
    return found


def _typed(value: Any, kind: Any) -> Any:
    """The value as that type; None where it is none. A value of any kind is as it was."""
    if kind is bool:
        spelled = {"true": True, "1": True, "false": False, "0": False}
        return spelled.get(str(value).lower()) if isinstance(value, bool | int | str) else None
    if kind in (int, float):
        found = number(value)
        if kind is float:
            return None if math.isnan(found) else found
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        return int(found) if math.isfinite(found) and found == int(found) else None
    if kind is str:
        return str(value) if isinstance(value, str | Path) else None
    if kind == Words:
        return tuple(value.split(",")) if isinstance(value, str) else value
    return value


def number(value: Any) -> float:
    """A finite number from a number, its text, or a fraction; NaN where it is none.

    >>> number("51/255"), number(True), number("1e-1")
    (0.2, nan, 0.1)
    """
    try:
        if isinstance(value, str) and "/" in value:
            above, below = value.split("/")
            found = float(above) / float(below)
        else:
            found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, ArithmeticError):
        return math.nan
    return found if math.isfinite(found) else math.nan


def takes(kind: type[T]) -> Callable[[Callable[[Any, T], Any]], Callable[[Any], Any]]:
    """Declares what a task's factory reads of its constraint: it is called with the spec and the struct.

    The spec's constraint then holds the values as they were read, of the options that its row has.
    """

    def declare(make: Callable[[Any, T], Any]) -> Callable[[Any], Any]:
        @wraps(make)
        def made(spec: Any) -> Any:
            given = spec.threat.constraint
            found = read(kind, given)
            told = {name: getattr(found, name) for name in given}
            return make(replace(spec, threat=replace(spec.threat, constraint=told)), found)

        made.options = kind  # type: ignore[attr-defined]
        return made

    return declare


def described(kind: type[Options], defaults: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Each option in words: its type and range, its default, its help.

    Args:
        defaults: those of a row, in place of the struct's and in their order; an option that it lacks is left out.
    """
    out = {}
    fields = fields_of(kind)
    for name in fields if defaults is None else defaults:
        field = fields[name]
        default = field.default if defaults is None else defaults[name]
        told = [] if field.kind is Any else [str(field)]
        told += [] if default is msgspec.NODEFAULT else [f"{default!r} by default"]
        out[name] = ": ".join(filter(None, ("; ".join(told), field.help)))
    return out


def told_by(make: Callable[..., Any], row: Mapping[str, Any]) -> dict[str, str]:
    """Each option of a task's constraint in words, by its factory and its row; {} where the factory declares none."""
    kind = getattr(make, "options", None)
    return {} if kind is None else described(kind, row.get("constraint", {}))
