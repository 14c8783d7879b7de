"""Words as integers, and what is known of them without any victim: neighbours, frequency, class association."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

ODDS = 4.0  # log-odds are clipped to +-ODDS
UNKNOWN = "[UNK]"  # the word that no victim knows, for the probe of that name


class Vocabulary:
    """The words of a task, in a fixed order; id -1 stands for no word.

    >>> v = Vocabulary(["a", "film"])
    >>> v.encode("a film".split()), v.text([1, -1, 0])
    ([0, 1], 'film a')
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words: tuple[str, ...] = tuple(words)
        self.index: dict[str, int] = {word: i for i, word in enumerate(self.words)}
        if len(self.index) != len(self.words):
            raise ValueError("a vocabulary holds each word once")

    def public(self) -> dict[str, Any]:
        """The arguments that make this vocabulary again, in another process."""
        return {"words": self.words}

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    @cached_property
    def digest(self) -> str:
        """Equal exactly for equal vocabularies."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()

    @cached_property
    def strings(self) -> tuple[bytes, np.ndarray]:
        """All words in one utf-8 string, and int64 offsets: word i is `data[offsets[i]:offsets[i + 1]]`."""
        parts = [word.encode() for word in self.words]
        return b"".join(parts), np.cumsum([0, *map(len, parts)], dtype=np.int64)

    def encode(self, words: Iterable[str], default: int = -1) -> list[int]:
        """Ids of words, `default` for those that are not here."""
        return [self.index.get(word, default) for word in words]

    def text(self, ids: Iterable[int]) -> str:
        """Canonical text: the words joined by one space."""
        return " ".join([self.words[i] for i in ids if i >= 0])


def with_unknown(words: Iterable[str]) -> Vocabulary:
    """A vocabulary of these words and, last, the unknown word, so that tables over it can ask about that one."""
    found = list(words)
    return Vocabulary(found if UNKNOWN in found else [*found, UNKNOWN])


def pad_rows(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    """Lists of ids as int64 (n, width), padded with -1."""
    out = np.full((len(rows), width), -1, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out)


@dataclass(frozen=True)
class Lexicon:
    """What the threat model and a policy may know of each word of a vocabulary.

    Attributes:
        near: int64 (V, N) neighbours of each word, nearest first, padded with -1.
        choices: how many of them are offered as substitutes.
        swappable: bool (V,), words that may be a site.
        odds: float32 (V,) log p(word | class 1) - log p(word | class 0) in the training split; 0 where that is unknown.
        frequency: float32 (V,) log(1 + count) in the training split.
    """

    vocabulary: Vocabulary
    near: Tensor
    choices: int
    swappable: Tensor
    odds: Tensor
    frequency: Tensor

    @property
    def table(self) -> Tensor:
        """int64 (V, choices): the substitutes of each word."""
        return self.near[:, : self.choices]

    def related(self, one: Tensor, other: Tensor) -> Tensor:
        """Whether either word lists the other as its neighbour; broadcasts, False for -1."""
        one, other = torch.broadcast_tensors(one, other)
        near = self.near.to(one.device)
        either = (near[one] == other.unsqueeze(-1)).any(-1) | (near[other] == one.unsqueeze(-1)).any(-1)
        return either & (one >= 0) & (other >= 0)


def neighbours(vocabulary: Vocabulary, groups: Mapping[str, Sequence[str]], most: int) -> Tensor:
    """The neighbour table int64 (V, most) of a mapping; words outside the vocabulary are left out."""
    index = vocabulary.index
    rows = []
    for word in vocabulary.words:
        found = [index[other] for other in groups.get(word, ()) if other in index and other != word]
        rows.append(list(dict.fromkeys(found))[:most])
    return pad_rows(rows, most)


def make_lexicon(
    vocabulary: Vocabulary,
    near: Tensor,
    choices: int,
    *,
    frozen: Iterable[str] = (),
    train: Tensor | None = None,
    labels: Tensor | None = None,
) -> Lexicon:
    """A lexicon; `frozen` words are never sites, `train` int64 (n, W) and binary `labels` give the statistics."""
    size = len(vocabulary)
    swappable = (near[:, :choices] >= 0).any(1)
    swappable[[vocabulary.index[word] for word in frozen if word in vocabulary.index]] = False
    odds, frequency = torch.zeros(size), torch.zeros(size)
    if train is not None:
        frequency = torch.log1p(torch.bincount(train[train >= 0], minlength=size).to(torch.float32))
        if labels is not None:
            share = []
            for label in (0, 1):
                part = train[labels == label]
                count = torch.bincount(part[part >= 0], minlength=size).to(torch.float32) + 0.5
                share.append((count / count.sum()).log())
            odds = (share[1] - share[0]).clamp(-ODDS, ODDS)
            odds[frequency == 0] = 0.0
    return Lexicon(vocabulary, near, choices, swappable, odds, frequency)
