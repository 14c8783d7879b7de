"""How little several attacks change: robust accuracy against distance, its area, local optimality (AttackBench).

Cina et al. 2024 (AttackBench), section 3: an attack's curve is the share of samples that it has not broken within a
distance; the best attack there is, is the nearest success of any on each sample; local optimality says how near an
attack's area comes to that one's.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from advgym.errors import AdvgymError
from advgym.judge.compare import check_same
from advgym.judge.results import Result

POINTS = 11  # of a printed curve
TIE = 1e-6  # distances as near as that are equal


class Curve(msgspec.Struct, kw_only=True):
    """One attack. Distances are in the units of the task's constraint."""

    agent: str
    defense: str
    seed: int
    success_rate: float
    distance_median: float | None  # over attacked samples, None where it is infinite: half of them were not broken
    area: float  # under `curve` from 0 to `Distortion.farthest`
    optimality: float  # local, in [0, 1]
    nearest: float  # share of attacked samples on which no other attack found a nearer success
    curve: list[tuple[float, float]]  # (distance, robust accuracy)


class Distortion(msgspec.Struct, kw_only=True):
    """Several attacks on the same samples of one victim."""

    task: str
    victim: str
    defense: str
    samples: int  # assigned, those that the victim has wrong among them
    attacked: int
    clean: float  # share of the assigned that it has right
    farthest: float  # the largest of the samples' nearest successes: where the best curve ends
    area_best: float
    curves: list[Curve]
    notes: list[str]


def distortion(results: Sequence[Result], names: Sequence[str] | None = None) -> Distortion:
    """Curves, areas and local optimality of several results.

    Args:
        results: of the same task, victim, defense and samples, one or more.
        names: how error messages call them.

    Raises:
        AdvgymError: what does not match, or where there is nothing to measure.
    """
    called = list(names or [f"result {i + 1}" for i in range(len(results))])
    if not results:
        raise AdvgymError("no result to measure: give one file or more")
    first = results[0]
    for other, name in zip(results[1:], called[1:], strict=True):
        check_same(first, other, (called[0], name))
        if other.defense != first.defense:
            raise AdvgymError(
                f"{called[0]} is behind {first.defense!r}, {name} behind {other.defense!r}: curves of distance are of "
                "one victim; compare two defenses as a pair"
            )
    found = np.array([distances(r) for r in results])
    if not found.shape[1]:
        raise AdvgymError(f"{called[0]} attacked no sample, so there is no distance to measure")
    best, share = found.min(0), found.shape[1] / max(first.episodes, 1)
    broken = best[np.isfinite(best)]
    far = float(broken.max()) if len(broken) else 0.0
    grid = [far * i / (POINTS - 1) for i in range(POINTS)] if far else [0.0]
    top = area(best, far, share)
    notes = [] if all(r.threat.get("least") for r in results) else [
        "not all asked for the least distortion (least=true): an attack that stops at its first success is not judged "
        "fairly here"
    ]  # fmt: skip
    return Distortion(
        task=first.task, victim=str(first.victim["name"]), defense=first.defense, samples=first.episodes,
        attacked=found.shape[1], clean=share, farthest=far, area_best=top, notes=notes,
        curves=[_curve(r, d, best, share, far, grid) for r, d in zip(results, found, strict=True)],
    )  # fmt: skip


def _curve(r: Result, d: np.ndarray, best: np.ndarray, share: float, far: float, grid: list[float]) -> Curve:
    middle = float(np.median(d)) if np.isfinite(np.sort(d)[: len(d) // 2 + 1]).all() else None
    return Curve(
        agent=r.agent, defense=r.defense, seed=r.seed, success_rate=float(np.isfinite(d).mean()),
        distance_median=middle, area=area(d, far, share), optimality=optimality(d, best, far, share),
        nearest=float((np.isfinite(d) & (d <= best + TIE)).mean()),
        curve=list(zip(grid, robust(d, grid, share), strict=True)),
    )  # fmt: skip


def distances(r: Result) -> list[float]:
    """The distance of each attacked sample's success, by id; infinite where there is none."""
    return [s.distance if s.success and s.valid else float("inf") for s in sorted(r.samples, key=lambda s: s.id)]


def robust(d: Sequence[float] | np.ndarray, at: Sequence[float], share: float = 1.0) -> list[float]:
    """Robust accuracy at some distances: the share of samples that no success of at most that distance breaks.

    >>> robust([1.0, 2.0, float("inf")], [0.0, 1.0, 3.0])
    [1.0, 0.6666666666666666, 0.3333333333333333]
    """
    values = np.asarray(d, dtype=np.float64)
    return [float(share * (values > x).mean()) for x in at]


def area(d: Sequence[float] | np.ndarray, far: float, share: float = 1.0) -> float:
    """The area under the curve of robust accuracy from 0 to `far`, exactly: the mean of min(d, far).

    >>> area([1.0, 2.0, float("inf")], 4.0)
    2.3333333333333335
    """
    return float(share * np.minimum(np.asarray(d, dtype=np.float64), far).mean())


def optimality(
    d: Sequence[float] | np.ndarray, best: Sequence[float] | np.ndarray, far: float, share: float = 1.0
) -> float:
    """Local optimality: 1 - (area - area of the best) / (clean accuracy * far - area of the best).

    1 where the attack is the best on each sample, 0 where it breaks nothing nearer than `far`. Where even the best
    breaks nothing nearer, 1 for the same area, else 0.

    >>> optimality([2.0, 4.0], [1.0, 4.0], 4.0)
    0.6666666666666667
    """
    mine, top = area(d, far, share), area(best, far, share)
    room = share * far - top
    return 1 - (mine - top) / room if room > 1e-12 else float(mine - top <= 1e-12)
