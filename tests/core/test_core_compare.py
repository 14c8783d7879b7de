"""Paired comparison: against scipy and published intervals, and what cannot be paired."""

import msgspec
import numpy as np
import pytest
import toy
from scipy.stats import binomtest

from advgym import AdvgymError, attack
from advgym.judge.compare import binomial_p, bootstrap, compare, newcombe


@pytest.fixture(scope="module")
def two():
    return [attack(toy.task("field"), agent, episodes=30, lanes=30) for agent in ("random-search", "noise")]


def changed(result, **over):
    return msgspec.structs.replace(msgspec.json.decode(msgspec.json.encode(result), type=type(result)), **over)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 6), (1, 10), (5, 10), (9, 10), (40, 100), (500, 1100)])
def test_the_exact_test_against_scipy(k, n):
    assert binomial_p(k, n) == pytest.approx(binomtest(k, n).pvalue, rel=1e-9)


def test_nothing_tells_nothing():
    assert binomial_p(0, 0) == 1.0 and bootstrap([]) == (0.0, 0.0) and newcombe(0, 0, 0, 0) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("cells", "interval"),
    [((36, 12, 2, 0), (0.0569, 0.3404)), ((20, 12, 2, 16), (0.0562, 0.3292)), ((0, 0, 0, 10), (-0.2775, 0.2775))],
)
def test_newcombes_interval(cells, interval):
    """Two examples of Newcombe 1998, method 10, and one by hand: no pair differs, so phi is 0 and Wilson does it."""
    assert newcombe(*cells) == pytest.approx(interval, abs=6e-5)


def test_newcombes_interval_is_antisymmetric_and_covers():
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b, c, d = (int(v) for v in rng.integers(0, 30, 4))
        if a + b + c + d == 0:
            continue
        low, high = newcombe(a, b, c, d)
        assert newcombe(a, c, b, d) == pytest.approx((-high, -low))
        assert -1 <= low <= (b - c) / (a + b + c + d) <= high <= 1


def test_newcombes_interval_holds_95_times_in_100():
    rng = np.random.default_rng(1)
    truth, hit = np.array([0.4, 0.2, 0.1, 0.3]), 0
    for cells in rng.multinomial(80, truth, size=600):
        low, high = newcombe(*(int(c) for c in cells))
        hit += low <= 0.1 <= high
    assert 0.92 <= hit / 600 <= 0.99


def test_the_bootstrap_is_near_the_normal_interval():
    values = np.random.default_rng(2).normal(3, 2, 200)
    low, high = bootstrap(list(values))
    half = 1.96 * values.std() / np.sqrt(200)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06)
    assert bootstrap(list(values)) == (low, high)


def test_a_comparison_counts_every_pair(two):
    a, b = two
    c = compare(a, b)
    assert c.attacked == len(a.samples) == c.both + c.only_first + c.only_second + c.neither == len(c.samples)
    assert c.difference == pytest.approx(a.success_rate - b.success_rate)
    assert [s.success_rate for s in c.sides] == pytest.approx([a.success_rate, b.success_rate])
    assert c.mcnemar_p == pytest.approx(binomtest(c.only_first, c.only_first + c.only_second).pvalue)
    wins = {s.id: s for s in a.samples}
    for pair in c.samples:
        assert (pair.winner in ("A", "both")) == wins[pair.id].success and pair.queries[0] == wins[
            pair.id
        ].first_success
    assert c.fewer_first + c.fewer_second <= c.both and c.only_first > c.only_second


def test_the_other_way_round(two):
    c, d = compare(*two), compare(*two[::-1])
    assert d.difference == -c.difference and d.mcnemar_p == c.mcnemar_p and d.only_first == c.only_second
    assert d.difference_ci == pytest.approx((-c.difference_ci[1], -c.difference_ci[0]))
    assert d.queries_difference == -c.queries_difference


def test_a_result_against_itself_shows_nothing(two):
    c = compare(two[0], two[0])
    assert c.difference == 0 and c.mcnemar_p == c.sign_p == 1.0 and c.queries_ci == (0.0, 0.0) and c.notes == []


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"task": "toy/other"}, r"the task is 'toy/field' in A and 'toy/other' in B"),
        ({"split": "train"}, "the split"),
        ({"victim": {"name": "else"}}, "the victim is 'linear'"),
        ({"options": {"dataset": "else"}}, "the dataset"),
        ({"samples": []}, "attacked samples"),
    ],
)
def test_what_does_not_match_is_said(two, over, words):
    with pytest.raises(AdvgymError, match=words):
        compare(two[0], changed(two[0], **over))


def test_labels_targets_and_goals_must_match(two):
    other = changed(two[0])
    other.samples[3].label = 2 - other.samples[3].label if other.samples[3].label != 1 else 0
    with pytest.raises(AdvgymError, match=f"label or target of sample {other.samples[3].id}"):
        compare(two[0], other)
    with pytest.raises(AdvgymError, match="the goal"):
        compare(two[0], changed(two[0], threat={**two[0].threat, "goal": "targeted"}))


def test_defenses_are_compared_on_common_samples(two):
    other = changed(two[0], defense="wall", samples=two[0].samples[4:])
    c = compare(two[0], other)
    assert c.attacked == len(two[0].samples) - 4 and any("different defenses" in n for n in c.notes)
    with pytest.raises(AdvgymError, match="share no attacked sample"):
        compare(two[0], changed(two[0], defense="wall", samples=[]))


def test_differences_of_the_threat_are_noted(two):
    other = changed(two[0], threat={**two[0].threat, "queries": 7}, seed=3)
    assert compare(two[0], other).notes == ["queries: A has 20, B has 7", "seed: A has 0, B has 3"]
