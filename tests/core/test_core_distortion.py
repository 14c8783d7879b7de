"""Robust accuracy against distance and AttackBench's local optimality, where they are known in closed form."""

import math

import msgspec
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym import AdvgymError, attack
from advgym.judge.distortion import area, distances, distortion, optimality, robust

INF = math.inf
DISTANCE = st.one_of(st.floats(0.01, 10), st.just(INF))


@pytest.fixture(scope="module")
def several():
    names = ("random-search", "noise", "pgd")
    return [attack(toy.task("field", least=True, eps=1.0, queries=30), a, episodes=30, lanes=30) for a in names]


def with_distances(result, values):
    rows = [
        msgspec.structs.replace(s, distance=0.0 if v == INF else v, success=v != INF, valid=True)
        for s, v in zip(sorted(result.samples, key=lambda s: s.id), values, strict=True)
    ]
    return msgspec.structs.replace(result, samples=rows)


def test_a_step_curve_by_hand():
    assert robust([1, 1, 3, INF], [0, 0.5, 1, 2, 3, 9]) == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert robust([1, 3], [0, 1], share=0.8) == [0.8, 0.4]
    assert area([1, 1, 3, INF], 4) == pytest.approx((1 + 1 + 3 + 4) / 4)


def test_optimality_by_hand():
    best = [1.0, 2.0, 4.0]
    assert optimality(best, best, 4.0) == 1.0
    assert optimality([INF] * 3, best, 4.0) == 0.0
    # Areas: 7/3 of the best; 9/3 here; the whole rectangle is 4.
    assert optimality([2.0, 3.0, 4.0], best, 4.0) == pytest.approx(1 - (2 / 3) / (5 / 3))
    assert optimality([4.0, 4.0], [4.0, 4.0], 4.0) == 1.0
    assert optimality([INF, 5.0], [4.0, 4.0], 4.0) == 1.0 and optimality([INF], [INF], 0.0) == 1.0


@given(st.lists(st.tuples(DISTANCE, DISTANCE, DISTANCE), min_size=1, max_size=12), st.floats(0.1, 1))
@settings(max_examples=60, deadline=None)
def test_optimality_is_in_0_1_and_the_area_is_the_integral(rows, share):
    d = np.array(rows).T
    best = d.min(0)
    far = max((float(v) for v in best if v < INF), default=0.0)
    for one in d:
        assert -1e-9 <= optimality(one, best, far, share) <= 1 + 1e-9
        grid = np.linspace(0, far, 20_001)
        fine = np.trapezoid(robust(one, grid[:: max(1, len(grid) // 2000)], share), grid[:: max(1, len(grid) // 2000)])
        assert area(one, far, share) == pytest.approx(fine, abs=2e-3 * far * len(one) + 1e-9)
    # The unit of distance and the share that is right from the start change nothing.
    assert optimality(3 * d[0], 3 * best, 3 * far, 1.0) == pytest.approx(optimality(d[0], best, far, share), abs=1e-6)


def test_results_are_measured_against_the_best_of_all(several):
    n = len(several[0].samples)
    near, far = [1.0] * n, [2.0] * n
    near[0], far[0] = INF, 1.0
    a, b = with_distances(several[0], near), with_distances(several[1], far)
    found = distortion([a, b])
    share = n / several[0].episodes
    assert found.farthest == 1.0 and found.clean == pytest.approx(share) and found.area_best == pytest.approx(share)
    one, two = found.curves
    assert one.nearest == pytest.approx((n - 1) / n) and two.nearest == pytest.approx(1 / n)
    assert one.distance_median == 1.0 and one.success_rate == pytest.approx((n - 1) / n)
    assert one.curve[0] == (0.0, pytest.approx(share)) and one.curve[-1] == (1.0, pytest.approx(share / n))


def test_a_failed_half_has_no_median(several):
    n = len(several[0].samples)
    lost = with_distances(several[0], [INF if i % 2 else 1.0 for i in range(n - n % 2)] + [INF] * (n % 2))
    assert distortion([lost]).curves[0].distance_median is None
    assert msgspec.json.decode(msgspec.json.encode(distortion([lost])))["curves"][0]["distance_median"] is None


def test_real_results(several):
    found = distortion(several)
    assert max(c.optimality for c in found.curves) <= 1 and min(c.optimality for c in found.curves) >= 0
    assert [len(distances(r)) for r in several] == [found.attacked] * 3 and not found.notes
    everything = [min(d) for d in zip(*map(distances, several), strict=True)]
    assert found.farthest == max(v for v in everything if v < INF)


def test_what_does_not_belong_together_is_said(several):
    other = attack(toy.task("field", least=True), "noise", episodes=12)
    with pytest.raises(AdvgymError, match="third"):
        distortion([several[0], several[1], other], ["first", "second", "third"])
    with pytest.raises(AdvgymError, match="one victim"):
        distortion([several[0], msgspec.structs.replace(several[1], defense="smoothing")])
    with pytest.raises(AdvgymError, match="no result"):
        distortion([])
    assert distortion([attack(toy.task("field"), "noise", episodes=12)]).notes
