"""The space of word swaps: the table of choices of every sentence, from sources of candidates and constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from advgym.envs.text.candidates import Source, read_sources
from advgym.envs.text.candidates.kept import joined, texts_of
from advgym.envs.text.candidates.lexicons import NEIGHBOURS, lexicon_of, swaps_of
from advgym.envs.text.constraints import read_rules
from advgym.envs.text.data.corpora import Corpus
from advgym.envs.text.inputs.dressing import dress, dressed, plain_core
from advgym.envs.text.inputs.spacing import PAIR
from advgym.envs.text.inputs.vocabulary import UNKNOWN, Lexicon, pad_rows
from advgym.errors import AdvgymError


class Space:
    """What may stand where, for the texts of a corpus.

    Attributes:
        lexicon: of all words, with the substitutes that do not depend on the context.
        choices: C, substitutes of a site at most.
        laws: constraints on whole texts.
        whole: every word of the vocabulary is a choice; `substitutes` is not asked then.
        offers: what its words are to agents, of any source.
        splits: those with a table; sources that cannot say which words they may give are asked about the test split
            alone, when the task is made.
    """

    def __init__(
        self, corpus: Corpus, options: Mapping[str, Any], choices: int, *, dress_up: bool, more: Sequence[str] = ()
    ) -> None:  # fmt: skip
        sources = read_sources(options["candidates"])
        self.whole = sources[0].whole
        if self.whole and options.get("antonyms") == "auto":
            options = {**options, "antonyms": False}
        # Before the rules are read: that no table is looked through does not hang on what is on this machine.
        tests = [key for key in ("antonyms", "pos", "edit_distance") if _asks(options.get(key))]
        if self.whole and tests:
            raise AdvgymError(
                f"candidates='vocabulary' offers all words at once, which {', '.join(tests)} cannot look through: set "
                "antonyms=false, pos=false, edit_distance=0 (similarity and perplexity work)"
            )
        self.rules = read_rules(options)
        self.choices, self.laws, self.dress_up = choices, self.rules.laws, dress_up
        self.offers = frozenset().union(*(source.offers for source in sources))
        self.inside = [source for source in sources if source.texts is not None]
        self.plain = [source for source in sources if source.words is not None]
        self.corpus = corpus
        eager = [s for s in self.inside if s.alphabet is None or dress_up]
        self.splits = tuple(corpus.texts) if dress_up or not eager else ("test",)
        self._heard: dict[tuple[str, ...], list[list[list[str]]]] = {}
        self._rows: dict[tuple[str, ...], Tensor] = {}
        if eager:
            self._hear([text for split in self.splits for text in corpus.texts[split]])
        self.lexicon = self._lexicon([s for s in self.inside if s not in eager], list(more))

    def _lexicon(self, lazy: Sequence[Source], more: list[str]) -> Lexicon:
        corpus, rules = self.corpus, self.rules
        words = sorted({w for texts in corpus.texts.values() for text in texts for w in text})
        frozen = [w for w in words if self._core(w) in rules.frozen]
        tables = any(source.groups is not None for source in self.plain)
        # A table relates all words; what is made up (typos) is made for the choices alone.
        asked, most = (words, max(self.choices, NEIGHBOURS)) if tables else (set(words) - set(frozen), self.choices)
        found = swaps_of(self.plain, sorted(asked), dress_up=self.dress_up)
        self.swaps = {w: rules.keep(w, row, most) for w, row in found.items()}
        more += [w for s in lazy if s.alphabet is not None for w in s.alphabet()]
        more += [o for rows in self._heard.values() for lists in rows for row in lists for o in row]
        return lexicon_of(corpus, _Relation(self), self.choices, frozen, more)

    def _core(self, word: str) -> str:
        return plain_core(word) if self.dress_up else word

    def _hear(self, texts: Sequence[list[str]]) -> None:
        """Ask the sources that read the context about texts that are new: all at once, for models like batches."""
        new = [list(t) for t in dict.fromkeys(map(tuple, texts)) if t not in self._heard]
        said = [texts_of(source, new) for source in self.inside]
        for i, text in enumerate(new):
            self._heard[tuple(text)] = [
                [self._allowed(word, row) for word, row in zip(text, rows[i], strict=True)] for rows in said
            ]

    def _allowed(self, word: str, row: Sequence[str]) -> list[str]:
        if self._core(word) in self.rules.frozen:
            return []
        if self.dress_up:  # a source may leave the punctuation away, or keep it
            before, _, after = dress(word)
            row = [o if (dress(o)[0], dress(o)[2]) == (before, after) else dressed(word, o) for o in row]
        return [o for o in self.rules.keep(word, row) if o != word]

    # -- tables ----------------------------------------------------------------------------------------------
    def table(self) -> Tensor:
        """int64 (V + 1, C): the substitutes of each word whatever the context; index -1, no word, has none."""
        found = torch.where(self.lexicon.swappable.unsqueeze(1), self.lexicon.table, -1)
        return torch.cat([found, found.new_full((1, found.shape[1]), -1)])

    def substitutes(self, table: Tensor, texts: Sequence[list[str]], clean: Tensor) -> Tensor:
        """int64 (n, S, C) for texts whose words are `clean` (n, S): a look-up, unless a source reads the context."""
        if not self.inside:
            return table[clean]
        self._hear(texts)
        out = clean.new_full((*clean.shape, self.choices), -1)
        for i, text in enumerate(texts):
            out[i, : len(text)] = self._row(tuple(text))
        return out

    def _row(self, text: tuple[str, ...]) -> Tensor:
        """int64 (words, C) of one text."""
        if text not in self._rows:
            encode, frozen, rows = self.lexicon.vocabulary.encode, self.rules.frozen, []
            for word, *lists in zip(text, *self._heard[text], strict=True):
                plain = [] if self._core(word) in frozen else self.swaps.get(word, [])
                rows.append([w for w in encode(joined([plain, *lists])) if w >= 0][: self.choices])
            self._rows[text] = pad_rows(rows, self.choices)
        return self._rows[text]

    def words(self) -> Tensor:
        """Bool (V,): the words that the whole vocabulary offers as substitutes."""
        return torch.tensor(
            [w != UNKNOWN and PAIR not in w and not any(map(str.isspace, w)) for w in self.lexicon.vocabulary.words]
        )

    def sites(self) -> Tensor:
        """Bool (V + 1,): words that may be edited: no punctuation, no stop words, not the other text of a pair."""
        frozen = self.rules.frozen
        fine = [
            any(map(str.isalnum, w)) and PAIR not in w and self._core(w) not in frozen
            for w in self.lexicon.vocabulary.words
        ]
        return torch.tensor([*fine, False])


def _asks(value: Any) -> bool:
    """Whether an option of a constraint asks for anything; one that is malformed is left to its own error."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value is True or whole or isinstance(value, dict) or (isinstance(value, str) and value.endswith(".json"))


class _Relation(dict[str, Sequence[str]]):
    """Word -> substitutes for `lexicon_of`: of the corpus' words as pruned, of others as their tables have them."""

    def __init__(self, space: Space) -> None:
        super().__init__(space.swaps)
        self._tables = [s.groups for s in space.plain if s.groups is not None]
        self._keep = space.rules.keep

    def get(self, word: str, default: Any = None) -> Any:
        """As of a dict."""
        if word in self:
            return self[word] or default
        found = joined([table.get(word, ()) for table in self._tables])
        return self._keep(word, found[:NEIGHBOURS]) or default
