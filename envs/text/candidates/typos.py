"""Candidates with one typing error (DeepWordBug: Gao et al., 2018; TextBugger: Li et al., 2019)."""

from __future__ import annotations

from itertools import zip_longest

from advgym.envs.text.candidates.source import Source

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
LOOKS = {"a": "@", "e": "3", "i": "1", "l": "1", "o": "0", "s": "5"}  # TextBugger's Sub-C
SOUNDS = (  # spellings that are read alike
    ("ph", "f"), ("ck", "k"), ("ee", "ea"), ("ea", "ee"), ("ei", "ie"), ("ie", "ei"), ("ou", "oo"), ("tion", "sion"),
    ("c", "k"), ("f", "ph"), ("s", "z"), ("z", "s"), ("y", "i"), ("i", "y"),
)  # fmt: skip


def _neighbours() -> dict[str, str]:
    """The keys beside each key, those of its own row first."""
    place = {key: (y, x + 0.5 * y) for y, row in enumerate(ROWS) for x, key in enumerate(row)}
    out = {}
    for key, (y, x) in place.items():
        near = [o for o, (v, u) in place.items() if o != key and abs(v - y) <= 1 and abs(u - x) <= 1]
        out[key] = "".join(sorted(near, key=lambda o: (place[o][0] != y, o)))
    return out


KEYS = _neighbours()


def typos() -> Source:
    """Neighbouring letters swapped, one left out, one put in, one mistyped, one that looks or sounds alike.

    The first and the last character stay, as in TextBugger (DeepWordBug keeps them in transpositions alone), so that
    readers still see the word; words of fewer than three letters have no typo. No draw: errors near the middle of the
    word come first, and the kinds take turns, so that however many are taken hold some of each.
    """
    return Source(
        "typos",
        words=lambda words: {w: variants(w) for w in words},
        key="typos 1",
        cased=True,
        offers=frozenset({"bugs"}),
    )


def variants(word: str) -> list[str]:
    """All words with one error, best mixed first, without the word itself."""
    if len(word) < 3 or not word.isalpha():
        return []
    n = len(word)
    inner = sorted(range(1, n - 1), key=lambda i: (abs(2 * i - n + 1), i))  # from the middle outwards
    low = word.lower()

    def put(i: int, new: str, many: int = 1) -> str:
        old = word[i : i + many]
        new = new.upper() if old.isupper() and old else new
        return word[:i] + new + word[i + many :]

    swap = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in inner if i < n - 2]
    drop = [word[:i] + word[i + 1 :] for i in inner]
    key = [put(i, KEYS[low[i]][nth]) for nth in range(2) for i in inner if nth < len(KEYS.get(low[i], ""))]
    add = [word[: i + 1] + KEYS[low[i]][0] + word[i + 1 :] for i in inner if low[i] in KEYS]
    look = [put(i, LOOKS[low[i]]) for i in inner if low[i] in LOOKS]
    sound = [put(i, new, len(old)) for old, new in SOUNDS for i in inner if low.startswith(old, i) and i + len(old) < n]
    turns = zip_longest(swap, drop, key, add, look, sound)
    return [v for v in dict.fromkeys(v for turn in turns for v in turn if v) if v != word]
