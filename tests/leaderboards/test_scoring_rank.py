"""The ranking: by the lower bound, ties by overlap, nothing unsound above anything sound."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored import entry

from advgym import AdvgymError
from advgym.leaderboards.entries.entry import Interval
from advgym.leaderboards.scoring.task_scores import rank, unranked


def places(entries, stale=()):
    return [(place, e.name) for place, e in rank(entries, stale)]


def test_overlapping_intervals_share_a_rank_with_the_best_of_the_group():
    entries = [
        entry(0.2, 0.45, name="d"),
        entry(0.5, 0.7, name="b"),
        entry(0.6, 0.8, name="a"),
        entry(0.3, 0.52, name="c"),
    ]
    assert places(entries) == [(1, "a"), (1, "b"), (3, "c"), (3, "d")]


def test_overlap_is_with_the_best_not_a_chain():
    """a meets b and b meets c, but c does not reach a."""
    entries = [entry(0.6, 0.8, name="a"), entry(0.45, 0.65, name="b"), entry(0.3, 0.5, name="c")]
    assert places(entries) == [(1, "a"), (1, "b"), (3, "c")]


def test_touching_is_overlap_and_a_wide_interval_does_not_climb():
    assert places([entry(0.5, 0.6, name="a"), entry(0.4, 0.5, name="b")]) == [(1, "a"), (1, "b")]
    entries = [entry(0.8, 0.9, name="a"), entry(0.6, 0.7, name="b"), entry(0.1, 1.0, name="wide")]
    assert places(entries) == [(1, "a"), (2, "b"), (2, "wide")]


def test_the_unranked_stand_at_the_end_in_order_of_time():
    fine = entry(0.1, name="fine")
    bad = [
        entry(0.9, name="floor", eligible=False, created="2026-01-05"),
        entry(0.9, name="unreliable", unreliable=True, created="2026-01-04"),
        entry(0.9, name="external", external=True, created="2026-01-03"),
        entry(0.9, name="stale", created="2026-01-02"),
    ]
    old = {bad[3].id: "the board changed"}
    assert places([*bad, fine], old) == [
        (1, "fine"), (None, "stale"), (None, "external"), (None, "unreliable"), (None, "floor")
    ]  # fmt: skip
    assert [unranked(e, old) for e in (fine, *bad)] == [
        "", "not eligible", "unreliable", "not run by this server", "stale"
    ]  # fmt: skip


def test_a_superseded_entry_is_left_out():
    first = entry(0.9, name="first")
    second = entry(0.5, name="second", supersedes=first.id)
    third = entry(0.4, name="third", supersedes=second.id)
    assert places([first, third, second]) == [(1, "third")]


def test_the_same_entry_twice_is_one():
    assert len(rank([entry(0.5), entry(0.5)])) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2.0, -0.1])
@pytest.mark.parametrize("field", ["value", "low", "high"])
def test_what_is_no_fraction_is_never_sorted(bad, field):
    good = entry(0.2, 0.4, name="good")
    parts = {"value": 0.5, "low": 0.4, "high": 0.6, field: bad}
    broken = entry(0.5, name="broken")
    broken.headline = Interval(**parts)
    for order in ([good, broken], [broken, good]):
        assert places(order) == [(1, "good"), (None, "broken")]
    assert unranked(broken) == "not a number"


def test_boards_tracks_and_phases_are_not_mixed():
    for other in ({"board": "c"}, {"track": "defense"}, {"phase": "test"}):
        with pytest.raises(AdvgymError, match="one board"):
            rank([entry(0.5), entry(0.5, **other)])
    assert rank([]) == []


spans = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans()), min_size=1, max_size=12)


@given(spans)
def test_laws_of_the_ranking(some):
    entries = [
        entry(min(a, b), max(a, b), name=str(i), eligible=fits, created=f"2026-01-{i + 1:02}")
        for i, (a, b, fits) in enumerate(some)
    ]
    table = rank(entries)
    assert {e.name for _, e in table} == {e.name for e in entries}
    good = [(place, e) for place, e in table if place is not None]
    assert [p is None for p, _ in table] == sorted(p is None for p, _ in table)
    assert [e.headline.low for _, e in good] == sorted((e.headline.low for _, e in good), reverse=True)
    for at, (place, e) in enumerate(good):
        leader = good[place - 1][1]
        assert good[place - 1][0] == place <= at + 1
        assert e.headline.high >= leader.headline.low
        if place == at + 1 and at:
            assert e.headline.high < good[good[at - 1][0] - 1][1].headline.low
    assert rank(entries[::-1]) == table
