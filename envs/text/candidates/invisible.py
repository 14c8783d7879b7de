"""Candidates with characters that cannot be seen (Boucher et al., 2022, "Bad Characters")."""

from __future__ import annotations

from advgym.envs.text.candidates.source import Source

ZERO_WIDTH = "\u200b\u200c\u200d"  # space, non-joiner, joiner: none is white space to `str.split`


def invisible() -> Source:
    """Words with a zero-width character between all letters, or in one gap between two; the former first."""
    return Source("invisible", words=lambda words: {w: variants(w) for w in words}, cased=True)


def variants(word: str) -> list[str]:
    """Between all letters, then one gap each from the left, for each of the three characters."""
    if len(word) < 2 or not any(c.isalnum() for c in word):
        return []
    every = [z.join(word) for z in ZERO_WIDTH]
    one = [word[:i] + z + word[i:] for i in range(1, len(word)) for z in ZERO_WIDTH]
    return list(dict.fromkeys([*every, *one]))
