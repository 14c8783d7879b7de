"""Texts as words and what stands between them, so that a text nobody edits is shown byte for byte.

A text of n words has n + 1 gaps: before the first word, between words, after the last one. A word that goes takes the
gap before it along (the first one that after it); a word that comes brings a blank, in texts without blanks nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from advgym.errors import AdvgymError, DataError, unknown

BLANK = " "
# Between the two texts of a pair; the one that is not attacked is a single word that holds it. The first text ends with
# it, the second with CLOSE. Both are no characters and stand in no text: samples that hold them are refused.
PAIR, CLOSE = "\ufdd0", "\ufdd1"
NAMED = ("blanks", "characters")
Splitter = Callable[[str], Sequence[str]]
Gaps = tuple[Tensor, tuple[str, ...]]  # int64 (n, W + 1), what they index
# Scripts that put no blanks between words: Thai, Lao, Myanmar, Khmer, kana, ideographs.
_RUNS = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF),
         (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))  # fmt: skip


class Spaced(NamedTuple):
    """Words, and one gap more than words."""

    words: list[str]
    gaps: list[str]

    def text(self) -> str:
        """The text that was split."""
        return self.gaps[0] + "".join(w + g for w, g in zip(self.words, self.gaps[1:], strict=True))


def read_splitter(value: Any) -> Splitter:
    """The option `splitter`: "blanks", "characters" (of scripts without blanks), or a callable of a text.

    Raises:
        AdvgymError: for anything else.
    """
    if value is None or value == "blanks":
        return str.split
    if value == "characters":
        return characters
    if callable(value):
        return value
    raise unknown("splitter", value, NAMED, "A callable of a text that gives its words works too, such as jieba.lcut.")


def spaced(text: str, splitter: Splitter = str.split, where: str = "the text") -> Spaced:
    """Words by a splitter, and all that it leaves out.

    >>> spaced("  a fine   film ")
    Spaced(words=['a', 'fine', 'film'], gaps=['  ', ' ', '   ', ' '])
    >>> spaced("我看iPad，好", characters).words
    ['我', '看', 'iPad', '，', '好']

    Raises:
        DataError: the splitter gives what does not stand in the text, in this order.
    """
    found = splitter(text)
    if isinstance(found, str) or not all(isinstance(w, str) for w in found):
        raise AdvgymError(f"splitter= gives a list of words, not {found!r}")
    words, gaps, at = [], [], 0
    for word in found:
        if not word.strip():
            continue
        start = text.find(word, at)
        if start < 0:
            raise DataError(f"{where}: splitter= gives {word!r}, which does not stand in {text[at : at + 40]!r}")
        words.append(word)
        gaps.append(text[at:start])
        at = start + len(word)
    return Spaced(words, [*gaps, text[at:]])


def characters(text: str) -> list[str]:
    """Every character of a script without blanks, with its marks; runs of other letters and digits as they are.

    >>> characters("ดีมาก ok!")
    ['ดี', 'ม', 'า', 'ก', 'ok!']
    """
    return [piece for word in text.split() for piece in _pieces(word)]


def _pieces(word: str) -> Iterator[str]:
    held, open_ = "", False  # whether `held` goes on with letters
    for char in word:
        mark = unicodedata.category(char) in ("Mn", "Mc", "Me", "Cf")
        alone = not mark and (_alone(char) or (not char.isascii() and unicodedata.category(char)[0] == "P"))
        if held and not mark and (alone or not open_):
            yield held
            held = ""
        held += char
        open_ = open_ if mark else not alone
    if held:
        yield held


def _alone(char: str) -> bool:
    return any(low <= ord(char) <= high for low, high in _RUNS)


class Spacing:
    """The gaps of many texts as numbers.

    Attributes:
        texts: the different gaps, the blank first.
        between: what stands before a word that is put in.
    """

    def __init__(self, gaps: Iterable[Sequence[str]], *, between: str = BLANK) -> None:
        self.between = between
        self.texts = tuple(dict.fromkeys([BLANK, between, "", *(g for row in gaps for g in row)]))
        self._index = {gap: i for i, gap in enumerate(self.texts)}

    def rows(self, gaps: Sequence[Sequence[str]], width: int) -> Tensor:
        """int64 (n, width + 1) for texts of at most `width` words; the last column is what stands after the text."""
        out = torch.full((len(gaps), width + 1), self._index[self.between])
        for i, row in enumerate(gaps):
            numbers = [self._index[g] for g in row]
            out[i, : len(numbers) - 1] = torch.tensor(numbers[:-1], dtype=torch.int64)
            out[i, len(numbers) - 1 :] = self._index[""]
            out[i, -1] = numbers[-1]
            if len(numbers) == 1:  # no words: all that there is stands after them
                out[i, 0] = self._index[""]
        return out


def joined(words: Sequence[str], ids: Sequence[int], gaps: Sequence[int] | None, spaces: Sequence[str]) -> str:
    """A text of word ids, -1 where there is none; without gaps the words are joined by one blank."""
    if gaps is None:
        return BLANK.join([words[i] for i in ids if i >= 0])
    out, first = [spaces[gaps[0]]], True
    for slot, i in enumerate(ids):
        if i < 0:
            continue
        out += [words[i]] if first else [spaces[gaps[slot]], words[i]]
        # After the first text of a pair another one begins, with a lead of its own.
        first = words[i].endswith(PAIR) and slot + 1 < len(ids)
        if first:
            out.append(spaces[gaps[slot + 1]])
    return "".join([*out, spaces[gaps[-1]]])
