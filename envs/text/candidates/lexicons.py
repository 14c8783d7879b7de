"""Lexicons: the words of corpora and of the caller's own sentences, with what may stand in for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from advgym.envs.text.candidates import Source, read_sources
from advgym.envs.text.candidates.kept import joined, words_of
from advgym.envs.text.data.corpora import Corpus
from advgym.envs.text.data.rows import Rows
from advgym.envs.text.data.samples import given_rows
from advgym.envs.text.inputs.dressing import dress, dressed, inner, spellings
from advgym.envs.text.inputs.spacing import read_splitter
from advgym.envs.text.inputs.text_pairs import text_words
from advgym.envs.text.inputs.vocabulary import Lexicon, make_lexicon, neighbours, pad_rows, with_unknown
from advgym.errors import AdvgymError, DataError

NEIGHBOURS = 16  # of a word at most, in the relation that open tables obey
SOURCES = {
    "counter-fitted": "counterfitted_neighbors.json",
    "wordnet": "wordnet_synonyms.json",
}
Keep = Callable[[str, Sequence[str]], list[str]]  # (word, substitutes) -> those that the constraints let through


class Asked(dict[str, list[str]]):
    """The candidates of sources without context as a mapping that asks when it is read."""

    def __init__(self, sources: Sequence[Source]) -> None:
        super().__init__()
        self._sources = sources

    def get(self, word: str, default: Any = None) -> Any:
        """As of a dict."""
        if word not in self:
            self[word] = joined([words_of(source, [word]).get(word, []) for source in self._sources])
        return self[word] or default


def load_synonyms(candidates: Any) -> Mapping[str, Sequence[str]]:
    """Word -> substitutes, for tasks whose tables know no context.

    Raises:
        AdvgymError: for sources that need the sentence, and for those that do not exist.
    """
    sources = read_sources(candidates)
    for source in sources:
        if source.words is None:
            raise AdvgymError(
                f"candidates={source.name!r} reads whole sentences; this task takes tables of words: 'counter-fitted', "
                "'wordnet', 'typos', a dict ... (the word-swap tasks take it)"
            )
    if len(sources) == 1 and sources[0].groups is not None:
        return sources[0].groups
    return Asked(sources)


def lexicon_of(
    corpus: Corpus, groups: Mapping[str, Sequence[str]], choices: int, frozen: Sequence[str] = (),
    more: Sequence[str] = (),
) -> Lexicon:  # fmt: skip
    """The vocabulary of a corpus with all substitutes (and `more` words), its statistics from the training split."""
    said = {w for texts in corpus.texts.values() for text in texts for w in text}
    words = said | {o for w in said for o in groups.get(w, ())} | set(more)
    vocabulary = with_unknown(sorted(words))
    near = neighbours(vocabulary, groups, max(choices, NEIGHBOURS))
    if not corpus.trained:
        return make_lexicon(vocabulary, near, choices, frozen=frozen)
    seen, given = corpus.texts[corpus.trained], corpus.labels[corpus.trained]
    train = pad_rows([vocabulary.encode(t) for t in seen], max(corpus.longest, 1))
    labels = torch.tensor(given) if given and len(corpus.classes) == 2 else None
    return make_lexicon(vocabulary, near, choices, frozen=frozen, train=train, labels=labels)


@dataclass(frozen=True)
class Own:
    """The caller's sentences: words, what stands between them, labels as they stand in the data."""

    texts: list[list[str]]
    gaps: list[list[str]]
    rows: Rows

    @property
    def corpus(self) -> Corpus:
        """The same texts as every split, without labels; nothing is known of what a victim was trained on."""
        both = ("train", "test")
        none: dict[str, list[int]] = {split: [] for split in both}
        return Corpus("own", dict.fromkeys(both, self.texts), none, (), "", dict.fromkeys(both, self.gaps), "")


def own_samples(rows: Any, attacked: int = 2, split: Any = "blanks") -> Own:
    """The words of samples, by the option `splitter`; white space separates them by default.

    A sentence may be a pair of texts, of which number `attacked` is edited; the other one becomes a single word.
    """
    found = rows if isinstance(rows, Rows) else given_rows(rows)
    splitter = read_splitter(split)
    pairs = [isinstance(t, tuple) for t in found.texts]
    if any(pairs) and not all(pairs):
        raise DataError(f"{found.where[pairs.index(not pairs[0])]}: some samples are pairs of texts, and some are not")
    texts = [text_words(t, attacked, splitter, at) for t, at in zip(found.texts, found.where, strict=True)]
    return Own([t.words for t in texts], [t.gaps for t in texts], found)


def swaps_of(sources: Sequence[Source], words: Sequence[str], *, dress_up: bool) -> dict[str, list[str]]:
    """The substitutes of words by sources without context, in turns; with `dress_up` between a word's punctuation.

    Such a word is looked up in every spelling (`dressing.spellings`); one of several parts (low-budget, film's) that no
    source knows as a whole has the substitutes of its parts.
    """
    tables = []
    cores = {w: dress(w)[1] if dress_up else w for w in words}
    loose = {c for core in cores.values() for c in (core, *(part for _, part, _ in inner(core)))} if dress_up else set()
    for source in sources:
        asked = set(cores.values())
        if dress_up and not source.cased:
            asked |= {form for c in loose for form in spellings(c)}
        tables.append((source, words_of(source, sorted(asked))))
    out = {}
    for word, core in cores.items():
        lists = []
        for source, found in tables:
            row = found.get(core) or []
            if dress_up and not source.cased:
                row = _looked_up(found, core)
            lists.append([dressed(word, o, capital=not source.cased) for o in row] if dress_up else row)
        out[word] = [o for o in joined(lists) if o != word]
    return out


def _looked_up(found: Mapping[str, list[str]], core: str) -> list[str]:
    whole = next((found[form] for form in spellings(core) if found.get(form)), None)
    if whole is not None:
        return whole
    rows = []
    for before, part, after in inner(core):
        row: list[str] = next((found[form] for form in spellings(part) if found.get(form)), [])
        capital = part[:1].isupper()
        rows.append([before + (o[:1].upper() + o[1:] if capital else o) + after for o in row])
    return joined(rows)
