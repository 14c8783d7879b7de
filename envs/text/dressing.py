"""Words of running text: their core between punctuation, and a substitute in the same dress."""

from __future__ import annotations


def dress(word: str) -> tuple[str, str, str]:
    """A word between its punctuation: ("(", "film", ").")."""
    core = word.strip(".,;:!?\"'()[]{}«»„“”…")
    if not core:
        return "", word, ""
    before, _, after = word.partition(core)
    return before, core, after


def dressed(word: str, other: str, *, capital: bool = True) -> str:
    """`other` with the punctuation of `word` and, with `capital`, its capital."""
    before, core, after = dress(word)
    return before + (other[:1].upper() + other[1:] if capital and core[:1].isupper() else other) + after
