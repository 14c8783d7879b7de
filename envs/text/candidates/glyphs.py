"""Characters as a reader sees them: look-alikes become the letter they resemble, what cannot be seen goes.

A defense and a score of validity need the very same normalisation, so it stands here. It is made for Latin script:
letters of other alphabets that look Latin become Latin. After Boucher et al. (2022), "Bad Characters", and the idea of
the skeletons of Unicode's technical standard 39; the table of look-alikes is our own.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("glyphs.toml")
_MARKS = ((0x300, 0x36F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE00, 0xFE2F), (0xE0100, 0xE01EF))
_UNSEEN = frozenset("\u115f\u1160\u180b\u180c\u180d\u3164\uffa0")  # fillers: letters by category, with nothing to see
_SPACES = {"\t": " ", "\n": "\n", "\r": " ", "\v": " ", "\f": " ", "\x85": " ", "\u2800": " "}
_NAMED = re.compile(
    r"LATIN (?:(SMALL|CAPITAL) )?LETTER (?:SMALL CAPITAL |TURNED |REVERSED |SIDEWAYS |SCRIPT |DOTLESS |INSULAR |"
    r"BLACKLETTER |MIDDLE-WELSH |STIRRUP |OPEN |CLOSED |BARRED |LONG )*([A-Z])(?: WITH .*| BAR)?$"
)
_REVERSED = re.compile("[\u202e\u202d]([^\u202a-\u202e]*)\u202c")


class _Glyphs(dict[int, str]):
    """The plain form of each code point, found once; a table for `str.translate`."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _plain(chr(code))
        return found


def _plain(char: str) -> str:
    table = look_alikes()
    if char in table:
        return table[char]
    if char in _SPACES:
        return _SPACES[char]
    kind = unicodedata.category(char)
    if kind in ("Cc", "Cf", "Cs") or char in _UNSEEN or any(a <= ord(char) <= b for a, b in _MARKS):
        return ""
    if char.isascii():
        return char
    if kind[0] == "Z":
        return " "
    if kind == "Pd":
        return "-"
    parts = unicodedata.normalize("NFKD", char)
    if parts != char:
        return "".join(map(_plain, parts))
    digit = unicodedata.digit(char, None)
    if digit is not None:
        return str(digit)
    named = _NAMED.search(unicodedata.name(char, ""))
    if named is None:
        return char
    return named[2] if named[1] == "CAPITAL" else named[2].lower()


_glyphs = _Glyphs()


@cache
def look_alikes() -> dict[str, str]:
    """Our table: character -> the one it resembles. Compatibility forms and accents are not in it; see `plain`."""
    groups = tomllib.loads(_FILE.read_text(encoding="utf-8"))["look_alikes"]
    return {char: key for key, chars in groups.items() for char in chars}


def plain(string: str) -> str:
    r"""The string as it looks, in plain characters: idempotent, never longer than NFKD makes it; case stays.

    Look-alikes and compatibility forms become what they resemble, accents and invisible characters go, every blank is
    a space (line feeds stay), a backspace takes the character before it along, and overridden directions are read.

    >>> plain("𝓷еver\u200b f\u0301ound"), plain("flx\bat")
    ('never found', 'flat')
    """
    if string.isascii() and string.isprintable():
        return string
    if "\b" in string or "\x7f" in string:
        string = _erased(string)
    if "\u202c" in string:
        string = _REVERSED.sub(lambda m: m[1][::-1] if m[0][0] == "\u202e" else m[1], string)
    return string.translate(_glyphs)


def _erased(string: str) -> str:
    """What is left on the line after its backspaces."""
    kept: list[str] = []
    for char in string:
        if char not in "\b\x7f":
            kept.append(char)
        elif kept:
            kept.pop()
    return "".join(kept)


def foreign(string: str) -> int:
    """How many characters `plain` would not leave as they are."""
    return 0 if string.isascii() and string.isprintable() else sum(_glyphs[ord(c)] != c for c in string)
