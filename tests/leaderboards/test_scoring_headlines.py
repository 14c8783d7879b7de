"""The headlines: fixed denominators, worst cases, floors; nothing that is left out helps."""

import math

import pytest
import scored
from hypothesis import given
from hypothesis import strategies as st
from scored import board, facts, rowset, task_score

from advgym import AdvgymError
from advgym.leaderboards.entries.entry import Interval
from advgym.leaderboards.scoring.intervals import mean_interval
from advgym.leaderboards.scoring.task_scores import headline_attack, headline_defense, score_task


def missing(task, n=10):
    return score_task([], facts(n, task=task))


# -- attack ----------------------------------------------------------------------------------------------------------
def test_an_attack_is_its_mean_over_all_tasks():
    scores = [task_score("a", 0.5, attacked=20, area=0.4), task_score("b", 1.0, attacked=30, area=0.8), missing("c")]
    found = headline_attack(board("a", "b", "c"), scores)
    assert found.interval == mean_interval([(0.5, 20), (1.0, 30), (0.0, 10)])
    assert found.interval.value == pytest.approx(0.5) and found.eligible
    assert found.columns["attempted"] == pytest.approx(2 / 3) and found.columns["area"] == pytest.approx(0.4)


def test_leaving_a_task_out_is_failing_on_it():
    failed = score_task([rowset([], task="b")], facts(task="b"))
    good = score_task([rowset({i: True for i in range(10)})], facts())
    both = board("a", "b")
    assert headline_attack(both, [good, missing("b")]).interval == headline_attack(both, [good, failed]).interval


@pytest.mark.parametrize(
    ("names", "scores", "says"),
    [
        (["a", "b"], [task_score("a", 1.0, attacked=9)], "one score per task"),
        (["a"], [task_score("a", 1.0, attacked=9)] * 2, "twice"),
        (["a"], [task_score("a", 1.0, attacked=9), task_score("b", 1.0, attacked=9)], "not on it"),
        (["a", "a"], [task_score("a", 1.0, attacked=9)], "repeat"),
        ([], [], "repeat"),
        (["a"], [task_score("a", math.nan, attacked=9)], "no rate"),
        (["a"], [task_score("a", math.inf, attacked=9)], "no rate"),
        (["a"], [task_score("a", 1.0, attacked=0)], "no rate"),
    ],
)
def test_scores_that_do_not_fit_the_board_are_refused(names, scores, says):
    with pytest.raises(AdvgymError, match=says):
        headline_attack(board(*names), scores)


def test_a_rate_of_zero_on_one_task_neither_wipes_out_nor_vanishes():
    """No geometric mean: its underflow once put 0.000 on top of a board of times."""
    found = headline_attack(board("a", "b"), [task_score("a", 0.0, attacked=50), task_score("b", 1.0, attacked=50)])
    assert found.interval.value == 0.5 and found.columns["worst_weighted"] == pytest.approx(0.2)


# -- defense ---------------------------------------------------------------------------------------------------------
def defended(runs, *, n=10, right=None, seeds=(0,), knowledge=None, **over):
    """runs: {attack: [outcomes per seed]} on task a -> (row sets, scores)."""
    sets, scores = [], []
    for name, outcomes in runs.items():
        own = [rowset(w, attack=name, seed=k) for k, w in zip(seeds, outcomes, strict=True) if w is not None]
        know = (knowledge or {}).get(name, "score")
        sets += own
        scores.append(score_task(own, facts(n, right=right, seeds=seeds, attack=name, knowledge=know, **over)))
    return sets, scores


def beaten(*ids, n=10):
    return {i: i in ids for i in range(n)}


def test_a_sample_holds_only_where_no_attack_succeeds():
    sets, scores = defended({"pgd": [beaten(0, 1)], "square": [beaten(1, 2)]})
    found = headline_defense(board("a"), sets, scores, [0])
    assert found.interval == mean_interval([(0.7, 10)]) and found.eligible
    assert [s.robust for s in scores] == [0.8, 0.8]


def test_samples_that_are_wrong_when_clean_do_not_hold():
    right = [0, 1, 2, 3]
    sets, scores = defended({"pgd": [{i: False for i in right}]}, right=right)
    assert headline_defense(board("a"), sets, scores, [0]).interval.value == 0.4


def test_the_worst_case_is_within_a_run_and_the_mean_over_runs():
    sets, scores = defended({"pgd": [beaten(0), beaten(1)], "square": [beaten(0), beaten()]}, seeds=(5, 6))
    found = headline_defense(board("a"), sets, scores, [5, 6])
    assert found.interval.value == pytest.approx(0.9) and found.columns["robust_every_seed"] == pytest.approx(0.8)


def test_what_is_missing_did_not_hold():
    full, scores = defended({"pgd": [beaten()], "square": [beaten()]})
    assert headline_defense(board("a"), full, scores, [0]).interval.value == 1.0
    some = [full[0], rowset({i: False for i in range(6)}, attack="square")]
    assert headline_defense(board("a"), some, scores, [0]).interval.value == 0.6
    assert headline_defense(board("a"), full[:1], scores, [0]).interval.value == 0.0
    assert headline_defense(board("a"), full, scores, [0, 1]).interval.value == 0.5


def test_a_defense_that_did_not_answer_did_not_hold():
    """Its rows say success without a finite objective: no success of an attack, but the defense's loss."""
    silent = [scored.sample(i, False) for i in range(6)]
    silent += [scored.sample(i, True, objective=v, first_success=0) for i, v in enumerate((0.0, math.nan), start=6)]
    sets = [rowset(silent, attack="pgd")]
    score = score_task(sets, facts(attack="pgd"))
    assert score.robust == pytest.approx(0.6) and score.success.value == pytest.approx(0.4)
    assert headline_defense(board("a"), sets, [score], [0]).interval.value == 0.6


def test_a_task_that_is_not_attempted_counts_zero_and_needs_no_floor():
    sets, scores = defended({"pgd": [beaten()]})
    other = score_task([], facts(task="b", attack="pgd", clean_accuracy=0.1))
    found = headline_defense(board("a", "b"), sets, [*scores, other], [0])
    assert found.interval.value == 0.5 and found.eligible and found.columns["attempted"] == 0.5


@pytest.mark.parametrize(("clean", "fits"), [(0.95, True), (0.9 * 0.95, True), (0.85, False), (0.0, False)])
def test_the_floor_under_clean_accuracy(clean, fits):
    sets, scores = defended({"pgd": [beaten()]}, clean_accuracy=clean)
    found = headline_defense(board("a", floor=0.9), sets, scores, [0])
    assert found.eligible == fits and ("clean accuracy" in found.footnote) != fits
    assert found.interval.value == 1.0  # shown, not ranked


def test_rejecting_everything_is_worth_nothing():
    sets, scores = defended({"pgd": [{}]}, right=[], clean_accuracy=0.0)
    found = headline_defense(board("a"), sets, scores, [0])
    assert found.interval.value == 0.0 and not found.eligible


def test_attacks_that_were_scored_on_other_samples_are_refused():
    sets, scores = defended({"pgd": [beaten()]})
    more, others = defended({"square": [beaten(n=12)]}, n=12)
    with pytest.raises(AdvgymError, match="same samples"):
        headline_defense(board("a"), sets + more, scores + others, [0])
    with pytest.raises(AdvgymError, match="no attack of the panel"):
        headline_defense(board("a", "b"), sets, scores, [0])
    with pytest.raises(AdvgymError, match="no seeds"):
        headline_defense(board("a"), sets, scores, [])


def test_masked_gradients_are_flagged():
    know = {"pgd": "white-box", "square": "score"}
    sets, scores = defended({"pgd": [beaten(0)], "square": [beaten(0, 1)]}, knowledge=know)
    assert any("square succeed more often" in f for f in headline_defense(board("a"), sets, scores, [0]).flags)
    sets, scores = defended({"pgd": [beaten(0, 1)], "square": [beaten(0)]}, knowledge=know)
    assert not headline_defense(board("a"), sets, scores, [0]).flags


def test_a_dispute_breaks_a_sample_in_every_run():
    sets, scores = defended({"pgd": [beaten(0), beaten()]}, seeds=(5, 6))
    given = rowset([scored.sample(3, True), scored.sample(4, False), scored.sample(5, True, valid=False)],
                   attack="dispute:1", seed=9)  # fmt: skip
    assert headline_defense(board("a"), sets, scores, [5, 6]).interval.value == pytest.approx(0.95)
    assert headline_defense(board("a"), [*sets, given], scores, [5, 6]).interval.value == pytest.approx(0.85)


@given(
    st.dictionaries(st.sampled_from("xyz"), st.dictionaries(st.integers(0, 9), st.booleans()), min_size=1), st.data()
)
def test_no_change_for_the_worse_raises_a_defense(runs, data):
    sets, scores = defended({name: [outcome] for name, outcome in runs.items()})
    before = headline_defense(board("a"), sets, scores, [0]).interval
    name = data.draw(st.sampled_from(sorted(runs)))
    worse = {k: dict(v) for k, v in runs.items()}
    if worse[name]:
        sample = data.draw(st.sampled_from(sorted(worse[name])))
        if data.draw(st.booleans()):
            worse[name][sample] = True
        else:
            del worse[name][sample]
    sets, scores = defended({k: [v] for k, v in worse.items()})
    after = headline_defense(board("a"), sets, scores, [0]).interval
    assert after.value <= before.value and after.low <= before.low
    assert isinstance(after, Interval) and 0 <= after.low <= after.value <= after.high <= 1


@pytest.mark.parametrize(("best", "told"), [("white-box", False), ("transfer", True), ("score", True)])
def test_a_defense_that_no_adaptive_attack_met_says_so(best, told):
    know = {"pgd": best, "square": "score"}
    sets, scores = defended({"pgd": [beaten(0)], "square": [beaten(0)]}, knowledge=know)
    flags = headline_defense(board("a"), sets, scores, [0]).flags
    assert any("none was adaptive" in f for f in flags) is told
