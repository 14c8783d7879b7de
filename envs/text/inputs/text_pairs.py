"""Pairs of texts of which one is edited: as words, and as the two texts again."""

from __future__ import annotations

from typing import Any

from advgym.envs.text.inputs.spacing import CLOSE, PAIR, Spaced, Splitter, spaced
from advgym.errors import AdvgymError


def join_pair(first: str, second: str, attacked: int, splitter: Splitter = str.split) -> Spaced:
    """The words of a pair whose text `attacked`, 1 or 2, may be edited; the other one is one word.

    >>> join_pair("a man sleeps", "he is awake", 2).words == ["a man sleeps" + PAIR, "he", "is", "awake"]
    True
    """
    words, gaps = spaced(first if attacked == 1 else second, splitter)
    if attacked == 1:
        return Spaced([*words, PAIR + second + CLOSE], [*gaps, ""])
    return Spaced([first + PAIR, *words], ["", *gaps])


def text_words(text: Any, attacked: int, splitter: Splitter = str.split, where: str = "the text") -> Spaced:
    """The words of a text, or of a pair whose text `attacked` may be edited, and what stands between them."""
    if attacked not in (1, 2):
        raise AdvgymError(f"attacked is 1 or 2, the text of a pair that is edited, not {attacked!r}")
    return spaced(text, splitter, where) if isinstance(text, str) else join_pair(text[0], text[1], attacked, splitter)


def split_pair(text: str) -> tuple[str, str]:
    """The two texts of a pair, as they stand.

    >>> split_pair(join_pair(" a man sleeps", "he is awake ", 1).text())
    (' a man sleeps', 'he is awake ')
    """
    first, _, second = text.partition(PAIR)
    return first, second.removesuffix(CLOSE)


def unpaired(texts: list[str]) -> list[Any]:
    """What a victim that reads strings is handed: pairs as tuples."""
    return [split_pair(t) if PAIR in t else t for t in texts]
