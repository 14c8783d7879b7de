"""Rates with their intervals, areas and weighted means: pure functions of numbers, each with its source."""

from __future__ import annotations

import math
from collections.abc import Sequence

from advgym.errors import AdvgymError
from advgym.leaderboards.entries.entry import Interval

Z = 1.959964  # of 95 %


def rate_interval(rate: float, n: int) -> Interval:
    """Wilson's score interval (1927) of a mean of `n` samples that each lie in [0, 1].

    The K runs of one sample are one cluster, not K trials: `rate` is the mean over samples of each sample's mean over
    seeds, `n` the number of samples. Values in [0, 1] vary at most as much as a coin of the same mean, p (1 - p), so
    the interval is Wilson's own for one seed and errs on the wide side for more. Rejected: an effective sample size
    from the measured variance. It gives a run that fails once a higher lower bound than one that never fails.

    >>> rate_interval(0.8, 10)
    Interval(value=0.8, low=0.4901624691221323, high=0.9433178490622331)
    """
    if not 0.0 <= rate <= 1.0:
        raise AdvgymError(f"a rate is within 0 and 1, not {rate!r}")
    if n < 1:
        return Interval(0.0, 0.0, 1.0)
    q = Z * Z / n
    centre = (rate + q / 2) / (1 + q)
    half = Z * math.sqrt(rate * (1 - rate) / n + q / (4 * n)) / (1 + q)
    return Interval(rate, max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half)))


def mean_interval(parts: Sequence[tuple[float, int]]) -> Interval:
    """The plain mean of the rates of T tasks, with Wilson's interval for T times the fewest samples of a task.

    The tasks are strata: var = sum(p_t (1 - p_t) / n_t) / T^2 <= p (1 - p) / (T min n_t), so that many samples are as
    many as can be promised whatever the tasks are like. A task that was not attempted is (0.0, n): leaving it out and
    failing on it are the same. Rejected: recovering the interval from the tasks' own (MOVER, Zou & Donner 2008), since
    its lower bound is too high in 7 % of cases, not 2.5 %, for three tasks with rates of 0.02.

    Args:
        parts: (rate, samples) of each task.
    """
    if not parts:
        raise AdvgymError("a mean needs at least one task")
    return rate_interval(
        min(1.0, math.fsum(rate for rate, _ in parts) / len(parts)), len(parts) * min(n for _, n in parts)
    )


def curve_area(first: Sequence[int], budget: int, n: int) -> float:
    """Area under success-against-queries with queries on a log scale, in [0, 1].

    The step function S(q), the share of `n` runs won within q queries, weighed by log((q + 1) / q) for q = 1 to the
    budget and divided by log(budget + 1): 1 where every run is won by the first query, 0 where none is won.

    Args:
        first: of each success, the query that it came with; 0 counts as 1.
    """
    if n < 1 or budget < 1:
        return 0.0
    whole = math.log(budget + 1)
    return math.fsum(1.0 - math.log(max(q, 1)) / whole for q in first) / n


def worst_weighted(rates: Sequence[float]) -> float:
    """Mean of rates, the lowest weighing most: weights 1/i^2, normalised, in ascending order (GRB, Zheng et al. 2021).

    >>> worst_weighted([1.0, 0.0])
    0.2
    """
    weights = [1.0 / (i + 1) ** 2 for i in range(len(rates))]
    if not weights:
        return 0.0
    return math.fsum(w * r for w, r in zip(weights, sorted(rates), strict=True)) / math.fsum(weights)


def sound(interval: Interval) -> bool:
    """Whether this is an interval of fractions; False for NaN, infinities and anything out of order."""
    return 0.0 <= interval.low <= interval.value <= interval.high <= 1.0
