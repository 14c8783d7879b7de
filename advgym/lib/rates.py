"""Rates, their interval, and middles of numbers."""

from __future__ import annotations

import math


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson 1927); (0, 1) for no trials.

    >>> [round(v, 3) for v in wilson(8, 10)]
    [0.49, 0.943]
    """
    if n == 0:
        return 0.0, 1.0
    p, q = successes / n, z * z / n
    centre = (p + q / 2) / (1 + q)
    half = z * math.sqrt(p * (1 - p) / n + q / (4 * n)) / (1 + q)
    return max(0.0, centre - half), min(1.0, centre + half)


def median(values: list[float]) -> float:
    """The median, 0 for none."""
    ordered = sorted(values)
    n = len(ordered)
    return 0.0 if not n else float((ordered[(n - 1) // 2] + ordered[n // 2]) / 2)


def mean(values: list[float]) -> float:
    """The mean, 0 for none."""
    return float(sum(values) / len(values)) if values else 0.0
