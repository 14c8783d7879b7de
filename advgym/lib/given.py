"""What callers hand in, read alike in every domain: radii, values at the edge of their box, classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from advgym.errors import AdvgymError

SLACK = 1e-6  # float noise beyond a box


def check_radius(name: str, value: float, *, step: float = 0.0, most: float = math.inf, hint: str = "") -> float:
    """A radius that lets something through, and not everything.

    Args:
        step: of the lattice, 0 for none: a smaller radius holds the clean sample alone.
        most: a radius that reaches every input.
        hint: what may have been meant.

    Raises:
        AdvgymError: for a radius that is no attack, with what is allowed.
    """
    if not (math.isfinite(value) and value > 0):  # in positive form, so that NaN fails
        raise AdvgymError(f"{name} is above 0, not {value!r}")
    if value < step * (1 - 1e-6):
        raise AdvgymError(
            f"{name}={value:g} is less than one step, {step:g}: only the clean sample would be valid. "
            f"Allowed: at least {step:g}.{hint}"
        )
    if value >= most:
        raise AdvgymError(
            f"{name}={value:g} reaches every input there is, which is no attack on this one. Allowed: below {most:g}."
            + hint
        )
    return value


def inside(x: Tensor, low: float, high: float) -> Tensor | None:
    """X within [low, high], float noise beyond it clamped away; None where it lies further out, or is NaN."""
    fits = bool(((x >= low - SLACK) & (x <= high + SLACK)).all())
    return x.clamp(low, high) if fits else None


def class_of(value: Any, names: Sequence[str] = ()) -> int:
    """A class from a number of any kind (whole, of a tensor or an array of one entry, a boolean), or from its name.

    >>> import torch
    >>> class_of(3.0), class_of(torch.tensor([2])), class_of(True), class_of("cat", ["dog", "cat"])
    (3, 2, 1, 1)

    Raises:
        AdvgymError: for what is no class, with what is allowed.
    """
    if isinstance(value, str):
        if value in names:
            return list(names).index(value)
        if not names and value.strip().isdecimal():
            return int(value)
        known = ", ".join(map(repr, names[:8])) if names else "none: give them as Victim(..., card={'names': [...]})"
        raise AdvgymError(f"{value!r} is no class: want a whole number from 0, or a name. Names known: {known}")
    try:
        one = value.item() if hasattr(value, "item") else value
        number = int(one)
        fine = number == one and number >= 0
    except (TypeError, ValueError, OverflowError, RuntimeError):
        fine = False
    if not fine:
        raise AdvgymError(f"{value!r} is no class: want a whole number from 0, or a name")
    return number


def names_of(victim: Any) -> list[str]:
    """The names of its classes that a victim's card gives, in order; [] for none."""
    found = victim.card.get("names", []) if victim is not None else []
    return [str(name) for name in found]


def whole_number(name: str, value: Any) -> int:
    """A whole number from 1 to 2^31 - 1, or an error with the name of what it is for."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if not 1 <= number < 2**31 or number != float(value):
        raise AdvgymError(f"{name} is a whole number of at least 1 and at most {2**31 - 1}, not {value!r}")
    return number


def widening(value: Any) -> float | None:
    """A factor of at least 1 on a constraint; None for none."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 1 <= number < float("inf"):
        raise AdvgymError(f"widen is a number of at least 1 (times the constraint), not {value!r}")
    return number


def ask_column(name: str, key: str) -> str:
    """What to do where no column of data has a name that is known: of an object it is renamed, of a file named.

    >>> ask_column("samples", "text")
    "say which holds the text by its name: samples.rename(columns={'COLUMN': 'text'}), or pass (inputs, labels)"
    """
    if name in ("samples", "train", "data"):
        return (
            f"say which holds the {key} by its name: {name}.rename(columns={{'COLUMN': {key!r}}}), or pass "
            "(inputs, labels)"
        )
    return f"say which holds the {key}: {name}?{key}=COLUMN"
