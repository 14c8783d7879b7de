"""What a source of candidates is: substitutes by word, or by word in its sentence, or the whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Words = Callable[[Sequence[str]], Mapping[str, list[str]]]
Texts = Callable[[Sequence[list[str]]], list[list[list[str]]]]


@dataclass(frozen=True)
class Source:
    """A source of candidates: either `words` (whatever the context) or `texts` (in context), or the whole vocabulary.

    Attributes:
        name: as it was asked for.
        words: words -> {word: substitutes, best first}.
        texts: word lists of sentences -> per sentence and word, its substitutes, best first.
        gaps, merges: where a source can: what may be put into each gap of a sentence (one more than it has words), and
            what may stand for each pair of neighbours.
        alphabet: of `texts`: all words that it may give; None where nobody can say, so that every sentence is asked
            before the task is made.
        key: what the substitutes depend on beside the words, as text; "" keeps nothing on disk.
        cased: `words` wants words as they stand, not in lower case too.
        groups: the whole table, where `words` reads one.
        offers: what its words are to agents: "language-model", "bugs".
    """

    name: str
    words: Words | None = None
    texts: Texts | None = None
    alphabet: Callable[[], Sequence[str]] | None = None
    gaps: Texts | None = None
    merges: Texts | None = None
    key: str = ""
    cased: bool = False
    groups: Mapping[str, Sequence[str]] | None = None
    offers: frozenset[str] = frozenset()

    @property
    def whole(self) -> bool:
        """Whether every word of the task stands in for every other."""
        return self.words is None and self.texts is None
