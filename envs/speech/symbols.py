"""The symbols of a transcript: one integer per character, 0 for the CTC blank, -1 for padding."""

from __future__ import annotations

from unicodedata import category

from advgym.errors import AdvgymError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The space and the 15 letters that spell the digits: symbol i is ALPHABET[i - 1], so 17 symbols with the blank.
ALPHABET = " efghinorstuvwxz"
LATIN = " 'abcdefghijklmnopqrstuvwxyz"


def tidy(text: str) -> str:
    """Single spaces, none at the ends."""
    return " ".join(text.split())


def spelled(text: str, alphabet: str) -> str:
    """A text as an alphabet writes it: in its case where it has one alone, without punctuation that it lacks.

    >>> spelled("Well, it's  six.", " 'EFGHILNSTVWX")
    "WELL IT'S SIX"
    """
    lower, upper = any(c.islower() for c in alphabet), any(c.isupper() for c in alphabet)
    text = text.upper() if upper and not lower else text.lower() if lower and not upper else text
    known = set(alphabet)
    return tidy("".join(c if c in known or not category(c).startswith("P") else " " * (c in "-–—") for c in text))


def plain_words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation.

    >>> plain_words("Well, it's six.")
    ['well', 'its', 'six']
    """
    return "".join(c for c in text.lower() if not category(c).startswith("P")).split()


def encode(text: str, alphabet: str = ALPHABET, width: int | None = None) -> list[int]:
    """Symbol ids of a text as the alphabet spells it, padded with -1 to `width`.

    >>> encode("six", width=5)
    [10, 6, 15, -1, -1]
    """
    text = spelled(text, alphabet)
    ids = [alphabet.find(c) + 1 for c in text]
    if 0 in ids:
        raise AdvgymError(f"no symbol for {text[ids.index(0)]!r} of {text!r}: the alphabet is {alphabet!r}")
    if width is not None and len(ids) > width:
        raise AdvgymError(f"{text!r} has {len(ids)} symbols; the victim answers with at most {width}")
    return ids + [-1] * (0 if width is None else width - len(ids))


def decode(ids: list[int], alphabet: str = ALPHABET) -> str:
    """The text of symbol ids; padding and blanks are left out.

    >>> decode([10, 6, 15, -1])
    'six'
    """
    return "".join(alphabet[i - 1] for i in ids if i > 0)
