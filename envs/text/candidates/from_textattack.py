"""Candidates from TextAttack's transformations, under its constraints (Morris et al., 2020); an optional dependency."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from advgym.envs.text.candidates.source import Source
from advgym.envs.text.data.corpora import STOPWORDS
from advgym.errors import DataError, unknown
from advgym.lib.foreign import own_states, quiet_import
from advgym.lib.weights import cache_dir

STOPS = tuple(sorted(STOPWORDS))  # for its import, where no corpus of them is on the machine


def importable() -> Any:
    """`import textattack`, offline. Version 0.3.11 needs transformers below 5 (flair holds it there)."""
    os.environ.setdefault("TA_CACHE_DIR", str(cache_dir() / "textattack"))
    library = quiet_import("textattack", "stopwords", "text/nltk_data", STOPS)
    quiet_import("textattack.transformations", "stopwords", "text/nltk_data", STOPS)
    return library


KINDS = {"MaskedLM": "language-model", "Character": "bugs", "QWERTY": "bugs", "Homoglyph": "bugs"}  # parts of names


def named(name: str, rules: Sequence[Any] = ()) -> Source:
    """A transformation by the name of its class, made without arguments; it may want what TextAttack fetches."""
    library = importable()
    kind = getattr(library.transformations, name, None)
    if not isinstance(kind, type):
        every = [n for n in dir(library.transformations) if isinstance(getattr(library.transformations, n), type)]
        raise unknown("transformation of TextAttack", name, every)
    try:
        made = kind()
    except Exception as error:
        raise DataError(
            f"TextAttack cannot make {name}() here ({type(error).__name__}: {str(error)[:160]}); one made with "
            "arguments of your own (its embedding=, its model) goes in as an object. Without it: 'counter-fitted', "
            "'typos', a dict"
        ) from error
    return transformed(made, rules, key="" if rules else f"textattack 1 {version('textattack')} {name}")


def transformed(transformation: Any, rules: Sequence[Any] = (), key: str = "") -> Source:
    """Every text that the transformation makes of a sentence and the constraints let through, by what it swaps.

    Texts in which not exactly one word differs (insertions, deletions, merges, words in two) are no swaps and are left
    out. A transformation that draws is seeded with the sentence. Only classes by name are kept on disk, for an object's
    settings cannot be told.
    """
    name = f"textattack:{type(transformation).__name__}"
    kinds = {word for part, word in KINDS.items() if part in name}
    return Source(
        name, texts=lambda texts: [_swaps(transformation, rules, text) for text in texts], key=key,
        offers=frozenset(kinds),
    )  # fmt: skip


def _swaps(transformation: Any, rules: Sequence[Any], words: list[str]) -> list[list[str]]:
    library = importable()
    out: list[list[str]] = [[] for _ in words]
    if not words:
        return out
    text = library.shared.AttackedText(" ".join(words))
    before = [rule for rule in rules if not hasattr(rule, "call_many")]
    with own_states(int.from_bytes(hashlib.sha256(" ".join(words).encode()).digest()[:4], "little")):
        found = transformation(text, pre_transformation_constraints=before)
        for rule in rules:
            if found and rule not in before:
                found = rule.call_many(found, text)
    for other in found:
        new = other.text.split()
        where = [i for i, (a, b) in enumerate(zip(words, new, strict=False)) if a != b]
        if len(new) == len(words) and len(where) == 1:
            out[where[0]].append(new[where[0]])
    return [list(dict.fromkeys(row)) for row in out]
