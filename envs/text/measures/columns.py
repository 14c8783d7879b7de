"""What is measured of a pair of texts, and the columns of the text tasks' results: validity, words, characters."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from advgym.core.columns import Columns
from advgym.envs.text.measures import named_models, validity
from advgym.envs.text.measures.named_models import pairs, per_row

if TYPE_CHECKING:
    from torch import Tensor

    from advgym.core.batch import Batch


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's distance in characters (Myers 1999, as Hyyro 2001 states it: a column is an integer).

    >>> edit_distance("kitten", "sitting")
    3
    """
    first, short = 0, min(len(one), len(other))
    while first < short and one[first] == other[first]:
        first += 1
    last = 0
    while last < short - first and one[-1 - last] == other[-1 - last]:
        last += 1
    one, other = one[first : len(one) - last], other[first : len(other) - last]
    if not one or not other:
        return len(one) + len(other)
    if len(one) > len(other):
        one, other = other, one
    where: dict[str, int] = {}
    for i, char in enumerate(one):
        where[char] = where.get(char, 0) | 1 << i
    full, top = (1 << len(one)) - 1, 1 << (len(one) - 1)
    up, down, distance = full, 0, len(one)  # vertical steps of +1 and of -1
    for char in other:
        same = where.get(char, 0)
        diagonal = (((same & up) + up) ^ up) | same | down
        right, left = down | ~(diagonal | up), up & diagonal  # horizontal steps of +1 and of -1
        distance += bool(right & top) - bool(left & top)
        right = right << 1 | 1
        up = (left << 1 | ~(diagonal | right)) & full
        down = diagonal & right & full
    return distance


def char_edit(one: str, other: str) -> float:
    """Levenshtein's distance over the length of the longer text, in [0, 1]; 1 less it is BODEGA's character score."""
    return edit_distance(one, other) / max(len(one), len(other), 1)


def words_changed(one: str, other: str) -> tuple[int, int]:
    """(words swapped, put in or left out, words of the first text), words being what blanks separate.

    >>> words_changed("a fine film", "a good old film")
    (2, 3)
    """
    old, new = one.split(), other.split()
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return sum(max(b - a, d - c) for kind, a, b, c, d in blocks if kind != "equal"), len(old)


def compute(batch: Batch, form: Tensor) -> dict[str, list[float]]:
    """The columns of every text task.

    `kept`: the probability that the meaning is kept; `words_changed` and `words_share`: words swapped, put in or left
    out, and their share of the clean words; `char_edit`: edited characters over those of the longer text.
    """
    clean, changed = pairs(batch, form)
    words = [words_changed(a, b) for a, b in zip(clean, changed, strict=True)]
    found = {
        "kept": validity.score(clean, changed).tolist(),
        "words_changed": [float(many) for many, _ in words],
        "words_share": [many / max(total, 1) for many, total in words],
        "char_edit": [char_edit(a, b) for a, b in zip(clean, changed, strict=True)],
    }
    return {name: per_row(values, len(form)) for name, values in found.items()}


def _about() -> dict[str, str]:
    table = validity.calibration()
    made = f"tables {'+'.join(validity.default_relations().sources)}, intercept {table['intercept']:g}"
    return {"kept": f"{validity.caution()} ({made})"}


COLUMNS = Columns(
    compute, about=_about, bars={"kept": validity.bar()},
    models={"perplexity": named_models.perplexity_column, "similarity": named_models.similarity_column},
)  # fmt: skip
"""`Task.columns` of the text tasks; a success is valid from the bar of `kept` on, which means a stated precision."""
