"""The five figures of a pair that the probability is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from advgym.envs.text.measures.validity.changes import Changes, compare
from advgym.envs.text.measures.validity.relations import DEGREES, NEGATORS, Relations, inflected, slip

NAMES = ("hard", "mild", "torn", "length", "negated")
TYPICAL = 40.0  # words of a text whose length says nothing
SHORTEST, LONGEST = 5.0, 400.0  # beyond them length says no more than there


def grade(old: str, new: str, known: Relations) -> tuple[bool, bool]:
    """(mild, negated) of one changed word; "" is no word.

    Mild: an adverb of degree or an article put in or left out; synonyms; two forms of a word; a slip of the keyboard
    that makes no other known word. All else is hard: what else stands there, numbers and names, and whatever negates.
    """
    if (old in NEGATORS) != (new in NEGATORS):
        return False, True
    if not old or not new:
        return (old or new) in DEGREES, False
    if known.antonyms(old, new):
        return False, True
    if known.synonyms(old, new) or inflected(old, new):
        return True, False
    return slip(old, new) and not (known.known(old) and known.known(new)), False


def figures(found: Changes, known: Relations) -> tuple[float, ...]:
    """`NAMES` of one pair: log(1 + hard changes), of mild ones, of words torn, log length, whether a negation flips.

    The length, log(words / 40), is 0 where nothing changed: one change weighs less in a long text.
    """
    hard = mild = 0
    negated = False
    for old, new in found.swaps:
        if old == new:
            continue
        soft, flips = grade(old, new, known)
        mild += soft
        hard += not soft
        negated |= flips
    changed = hard or mild or found.torn
    length = math.log(min(max(found.words, SHORTEST), LONGEST) / TYPICAL) if changed else 0.0
    return math.log1p(hard), math.log1p(mild), math.log1p(found.torn), length, float(negated)


def features(originals: Sequence[str], adversarials: Sequence[str], known: Relations) -> np.ndarray:
    """float64 (n, 5): `NAMES` of every pair."""
    rows = [figures(compare(a, b), known) for a, b in zip(originals, adversarials, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(NAMES))
