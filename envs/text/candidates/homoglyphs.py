"""Candidates that look the same: letters of other alphabets (Eger et al., 2019, "VIPER"; Boucher et al., 2022)."""

from __future__ import annotations

from functools import cache

from advgym.envs.text.candidates.glyphs import look_alikes
from advgym.envs.text.candidates.source import Source


def homoglyphs() -> Source:
    """Words with all their letters, or one of them, replaced by its nearest look-alike; the whole word first.

    A reader sees no difference, so these words are a track of their own: normalising defenses and scores of validity
    undo them (`advgym.envs.text.candidates.glyphs.plain`, whose table this one reads the other way).
    """
    return Source(
        "homoglyphs", words=lambda words: {w: variants(w) for w in words}, cased=True, offers=frozenset({"bugs"})
    )


@cache
def alike() -> dict[str, str]:
    """Character -> the first that looks like it."""
    out: dict[str, str] = {}
    for other, char in look_alikes().items():
        out.setdefault(char, other)
    return out


def variants(word: str) -> list[str]:
    """All letters, then one letter each from the left; words without letters stay."""
    table = alike()
    if not any(c in table and c.isalnum() for c in word):
        return []
    every = "".join(table.get(c, c) for c in word)
    one = [word[:i] + table[c] + word[i + 1 :] for i, c in enumerate(word) if c in table]
    return list(dict.fromkeys([every, *one]))
