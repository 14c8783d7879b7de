"""What is known of pairs of words: synonyms, antonyms, inflections, slips of the keyboard, and who negates.

Everything works on lower-case words in plain letters. Tables of synonyms and WordNet's antonyms are used where they are
on the machine; the rest needs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from advgym.envs.text.candidates import lexicons
from advgym.envs.text.constraints import antonyms
from advgym.envs.text.data import grammar
from advgym.lib.weights import data_dir

_NEGATORS = """
not no never nor neither none nobody nothing nowhere without cannot hardly barely scarcely rarely seldom against instead
unlike
"""
_DEGREES = """
only always ever even just also really very quite nearly almost entirely solely simply merely still already often
usually generally too so indeed actually mostly largely truly fully purely exclusively particularly especially
certainly probably rather a an the
"""
NEGATORS = frozenset(_NEGATORS.split())
DEGREES = frozenset(_DEGREES.split())  # adverbs that only strengthen, weaken or narrow, and articles
_REVERSING = ("un", "in", "im", "il", "ir", "dis", "non", "anti", "mis")
_ENDINGS = frozenset(("", "s", "es", "ed", "d", "ing", "er", "ers", "ly", "ies", "y", "ied", "e", "al"))
STEM = 4  # letters that two forms of a word share at least


@dataclass(frozen=True)
class Relations:
    """Tables of words.

    Attributes:
        near: word -> its synonyms; either direction counts.
        listed: word -> words of a shared synset, whatever the sense: known words, and no evidence of a meaning kept.
        apart: whether two words are no antonyms; antonyms overrule synonyms.
        sources: names of the tables, so that two scores can be compared.
    """

    near: Mapping[str, Collection[str]] = field(default_factory=dict)
    listed: Mapping[str, Collection[str]] = field(default_factory=dict)
    apart: Callable[[str, str], bool] | None = None
    sources: tuple[str, ...] = ()

    def synonyms(self, one: str, other: str) -> bool:
        """Whether either lists the other."""
        return other in self.near.get(one, ()) or one in self.near.get(other, ())

    def antonyms(self, one: str, other: str) -> bool:
        """Opposites by the table, or one being the other behind a prefix that reverses it (happy, unhappy)."""
        short, long = sorted((one, other), key=len)
        if len(short) >= STEM and any(long == prefix + short for prefix in _REVERSING):
            return True
        return self.apart is not None and not self.apart(one, other)

    def known(self, word: str) -> bool:
        """Whether the word is in a table of synonyms: a slip of the keyboard is not."""
        return word in self.near or word in self.listed


def _shared(one: str, other: str) -> int:
    """Letters in front that two words share."""
    short = min(len(one), len(other))
    return next((i for i in range(short) if one[i] != other[i]), short)


def inflected(one: str, other: str) -> bool:
    """Two forms of one word, as far as endings tell: film, films; own, owned.

    >>> inflected("comprise", "comprises"), inflected("film", "filth")
    (True, False)
    """
    same = _shared(one, other)
    return same >= min(STEM, len(one), len(other)) and same > 1 and {one[same:], other[same:]} <= _ENDINGS


def slip(one: str, other: str) -> bool:
    """One keystroke apart (a letter more, less, other, or two exchanged) in words of four letters or more.

    >>> slip("movie", "mvoie"), slip("fine", "find"), slip("good", "bad")
    (True, True, False)
    """
    if min(len(one), len(other)) < STEM or abs(len(one) - len(other)) > 1 or not (one.isalpha() and other.isalpha()):
        return False
    head = _shared(one, other)
    rest, left = one[head:], other[head:]
    if len(one) == len(other):
        return rest[1:] == left[1:] or (rest[2:] == left[2:] and rest[:2] == left[1::-1])
    short, long = sorted((rest, left), key=len)
    return long[1:] == short


def default_relations() -> Relations:
    """Synonyms of the embedded grammar, and the tables and WordNet's antonyms that ADVGYM_DATA or NLTK_DATA hold."""
    return _found(data_dir(), os.environ.get("NLTK_DATA", ""))


@cache
def _found(root: Path | None, nltk: str) -> Relations:
    near: dict[str, set[str]] = {w: set(others) for w, others in grammar.synonyms().items()}
    listed: dict[str, set[str]] = {}
    sources = ["grammar"]
    for name, file in lexicons.SOURCES.items():
        path = None if root is None else root / "text" / "synonyms" / file
        if path is not None and path.is_file():
            sources.append(name)
            for word, others in lexicons.load_synonyms(str(path)).items():
                (listed if name == "wordnet" else near).setdefault(word, set()).update(others)
    apart = antonyms.test("auto")
    return Relations(near, listed, apart, (*sources, *(["wordnet-antonyms"] if apart else [])))
