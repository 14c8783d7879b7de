"""The probability that a reader finds the meaning kept: a logistic regression on five figures, read from a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from advgym.envs.text.measures.validity.features import NAMES, features
from advgym.envs.text.measures.validity.relations import Relations, default_relations
from advgym.errors import AdvgymError

TABLE = Path(__file__).with_name("calibration.json")


@cache
def calibration() -> dict[str, Any]:
    """The committed table: coefficients on the figures as they are, and how they were found."""
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    if tuple(table["features"]) != NAMES:
        raise AdvgymError(f"{TABLE.name} was made for {table['features']}, the code computes {list(NAMES)}; "
                          "make it again: python -m benchmarks.text.validity --write")  # fmt: skip
    return table


def bar() -> float:
    """The least score of a pair that is called kept: what precision that means is in the table."""
    return float(calibration()["bar"]["score"])


def caution() -> str:
    """What people said of pairs that the score calls kept, in a sentence."""
    table = calibration()
    some, found = table["substitutes"], table["bar"]
    return (
        f"from {found['score']:g} on, {100 * found['precision']:.0f} % of held-out pairs of claims were judged kept; "
        f"of single substitutes (SWORDS) the score tells little: AUC {some['auc']:.2f}, and nobody of ten judges "
        f"accepts {100 * some['nobody']:.0f} % of those from {some['bar']:g} on: a way to rank, no verdict"
    )


def score(originals: Sequence[str], adversarials: Sequence[str], known: Relations | None = None) -> np.ndarray:
    """The probability that each adversarial text keeps the meaning of its original, float64 (n,) in [0, 1].

    Calibrated on judgements of people (`calibration()`); 1 for texts that differ in case and blanks alone, 0 where
    one of the two is empty. Look-alike
    and invisible characters are normalised first. English; deterministic for given tables of words.

    Args:
        originals: n texts.
        adversarials: n texts.
        known: tables of words; default: what is on the machine (`default_relations`).

    Raises:
        AdvgymError: where the two are not sequences of equally many strings.
    """
    for name, texts in (("originals", originals), ("adversarials", adversarials)):
        if isinstance(texts, str) or not all(isinstance(t, str) for t in texts):
            raise AdvgymError(f"{name} is a sequence of strings, one per pair")
    if len(originals) != len(adversarials):
        raise AdvgymError(f"{len(originals)} originals and {len(adversarials)} adversarial texts make no pairs")
    table = calibration()
    x = features(originals, adversarials, default_relations() if known is None else known)
    logit = table["intercept"] + x @ np.array(table["coefficients"], dtype=np.float64)
    same = [a == b or a.lower().split() == b.lower().split() for a, b in zip(originals, adversarials, strict=True)]
    blank = [(not a.strip()) != (not b.strip()) for a, b in zip(originals, adversarials, strict=True)]
    return np.where(same, 1.0, np.where(blank, 0.0, 1.0 / (1.0 + np.exp(-logit))))
