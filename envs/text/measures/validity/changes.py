"""What changed between two texts, word by word, once both look alike: swaps, insertions, deletions, torn words."""

from __future__ import annotations

import re
from collections import Counter
from difflib import SequenceMatcher
from functools import lru_cache
from typing import NamedTuple

from advgym.envs.text.candidates.glyphs import plain

CELLS = 250_000  # aligned exactly up to this many pairs of words; beyond, as bags of words
_WORD = re.compile(r"[^\W_]+?(?=n't\b)|n't\b|[^\W_]+")
_WHOLE = {"n't": "not", "ca": "can", "wo": "will", "sha": "shall"}  # what contractions leave
_LIKE = str.maketrans("1i05", "llos")  # letters and digits that look alike even in plain characters


class Changes(NamedTuple):
    """Of a pair of texts.

    `swaps` are (old, new) words, "" where one was inserted or deleted; `torn` counts the blanks put into words and
    those taken out; `words` those of the longer text; `odd` the words that were written in other characters.
    """

    swaps: list[tuple[str, str]]
    torn: int
    words: int
    odd: int


@lru_cache(1 << 16)
def read_word(raw: str) -> tuple[tuple[str, ...], bool]:
    """The words in a run of characters without blanks, in plain lower case, and whether it was written otherwise."""
    looks = plain(raw)
    return tuple(_WHOLE.get(w, w) for w in _WORD.findall(looks.lower())), looks != raw


def read_words(text: str) -> tuple[list[str], list[bool]]:
    """The words of a text in plain lower case, and which were written in other characters; punctuation is no word.

    >>> read_words("It isn't 𝓷ice, is it?")
    (['it', 'is', 'not', 'nice', 'is', 'it'], [False, False, False, True, False, False])
    """
    words: list[str] = []
    odd: list[bool] = []
    for raw in text.split():
        found, other = read_word(raw)
        words += found
        odd += [other] * len(found)
    return words, odd


def compare(original: str, adversarial: str) -> Changes:
    """The changes between two texts, in time linear in what did not change."""
    old, _odd = read_words(original)
    new, odd = read_words(adversarial)
    many = max(len(old), len(new))
    foreign = max(0, sum(odd) - sum(_odd))
    # Only a word in other characters may mean 1 by l, or 0 by o: `fall` is not `fail`.
    vague = [other or not (w.isalpha() or w.isdigit()) for w, other in zip(new, odd, strict=True)]
    if any(vague):
        like = {w.translate(_LIKE): w for w in reversed(old)}
        new = [like.get(w.translate(_LIKE), w) if v else w for w, v in zip(new, vague, strict=True)]
    first = 0
    short = min(len(old), len(new))
    while first < short and old[first] == new[first]:
        first += 1
    last = 0
    while last < short - first and old[-1 - last] == new[-1 - last]:
        last += 1
    old, new = old[first : len(old) - last], new[first : len(new) - last]
    if not old or not new:
        return Changes([(w, "") for w in old] + [("", w) for w in new], 0, many, foreign)
    if len(old) * len(new) > CELLS:
        return Changes(_bags(old, new), 0, many, foreign)
    swaps: list[tuple[str, str]] = []
    torn = 0
    loose = any(vague)
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            torn += _resolve(old[a:b], new[c:d], swaps, loose)
    return Changes(swaps, torn, many, foreign)


def _resolve(old: list[str], new: list[str], swaps: list[tuple[str, str]], loose: bool) -> int:
    """Pair the words of two passages; returns how many blanks alone tell apart words of the same letters."""
    seen = [w.translate(_LIKE) for w in old] if loose else old
    read = [w.translate(_LIKE) for w in new] if loose else new
    i = j = torn = 0
    while i < len(old) and j < len(new):
        k, m, one, other = i + 1, j + 1, seen[i], read[j]
        while one != other:
            if other.startswith(one) and k < len(old):
                one, k = one + seen[k], k + 1
            elif one.startswith(other) and m < len(new):
                other, m = other + read[m], m + 1
            else:
                break
        if one == other:
            torn += k - i + m - j - 2
            i, j = k, m
        else:
            if not veiled(old[i], new[j]):
                swaps.append((old[i], new[j]))
            i, j = i + 1, j + 1
    swaps += [(w, "") for w in old[i:]]
    swaps += [("", w) for w in new[j:]]
    return torn


def veiled(old: str, new: str) -> bool:
    """Whether a word is the old one but for characters that no table knows, in less than half of its letters.

    >>> veiled("film", "fiλm"), veiled("film", "firm")
    (True, False)
    """
    if new.isascii() or len(old) != len(new):
        return False
    same = [a == b for a, b in zip(old, new, strict=True)]
    return 2 * sum(same) > len(old) and all(s or not b.isascii() for s, b in zip(same, new, strict=True))


def _bags(old: list[str], new: list[str]) -> list[tuple[str, str]]:
    gone, come = Counter(old), Counter(new)
    lost, found = list((gone - come).elements()), list((come - gone).elements())
    both = min(len(lost), len(found))
    return [
        *zip(lost, found, strict=False),
        *((w, "") for w in lost[both:]),
        *(("", w) for w in found[both:]),
    ]
