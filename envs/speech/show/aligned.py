"""Two transcripts under each other, word by word, with what changed marked."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import zip_longest

GAP = ""  # of a word that the other transcript lacks


def alignment(old: Sequence[str], new: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of words of the least edit distance (Levenshtein 1966); "" where one side has none.

    >>> alignment(["one", "two", "six"], ["one", "nine", "two"])
    [('one', 'one'), ('two', 'nine'), ('six', 'two')]
    """
    n, m = len(old), len(new)
    cost = [[i + j if not i or not j else 0 for j in range(m + 1)] for i in range(n + 1)]
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            swap = cost[i - 1][j - 1] + (old[i - 1] != new[j - 1])
            cost[i][j] = min(swap, cost[i - 1][j] + 1, cost[i][j - 1] + 1)
    pairs: list[tuple[str, str]] = []
    i, j = n, m
    while i or j:
        if i and j and cost[i][j] == cost[i - 1][j - 1] + (old[i - 1] != new[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((old[i], new[j]))
        elif i and cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
            pairs.append((old[i], GAP))
        else:
            j -= 1
            pairs.append((GAP, new[j]))
    return pairs[::-1]


def table(rows: Sequence[tuple[str, str]]) -> str:
    """(name, transcript) rows under each other, aligned to the first one; changed words are marked and underlined.

    Rows after the second are aligned to the first one by themselves, as a target is.
    """
    first = rows[0][1].split()
    slots = [0] * (len(first) + 1)  # inserted words before each place, at most
    every = []
    for _, text in rows[1:]:
        pairs = alignment(first, text.split())
        places: list[list[str]] = [[] for _ in range(len(first) + 1)]
        words, at = [GAP] * len(first), 0
        for old, new in pairs:
            if old == GAP:
                places[at].append(new)
            else:
                words[at], at = new, at + 1
        slots = [max(a, len(b)) for a, b in zip(slots, places, strict=True)]
        every.append((words, places))
    empty: tuple[list[str], list[list[str]]] = (first, [[] for _ in slots])
    lines = []
    for (name, text), (words, places) in zip(rows, [empty, *every], strict=True):
        cells = []
        for at, many in enumerate(slots):
            some = [word for word, _ in zip_longest(places[at], range(many), fillvalue=GAP)]
            cells += [_cell(str(word), GAP) for word in some]
            if at < len(first):
                cells.append(_cell(words[at], first[at]))
        said = "".join(cells) if text.strip() or first else _cell("(silence)", "(silence)")
        lines.append(f'<tr><th style="{_HEAD}" scope="row">{html.escape(name)}</th>{said}</tr>')
    look = "border-collapse:collapse;width:auto;margin:4px 0 8px"
    return f'<div style="overflow-x:auto"><table style="{look}">{"".join(lines)}</table></div>'


_HEAD = "text-align:left;font-weight:400;color:var(--muted);font-size:.8em;padding:1px 12px 1px 0;white-space:nowrap"


def _cell(word: str, old: str) -> str:
    style = "padding:1px 8px 1px 0;white-space:nowrap"
    if word == old:
        return f'<td style="{style}">{html.escape(word)}</td>'
    if not word:
        return f'<td style="{style};color:var(--bad)" title="{html.escape(old)} is gone">–</td>'
    mark = "color:var(--bad);font-weight:600;text-decoration:underline;text-underline-offset:3px"
    return f'<td style="{style}"><mark style="background:none;{mark}">{html.escape(word)}</mark></td>'
