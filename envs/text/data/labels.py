"""Where the labels of data and the classes of a victim meet: by name, or not at all."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from advgym.core.victim import Victim
from advgym.errors import DataError, VictimError

LEAST = 3  # letters that a shortened name has at least: neg for NEGATIVE
SHOWN = 8  # names that a message lists


def plain(value: Any) -> int | str | None:
    """A label as a whole number or as a word; None for what is neither.

    Numpy and torch scalars, bools, integral floats and digits in a file are whole numbers.

    >>> [plain(v) for v in (True, 2.0, "3", " pos ", 1.5, None)]
    [1, 2, 3, 'pos', None, None]
    """
    if hasattr(value, "item"):
        many = value.numel() if hasattr(value, "numel") else getattr(value, "size", 1)
        value = value.item() if many == 1 else None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        word = value.strip()
        try:
            value = float(word)
        except ValueError:
            return word or None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and number == int(number) else None


def folded(name: Any) -> str:
    """A name as it is compared: without case, blanks, dashes and underscores."""
    return re.sub(r"[\s_\-]+", "", str(name).strip().casefold())


def numbered(names: Sequence[Any]) -> list[int] | None:
    """The numbers that names are (0, "1", LABEL_2, "3 stars"), where each is one and no two are the same."""
    if all(isinstance(n, int | float) or hasattr(n, "item") for n in names):
        found = [plain(n) for n in names]
    else:
        parts = [re.fullmatch(r"\D*(\d+)\D*", str(n)) for n in names]
        found = [int(p.group(1)) if p else None for p in parts]
    fine = all(isinstance(n, int) for n in found) and len(set(found)) == len(names)
    return [int(n) for n in found if n is not None] if fine else None


def class_names(victim: Victim) -> list[Any] | None:
    """The names of a victim's classes in the order of its scores; None where it states none.

    They are `card["classes"]`, or the `classes_` of a model of scikit-learn or of the one whose method the victim is.
    """
    found = victim.card.get("classes")
    if found is None:
        found = getattr(getattr(victim.model, "__self__", victim.model), "classes_", None)
    if found is None:
        return None
    names = found.tolist() if hasattr(found, "tolist") else list(found)
    if any(hasattr(n, "__len__") and not isinstance(n, str) for n in names):
        raise VictimError(
            f"victim {victim.name!r} answers several labels at once; a classifier of one label is attacked"
        )
    return names


def listed(names: Sequence[Any]) -> str:
    """Some names for a message."""
    some = [str(n) for n in names]
    return ", ".join(some[:SHOWN]) + (f" and {len(some) - SHOWN} more" if len(some) > SHOWN else "")


def matched(words: Sequence[str], names: Sequence[Any]) -> dict[str, int] | None:
    """The class of each word: the same name, or one shortened (neg, NEGATIVE); None unless that is one to one."""
    own = [folded(n) for n in names]
    out: dict[str, int] = {}
    for word in words:
        key = folded(word)
        same = [i for i, n in enumerate(own) if n == key]
        if not same and len(key) >= LEAST:
            same = [i for i, n in enumerate(own) if len(n) >= LEAST and (n.startswith(key) or key.startswith(n))]
        if len(same) != 1:
            return None
        out[word] = same[0]
    return out if len(set(out.values())) == len({folded(w) for w in words}) else None


def meet(
    values: Sequence[Any], where: Sequence[str], victim: Victim, classes: int, names: Sequence[str] | None = None
) -> list[int]:
    """The labels of all samples as classes of the victim, 0 to classes - 1.

    Args:
        values: labels as they stand in the data.
        where: of each sample, for messages.
        victim: with the names of its classes in `card["classes"]`, where it knows them.
        classes: how many scores it gives.
        names: of the data's numbers, where the data states them.

    Raises:
        DataError: names both sides where they do not meet, or the sample whose label is none.
    """
    found = [plain(v) for v in values]
    own = class_names(victim)
    if own is not None and len(own) != classes:
        raise DataError(f"victim {victim.name!r} gives {classes} scores and names {len(own)} classes: {listed(own)}")
    number = list(range(classes)) if own is None else numbered(own)
    words = list(dict.fromkeys(v for v in found if isinstance(v, str)))
    if words and names is None and not any(isinstance(v, int) for v in found):
        return _by_name(found, where, words, victim, own, number)
    for value, raw, at in zip(found, values, where, strict=True):
        if not isinstance(value, int):
            most = f"0 to {classes - 1}" if number is None else _span(number)
            raise DataError(f"{at}: labels are whole numbers {most}, or words throughout, not {raw!r}")
    numbers = [int(v) for v in found if isinstance(v, int)]
    if names is not None and own is not None and number is not None:
        other = numbered(names)
        if other is not None and all(0 <= v < len(other) for v in numbers):
            numbers = [other[v] for v in numbers]
    if names is not None and own is not None and number is None:
        for value, at in zip(numbers, where, strict=True):
            if not 0 <= value < len(names):
                raise DataError(f"{at}: the label {value} is none of the data's {len(names)} classes: {listed(names)}")
        said = [str(names[v]) for v in numbers]
        return _by_name(said, where, list(dict.fromkeys(said)), victim, own, number)
    if number is None and not _counts(victim):
        raise DataError(
            f"labels are the numbers {listed(sorted(set(numbers)))}, and the classes of victim {victim.name!r} are the "
            f"words {listed(own or ())}: write these words as labels"
        )
    place = {n: i for i, n in enumerate(range(classes) if number is None else number)}
    for value, raw, at in zip(numbers, values, where, strict=True):
        if value not in place:
            more = "" if own is None else f": the classes of victim {victim.name!r} are {listed(own)}"
            kind = "whole numbers " if isinstance(raw, str) else ""
            raise DataError(f"{at}: labels are {kind}{_span(list(place))}, not {raw!r}{more}")
    return [place[v] for v in numbers]


def _counts(victim: Victim) -> bool:
    """Whether the victim itself numbers its named classes from 0, as `id2label` of transformers does."""
    return "labels" in victim.card


def _span(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low} to {high}" if sorted(numbers) == list(range(low, high + 1)) else listed(numbers)


def _by_name(
    found: Sequence[Any], where: Sequence[str], words: Sequence[str], victim: Victim, own: Sequence[Any] | None,
    number: list[int] | None,
) -> list[int]:  # fmt: skip
    for value, at in zip(found, where, strict=True):
        if not isinstance(value, str):
            raise DataError(f"{at}: labels are words throughout, or whole numbers, not {value!r}")
    named = None if own is None else matched(words, own)
    if named is not None:
        return [named[v] for v in found]
    if own is None:
        side = f"the scores of victim {victim.name!r} have no names"
        do = 'number the labels as its scores are, or name them, as in Victim(f, card={"classes": ["neg", "pos"]})'
    else:
        side, do = f"the classes of victim {victim.name!r} are {listed(own)}", "write these as labels"
        if number is not None:
            do += " (numbers will do)"
    raise DataError(f"labels are the words {listed(sorted(words))}, and {side}: {do}")
