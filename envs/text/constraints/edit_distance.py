"""A substitute is at most so many characters away from the word (Levenshtein, 1966)."""

from __future__ import annotations

from advgym.envs.text.constraints.law import Test


def test(most: int) -> Test | None:
    """At most `most` characters put in, left out or replaced; 0 asks for nothing."""
    return None if not most else lambda word, other: levenshtein(word, other, most) <= most


def levenshtein(one: str, other: str, most: int | None = None) -> int:
    """The edit distance; where it is beyond `most`, any number beyond it.

    >>> levenshtein("kitten", "sitting"), levenshtein("", "abc"), levenshtein("film", "movie", 2) > 2
    (3, 3, True)
    """
    if most is not None and abs(len(one) - len(other)) > most:
        return most + 1
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
        if most is not None and min(row) > most:
            return most + 1
    return row[-1]
