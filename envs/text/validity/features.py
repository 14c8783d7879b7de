"""The figures of a pair that the probability is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from advgym.envs.text.validity.changes import Changes, compare
from advgym.envs.text.validity.relations import DEGREES, NEGATORS, Relations, inflected, related, slip

NAMES = ("hard", "mild", "torn", "length", "negated", "fitted", "listed")
TYPICAL = 40.0  # words of a text whose length says nothing
SHORTEST, LONGEST = 5.0, 400.0  # beyond them length says no more than there


def grade(old: str, new: str, known: Relations) -> tuple[str, bool]:
    """(hard, mild, fitted or listed; negated) of one changed word; "" is no word.

    Mild: an adverb of degree or an article put in or left out; synonyms that are some by construction; two forms of a
    word; a slip of the keyboard that makes no other known word. Fitted: neighbours in counter-fitted vectors; listed:
    words of a shared synset of WordNet alone, whatever sense is meant. All else is hard: what else stands there,
    numbers and names, and whatever negates.
    """
    if (old in NEGATORS) != (new in NEGATORS):
        return "hard", True
    if not old or not new:
        return "mild" if (old or new) in DEGREES else "hard", False
    if known.antonyms(old, new):
        return "hard", True
    if related(known.near, old, new) or inflected(old, new):
        return "mild", False
    if related(known.fitted, old, new):
        return "fitted", False
    if related(known.listed, old, new):
        return "listed", False
    mild = slip(old, new) and not (known.known(old) and known.known(new))
    return "mild" if mild else "hard", False


def figures(found: Changes, known: Relations) -> tuple[float, ...]:
    """`NAMES` of one pair: log(1 + changes) of each kind, log length, whether a negation flips.

    The length, log(words / 40), is 0 where nothing changed: one change weighs less in a long text.
    """
    many = dict.fromkeys(("hard", "mild", "fitted", "listed"), 0)
    negated = False
    for old, new in found.swaps:
        if old == new:
            continue
        kind, flips = grade(old, new, known)
        many[kind] += 1
        negated |= flips
    changed = any(many.values()) or found.torn
    length = math.log(min(max(found.words, SHORTEST), LONGEST) / TYPICAL) if changed else 0.0
    hard, mild, fitted, listed = (math.log1p(n) for n in many.values())
    return hard, mild, math.log1p(found.torn), length, float(negated), fitted, listed


def features(originals: Sequence[str], adversarials: Sequence[str], known: Relations) -> np.ndarray:
    """float64 (n, 7): `NAMES` of every pair."""
    rows = [figures(compare(a, b), known) for a, b in zip(originals, adversarials, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(NAMES))
