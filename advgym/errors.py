"""Errors that say what was wrong, what is allowed, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AdvgymError(Exception):
    """Base of every error a user can cause; the command line prints it without a traceback."""


class BudgetExhausted(AdvgymError):
    """A lane asked its victim for more than its query budget."""


class VictimError(AdvgymError):
    """A victim answered with the wrong shape, or with NaN on a clean sample."""


class Malformed(AdvgymError, ValueError):
    """A proposal whose structure, shape or dtype is not the one the action space declares."""


class Unusable(Exception):
    """A victim that will answer nothing more: never taken for the fault of one input."""


class DataError(AdvgymError):
    """A dataset, weight file or result file that is missing or broken."""


def unknown(what: str, name: object, allowed: Iterable[object], hint: str = "") -> AdvgymError:
    """An error for a name that is not among `allowed`, with the nearest spelling.

    >>> print(unknown("agent", "pdg", ["pgd", "fgsm"]))
    unknown agent 'pdg'; did you mean 'pgd'? Known: fgsm, pgd.
    """
    names = sorted(str(a) for a in allowed)
    if not str(name).strip():
        return AdvgymError(
            f"the {what} has an empty name. Known: {', '.join(names) or 'none'}." + f" {hint}" * bool(hint)
        )
    near = difflib.get_close_matches(str(name), names, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    known = ", ".join(names) if names else "none"
    return AdvgymError(f"unknown {what} {str(name)!r}{guess} Known: {known}." + (f" {hint}" if hint else ""))
