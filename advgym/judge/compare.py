"""Two results on the same samples, compared pair by pair: success, queries, and who wins where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from advgym.errors import AdvgymError
from advgym.judge.results import Result, Sample
from advgym.lib.rates import mean, median, wilson

DRAWS = 2000  # of the bootstrap
Z = 1.959964


class Side(msgspec.Struct, kw_only=True):
    """One of the two: its rates over the samples that both attacked."""

    agent: str
    defense: str
    seed: int
    success_rate: float
    success_ci: tuple[float, float]
    queries_both: float  # mean queries to the first success, on the samples that both beat
    queries_distinct_mean: float
    queries_distinct_median: float


class Pair(msgspec.Struct, kw_only=True):
    """One sample: who beat it, after how many queries (-1: not beaten)."""

    id: int
    winner: str  # "A" or "B" alone, "both", "neither"
    queries: tuple[int, int]


class Comparison(msgspec.Struct, kw_only=True):
    """A against B. Differences are A - B; p-values are two-sided and exact, intervals are 95 %."""

    task: str
    victim: str
    defenses: tuple[str, str]
    attacked: int
    sides: tuple[Side, Side]
    both: int
    only_first: int
    only_second: int
    neither: int
    difference: float
    difference_ci: tuple[float, float]
    mcnemar_p: float
    fewer_first: int
    fewer_second: int
    sign_p: float
    queries_difference: float
    queries_ci: tuple[float, float]
    notes: list[str]
    samples: list[Pair]


def compare(one: Result, other: Result, names: tuple[str, str] = ("A", "B"), seed: int = 0) -> Comparison:
    """Compare two results of the same task, victim, threat model and samples.

    Success: McNemar's exact test (1947) and Newcombe's paired interval (1998, method 10). Queries to the first success,
    on samples that both beat: the exact sign test, and a bootstrap of the mean difference.

    Args:
        one, other: results; their agents, defenses, seeds and budgets may differ, and a note says where they do.
        names: how error messages call them.
        seed: of the bootstrap.

    Raises:
        AdvgymError: what does not match.
    """
    check_same(one, other, names)
    pairs = _paired(one, other)
    wins = [(a.success, b.success) for a, b in pairs]
    both, first = sum(x and y for x, y in wins), sum(x and not y for x, y in wins)
    second, n = sum(y and not x for x, y in wins), len(pairs)
    gaps = [a.first_success - b.first_success for a, b in pairs if a.success and b.success]
    fewer, more = sum(g < 0 for g in gaps), sum(g > 0 for g in gaps)
    return Comparison(
        task=one.task, victim=str(one.victim["name"]), defenses=(one.defense, other.defense), attacked=n,
        sides=(_side(one, [a for a, _ in pairs], wins), _side(other, [b for _, b in pairs], wins)),
        both=both, only_first=first, only_second=second, neither=n - both - first - second,
        difference=(first - second) / n, difference_ci=newcombe(both, first, second, n - both - first - second),
        mcnemar_p=binomial_p(first, first + second), fewer_first=fewer, fewer_second=more,
        sign_p=binomial_p(fewer, fewer + more), queries_difference=mean([float(g) for g in gaps]),
        queries_ci=bootstrap(gaps, seed), notes=_notes(one, other),
        samples=[
            Pair(id=a.id, winner=_winner(a.success, b.success), queries=(a.first_success, b.first_success))
            for a, b in pairs
        ],
    )  # fmt: skip


def check_same(one: Result, other: Result, names: tuple[str, str] = ("A", "B")) -> None:
    """Refuse two results whose samples cannot be paired.

    Raises:
        AdvgymError: naming what differs, and both values.
    """
    a, b = names

    def differ(what: str, x: Any, y: Any) -> AdvgymError:
        return AdvgymError(
            f"these cannot be paired: {what} is {x!r} in {a} and {y!r} in {b}. Attack the same samples of the same "
            "task and victim twice, with the same --split and --episodes"
        )

    if one.task != other.task:
        raise differ("the task", one.task, other.task)
    if one.split != other.split:
        raise differ("the split", one.split, other.split)
    bare = one.defense == other.defense
    for key, what in (("name", "the victim"), ("weights", "the victim's hash")):
        if bare and one.victim.get(key) != other.victim.get(key):
            raise differ(what, one.victim.get(key), other.victim.get(key))
    if one.options.get("dataset") != other.options.get("dataset"):
        raise differ("the dataset", one.options.get("dataset"), other.options.get("dataset"))
    if one.threat["goal"] != other.threat["goal"]:
        raise differ("the goal", one.threat["goal"], other.threat["goal"])
    x, y = ({s.id for s in r.samples} for r in (one, other))
    if bare and x != y:
        raise differ("the set of attacked samples", f"{len(x - y)} of its own", f"{len(y - x)} of its own")
    if not x & y:
        raise AdvgymError(f"{a} and {b} share no attacked sample, so there is nothing to compare")
    theirs = {s.id: s for s in other.samples}
    for s in one.samples:
        if s.id in theirs and (s.label != theirs[s.id].label or s.target != theirs[s.id].target):
            raise differ(f"the label or target of sample {s.id}", [s.label, s.target],
                         [theirs[s.id].label, theirs[s.id].target])  # fmt: skip


def _notes(one: Result, other: Result) -> list[str]:
    """What else differs, so that a reader knows what is compared."""
    flat = [{**r.threat, **r.threat["constraint"], "constraint": None} for r in (one, other)]
    a, b = flat
    notes = [f"{key}: A has {a.get(key)!r}, B has {b.get(key)!r}" for key in {**a, **b} if a.get(key) != b.get(key)]
    if one.defense != other.defense:
        shared = len({s.id for s in one.samples} & {s.id for s in other.samples})
        notes.append(f"behind different defenses: the {shared} samples that both victims have right are compared")
    if one.seed != other.seed:
        notes.append(f"seed: A has {one.seed}, B has {other.seed}")
    return notes


def _paired(one: Result, other: Result) -> list[tuple[Sample, Sample]]:
    theirs = {s.id: s for s in other.samples}
    return [(s, theirs[s.id]) for s in sorted(one.samples, key=lambda s: s.id) if s.id in theirs]


def _winner(first: bool, second: bool) -> str:
    return ("both" if second else "A") if first else ("B" if second else "neither")


def _side(r: Result, rows: Sequence[Sample], wins: Sequence[tuple[bool, bool]]) -> Side:
    won = sum(s.success for s in rows)
    common = [float(s.first_success) for s, (x, y) in zip(rows, wins, strict=True) if x and y]
    distinct = [float(s.queries_distinct) for s in rows]
    return Side(
        agent=r.agent, defense=r.defense, seed=r.seed, success_rate=won / len(rows), success_ci=wilson(won, len(rows)),
        queries_both=mean(common), queries_distinct_mean=mean(distinct), queries_distinct_median=median(distinct),
    )  # fmt: skip


def binomial_p(k: int, n: int) -> float:
    """Two-sided exact p of k of n under a fair coin; 1 for none. McNemar's test and the sign test are this.

    >>> binomial_p(1, 10)
    0.021484375
    """
    from scipy.stats import binomtest

    return float(binomtest(k, n).pvalue) if n else 1.0


def newcombe(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two paired rates (Newcombe 1998, method 10, continuity-corrected phi).

    >>> [round(v, 4) for v in newcombe(36, 12, 2, 0)]
    [0.0569, 0.3404]
    """
    n = both + first + second + neither
    a, b = both + first, both + second
    if not n:
        return -1.0, 1.0
    p, q = a / n, b / n
    (l1, u1), (l2, u2) = wilson(a, n, Z), wilson(b, n, Z)
    size = a * (n - a) * b * (n - b)
    cross = both * neither - first * second
    phi = 0.0 if not size else (max(cross - n / 2, 0.0) if cross > 0 else float(cross)) / math.sqrt(size)
    below = (p - l1) ** 2 - 2 * phi * (p - l1) * (u2 - q) + (u2 - q) ** 2
    above = (q - l2) ** 2 - 2 * phi * (q - l2) * (u1 - p) + (u1 - p) ** 2
    return max(-1.0, p - q - math.sqrt(max(below, 0.0))), min(1.0, p - q + math.sqrt(max(above, 0.0)))


def bootstrap(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of a mean over resampled values (Efron 1979); (0, 0) for none."""
    if not len(values):
        return 0.0, 0.0
    if len(values) == 1:
        return float(values[0]), float(values[0])
    from scipy import stats

    found = stats.bootstrap(
        (values,), np.mean, n_resamples=DRAWS, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(found.low), float(found.high)
