"""Options behind a question mark: "SOURCE?prompt=...&labels=a,b"."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote

from advgym.errors import AdvgymError, unknown
from advgym.lib.options import Options, fields_of


def spelled(
    text: str, kind: type[Options], what: str, *, others: bool = False
) -> tuple[str, dict[str, str]]:  # fmt: skip
    """(source, the options that were given, as texts for `options.read`) of "source?name=value&name=value".

    Values are as in an address: `+` and `%20` are blanks, `%0A` ends a line, `%26` is &.

    Args:
        kind: the options that there are.
        what: whose options, for messages.
        others: what is no option stays with the source, as the query of an address.

    Raises:
        AdvgymError: for an option that does not exist, or stands twice.

    >>> class Model(Options):
    ...     labels: str = ""
    >>> spelled("m?labels=a+b,c", Model, "a model")
    ('m', {'labels': 'a b,c'})
    """
    known = fields_of(kind)
    source, _, query = text.partition("?")
    found: dict[str, str] = {}
    rest = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            if not others:
                raise unknown(f"option of {what}", name, known)
            rest.append(f"{quote(name)}={quote(value)}")
            continue
        if name in found:
            raise AdvgymError(f"option {name!r} of {what} stands twice; an & in a value is written %26")
        found[name] = value
    return source + ("?" + "&".join(rest) if rest else ""), found
