"""A substitute can be of the word's part of speech, as WordNet lists both."""

from __future__ import annotations

from functools import cache

from advgym.envs.text.constraints.law import Test
from advgym.envs.text.data.wordnet_files import need_wordnet


def test(wanted: bool) -> Test | None:
    """A substitute shares a part of speech with the word; words that WordNet lacks pass with any.

    TextFooler and PWWS tag the sentence; WordNet knows what a word can be, not what it is here, so this asks for less.
    """
    if not wanted:
        return None
    parts = cache(need_wordnet("pos=true").parts)

    def fine(word: str, other: str) -> bool:
        own, new = parts(word), parts(other)
        return not own or not new or bool(own & new)

    return fine
