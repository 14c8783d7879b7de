"""Intervals, areas and weighted means: against brute force, by simulation, and as laws that no input breaks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advgym import AdvgymError
from advgym.leaderboards.entries.entry import Interval
from advgym.leaderboards.scoring.intervals import curve_area, mean_interval, rate_interval, sound, worst_weighted
from advgym.lib.rates import wilson

rates = st.floats(0, 1)
sizes = st.integers(1, 5000)
parts = st.lists(st.tuples(rates, sizes), min_size=1, max_size=8)


@given(sizes, st.data())
def test_one_seed_is_wilsons_own(n, data):
    wins = data.draw(st.integers(0, n))
    found = rate_interval(wins / n, n)
    assert (found.low, found.high) == pytest.approx(wilson(wins, n), abs=1e-12)


@given(rates, sizes)
def test_a_rates_interval_is_sound(rate, n):
    assert sound(rate_interval(rate, n))


@given(rates, rates, sizes)
def test_more_successes_never_lower_the_bound(one, two, n):
    low, high = rate_interval(min(one, two), n), rate_interval(max(one, two), n)
    assert low.low <= high.low + 1e-12 and low.high <= high.high + 1e-12


@given(rates, sizes)
def test_more_samples_narrow_it(rate, n):
    few, many = rate_interval(rate, n), rate_interval(rate, 2 * n)
    assert many.low >= few.low - 1e-12 and many.high <= few.high + 1e-12


@given(parts)
def test_a_means_interval_is_sound(some):
    assert sound(mean_interval(some))


@given(parts, st.data())
def test_a_better_task_never_lowers_the_mean(some, data):
    at = data.draw(st.integers(0, len(some) - 1))
    one, two = sorted((data.draw(rates), data.draw(rates)))
    worse, better = list(some), list(some)
    worse[at], better[at] = (one, some[at][1]), (two, some[at][1])
    assert mean_interval(worse).low <= mean_interval(better).low + 1e-9


def test_one_task_is_its_own_mean():
    assert mean_interval([(0.7, 40)]) == rate_interval(0.7, 40)
    with pytest.raises(AdvgymError, match="one task"):
        mean_interval([])


def test_tasks_count_alike_and_the_smallest_says_how_sure_one_is():
    assert mean_interval([(1.0, 10), (0.5, 1000)]) == rate_interval(0.75, 20)


def test_perfect_scores_leave_room_for_doubt():
    perfect = mean_interval([(1.0, 64)] * 4)
    assert perfect.value == perfect.high == 1.0 and 0.97 < perfect.low < 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1e-9, 1.1])
def test_what_is_no_fraction_is_refused(bad):
    with pytest.raises(AdvgymError, match="rate"):
        rate_interval(bad, 10)
    assert (
        not sound(Interval(bad, 0.0, 1.0)) and not sound(Interval(0.5, bad, 1.0)) and not sound(Interval(0.5, 0, bad))
    )


def cover(rates_of, n, seeds, times, *, clusters=True, spread=0.0):
    """How often the interval holds the true mean. spread: 0, samples are all alike; 1, each always or never falls."""
    rng, hits = np.random.default_rng(7), 0
    truth = float(np.mean(rates_of))
    for _ in range(times):
        some = []
        for p in rates_of:
            settled = rng.random(n) < spread
            own = np.where(settled, rng.random(n) < p, p)  # each sample's own chance; their mean is p
            rate = float((rng.random((seeds, n)) < own).mean())
            some.append((rate, n if clusters else n * seeds))
        found = mean_interval(some)
        hits += found.low <= truth <= found.high
    return hits / times


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 1.0), (3, 0.5), (3, 0.0)])
@pytest.mark.parametrize("rates_of", [(0.5,), (0.05, 0.5, 0.9), (0.97, 0.99, 0.98, 0.95), (0.02,) * 3])
def test_the_interval_covers_the_truth(rates_of, seeds, spread):
    assert cover(rates_of, 48, seeds, 2000, spread=spread) >= 0.93


def test_taking_seeds_for_samples_would_not():
    """Five runs of a sample that always or never falls say no more than one."""
    assert cover((0.3, 0.6), 48, 5, 800, spread=1.0) >= 0.93
    assert cover((0.3, 0.6), 48, 5, 800, spread=1.0, clusters=False) < 0.8


def test_failing_once_pays_under_a_measured_variance_and_not_here():
    """Why there is no effective sample size: with it, one failed run of 60 beats none."""
    n = 20  # each three times
    y = np.ones(n)
    y[0] = 2 / 3
    p = float(y.mean())
    effective = n * p * (1 - p) / float(y.var())
    assert rate_interval(p, round(effective)).low > rate_interval(1.0, n).low
    assert rate_interval(p, n).low < rate_interval(1.0, n).low


@given(st.integers(1, 300), st.integers(1, 30), st.data())
def test_the_area_is_that_under_the_step_function(budget, n, data):
    first = data.draw(st.lists(st.integers(1, budget), max_size=n))
    steps = sum(sum(f <= q for f in first) / n * math.log((q + 1) / q) for q in range(1, budget + 1))
    area = curve_area(first, budget, n)
    assert area == pytest.approx(steps / math.log(budget + 1), abs=1e-9) and 0 <= area <= 1 + 1e-12


def test_ends_of_the_area():
    assert curve_area([1] * 4, 100, 4) == 1.0 == curve_area([0], 1, 1)
    assert curve_area([], 100, 4) == 0.0 == curve_area([], 100, 0)
    assert 0 < curve_area([100], 100, 1) < 0.01


@given(st.lists(rates, min_size=1, max_size=9))
def test_the_worst_weighs_most(some):
    found = worst_weighted(some)
    assert min(some) - 1e-12 <= found <= sum(some) / len(some) + 1e-12
    assert found == pytest.approx(worst_weighted(some[::-1]))
