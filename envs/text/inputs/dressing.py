"""Words of running text: their core between punctuation, how a table may spell it, a substitute in the same dress."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# Punctuation that a word may stand in; a number sign before it is a hashtag's.
_AROUND = ".,;:!?\"'()[]{}«»„“”…‘’‚‹›#*_~-–—¡¿。，！？、：；（）「」『』《》"
_STRAIGHT = str.maketrans("’‘ʼ‐‑", "'''--")
_CURLY = str.maketrans("'", "’")
_PARTS = re.compile(r"([-‐‑–/]|['’ʼ]s$)")
SHORTEST = 3  # letters of a part of a word that is looked up alone


def dress(word: str) -> tuple[str, str, str]:
    """A word between its punctuation: ("(", "film", ").")."""
    core = word.strip(_AROUND)
    if not core:
        return "", word, ""
    before, _, after = word.partition(core)
    return before, core, after


def dressed(word: str, other: str, *, capital: bool = True) -> str:
    """`other` with the punctuation of `word` and, with `capital`, its capital."""
    before, core, after = dress(word)
    return before + (other[:1].upper() + other[1:] if capital and core[:1].isupper() else other) + after


def plain_core(word: str) -> str:
    """The core as lists hold it: lower case, composed letters, straight apostrophes and hyphens.

    >>> plain_core("(Don’t!")
    "don't"
    """
    return unicodedata.normalize("NFC", dress(word)[1].translate(_STRAIGHT)).lower()


def spellings(core: str) -> list[str]:
    """A core in the ways that a table may spell it, as it stands first."""
    found = [core, core.translate(_STRAIGHT), core.translate(_CURLY)]
    found += [unicodedata.normalize(form, f) for form in ("NFC", "NFD") for f in found]
    return list(dict.fromkeys([*found, *(f.lower() for f in found)]))


def inner(core: str) -> Iterator[tuple[str, str, str]]:
    """The parts of a word of several, and of a possessive: what stands before each, the part, and after it.

    >>> list(inner("low-budget"))
    [('', 'low', '-budget'), ('low-', 'budget', '')]
    """
    parts = _PARTS.split(core)
    for i in range(0, len(parts), 2):
        if len(parts) > 1 and len(parts[i]) >= SHORTEST:
            yield "".join(parts[:i]), parts[i], "".join(parts[i + 1 :])
