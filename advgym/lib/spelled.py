"""Options behind a question mark: "SOURCE?prompt=...&labels=a,b", typed by their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote

from advgym.errors import AdvgymError, unknown
from advgym.lib.settings import TYPES


def spelled(
    text: str, defaults: Mapping[str, Any], what: str, *, others: bool = False
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """(source, the options that were given) of "source?name=value&name=value".

    Values are as in an address: `+` and `%20` are blanks, `%0A` ends a line, `%26` is &.

    Args:
        defaults: of the options that there are; a tuple takes words with commas between.
        what: whose options, for messages.
        others: what is no option stays with the source, as the query of an address.

    Raises:
        AdvgymError: for an option that does not exist, stands twice, or whose value is of another type.

    >>> spelled("m?labels=a,b&batch=4", {"labels": (), "batch": 1}, "a model")
    ('m', {'labels': ('a', 'b'), 'batch': 4})
    """
    source, _, query = text.partition("?")
    found: dict[str, Any] = {}
    rest = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in defaults:
            if not others:
                raise unknown(f"option of {what}", name, defaults)
            rest.append(f"{quote(name)}={quote(value)}")
            continue
        if name in found:
            raise AdvgymError(f"option {name!r} of {what} stands twice; an & in a value is written %26")
        found[name] = _typed(f"option {name!r} of {what}", value, defaults[name])
    return source + ("?" + "&".join(rest) if rest else ""), found


def _typed(what: str, value: str, default: Any) -> Any:
    if isinstance(default, tuple):
        return tuple(value.split(","))
    if isinstance(default, str):
        return value
    kind = type(default)
    try:
        number = float(value)
        if kind is int and number != int(number):
            raise ValueError
        return kind(number)
    except (ValueError, OverflowError):
        raise AdvgymError(f"{what} is {TYPES[kind]}, not {value!r}") from None
