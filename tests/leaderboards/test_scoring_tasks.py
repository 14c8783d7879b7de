"""One task's score: against what an attack in this process says, and under every way to cheat the sums."""

import math

import msgspec
import pytest
import scored
import torch
import toy
from hypothesis import given
from hypothesis import strategies as st

from advgym import AdvgymError, Victim, attack
from advgym.leaderboards.entries.entry import RowSet
from advgym.leaderboards.runs.facts import clean_right, measure
from advgym.leaderboards.scoring.outcome import samples_hash, won
from advgym.leaderboards.scoring.task_scores import score_task


def test_it_agrees_with_an_attack_in_this_process():
    task = toy.task()
    ids = list(range(40))
    runs = [attack(task, "random-search", episodes=40, lanes=8, seed=seed) for seed in (1, 2)]
    facts = measure(task, "test", ids, [1, 2])
    sets = [RowSet(task=task.name, seed=r.seed, split="test", options={}, samples=r.samples) for r in runs]
    score = score_task(sets, facts)
    assert score.status == "scored" and score.attacked == runs[0].attacked == 36 and score.assigned == 40
    assert score.seeds == [r.success_rate for r in runs]
    assert score.success.value == pytest.approx(sum(r.success_rate for r in runs) / 2) and score.success.value > 0
    assert score.robust == pytest.approx(sum(r.robust_accuracy for r in runs) / 2)
    assert score.clean_accuracy == runs[0].clean_accuracy
    assert score.invalid_rate == pytest.approx(sum(r.invalid_rate for r in runs) / 2)
    assert score.queries_mean == pytest.approx(sum(r.queries_mean for r in runs) / 2)
    for at, (q, share) in enumerate(score.curve):
        assert (q, share) == pytest.approx((runs[0].curve[at][0], sum(r.curve[at][1] for r in runs) / 2))
    assert 0 < score.area < score.success.value
    labels = task.samples("test", ids).labels.tolist()
    assert sum(score.reasons.values()) == 72 and score.samples == samples_hash("test", ids, labels)
    assert score.samples != samples_hash("test", ids, labels[::-1])
    alone = score_task(sets[:1], measure(task, "test", ids, [1]))
    assert (alone.success.low, alone.success.high) == pytest.approx(runs[0].success_ci)


def test_no_rows_at_all_is_not_attempted():
    score = score_task([], scored.facts())
    assert score.status == "not attempted" and score.success.value == 0 and score.attacked == score.assigned == 10


def test_an_empty_run_was_attempted_and_failed():
    score = score_task([scored.rowset([])], scored.facts())
    assert score.status == "scored" and score.success.value == 0 and score.reasons == {"missing": 10}
    assert score.invalid_rate == 0 and any("10 of 10 runs" in flag for flag in score.flags)


def test_skipping_hard_samples_does_not_help():
    wins = {i: i < 5 for i in range(10)}
    honest = score_task([scored.rowset(wins)], scored.facts())
    skipped = score_task([scored.rowset({i: True for i in range(5)})], scored.facts())
    assert skipped.success == honest.success and skipped.area == honest.area and skipped.curve == honest.curve


def test_a_seed_that_did_not_run_failed():
    full = {i: True for i in range(10)}
    score = score_task([scored.rowset(full, seed=3)], scored.facts(seeds=(3, 4)))
    assert score.success.value == 0.5 and score.seeds == [1.0, 0.0]


def test_samples_that_the_victim_has_wrong_are_nobodys_success():
    score = score_task([scored.rowset({i: True for i in range(8)})], scored.facts(right=list(range(8))))
    assert score.success.value == 1.0 and score.robust == 0.0 and score.attacked == 8 and score.assigned == 10


@pytest.mark.parametrize(
    "over",
    [{"objective": math.nan}, {"objective": math.inf}, {"distance": math.nan}, {"valid": False}, {"objective": 0.0},
     {"objective": 1e-7}, {"success": False}],
)  # fmt: skip
def test_what_is_not_a_finite_valid_success_failed(over):
    assert won(scored.sample(0, True)) and not won(scored.sample(0, True, **over))
    score = score_task([scored.rowset([scored.sample(0, True, **over)])], scored.facts(n=1))
    assert score.success.value == 0 and score.area == 0 and score.robust == 1
    assert "null" not in msgspec.json.encode(score).decode()


@pytest.mark.parametrize(
    ("sets", "over", "says"),
    [
        ([scored.rowset({0: True}, task="b")], {}, "no rows of a"),
        ([scored.rowset({0: True}, attack="pgd")], {}, "no rows of a"),
        ([scored.rowset({0: True}, seed=9)], {}, "seed 9"),
        ([scored.rowset({0: True}), scored.rowset({1: True})], {}, "seed 0"),
        ([scored.rowset({99: True})], {}, "not to be attacked"),
        ([scored.rowset({9: True})], {"right": [0]}, "not to be attacked"),
        ([scored.rowset([scored.sample(0, True)] * 2)], {}, "twice"),
        ([scored.rowset([scored.sample(0, True, queries=21)])], {}, "spent 21"),
        ([scored.rowset([scored.sample(0, True, gradients=1)])], {}, "1 gradients"),
        ([scored.rowset([scored.sample(0, True, first_success=11)])], {}, "query 11"),
        ([], {"assigned": [], "right": []}, "nothing is assigned"),
        ([], {"seeds": []}, "nothing is assigned"),
        ([], {"right": [77]}, "not among"),
        ([], {"right": [1, 1]}, "not among"),
        ([], {"clean_accuracy": math.nan}, "within 0 and 1"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_are_refused(sets, over, says):
    with pytest.raises(AdvgymError, match=says):
        score_task(sets, scored.facts(**over))


outcomes = st.dictionaries(st.integers(0, 9), st.booleans())


@given(st.lists(outcomes, min_size=1, max_size=3), st.data())
def test_no_change_for_the_worse_raises_a_score(runs, data):
    """Turning a success into a failure, or leaving a row out, lowers everything that ranks, or leaves it."""
    facts = scored.facts(seeds=range(len(runs)))
    before = score_task([scored.rowset(r, seed=k) for k, r in enumerate(runs)], facts)
    at = data.draw(st.integers(0, len(runs) - 1))
    worse = [dict(r) for r in runs]
    if worse[at]:
        sample = data.draw(st.sampled_from(sorted(worse[at])))
        if data.draw(st.booleans()):
            worse[at][sample] = False
        else:
            del worse[at][sample]
    after = score_task([scored.rowset(r, seed=k) for k, r in enumerate(worse)], facts)
    assert after.success.low <= before.success.low and after.success.value <= before.success.value
    assert after.area <= before.area and after.robust >= before.robust
    assert all(x <= y for (_, x), (_, y) in zip(after.curve, before.curve, strict=True))


@given(st.lists(outcomes, min_size=1, max_size=3))
def test_every_figure_is_a_finite_fraction_or_count(runs):
    score = score_task(
        [scored.rowset(r, seed=k) for k, r in enumerate(runs)], scored.facts(seeds=range(len(runs)), right=[0, 1, 2])
    ) if all(set(r) <= {0, 1, 2} for r in runs) else score_task(
        [scored.rowset(r, seed=k) for k, r in enumerate(runs)], scored.facts(seeds=range(len(runs)))
    )  # fmt: skip
    for name in ("robust", "invalid_rate", "area"):
        assert 0 <= getattr(score, name) <= 1
    assert 0 <= score.success.low <= score.success.value <= score.success.high <= 1
    assert msgspec.json.decode(msgspec.json.encode(score), type=type(score)) == score


def test_the_control_is_flagged_unless_it_is_the_panels():
    facts = scored.facts(control_rate=0.5)
    rows = {i: i < 5 for i in range(10)}
    assert "no better than the random control" in score_task([scored.rowset(rows)], facts).flags
    better = {i: i < 6 for i in range(10)}
    assert not score_task([scored.rowset(better)], facts).flags
    panel = msgspec.structs.replace(facts, attack="noise")
    assert not score_task([scored.rowset(rows, attack="noise")], panel).flags


def test_a_detector_that_rejects_everything_has_nothing_right():
    layer = toy.linear()
    paranoid = Victim(layer, name="paranoid", risk=lambda x: torch.ones(len(x)), threshold=0.5)
    picky = Victim(layer, name="picky", risk=lambda x: (x[:, 0] > 0.5).float(), threshold=0.5)
    plain, _ = clean_right(toy.task(), "test")
    assert plain.sum() == 36
    none, _ = clean_right(toy.task(victim=paranoid), "test")
    some, _ = clean_right(toy.task(victim=picky), "test")
    assert none.sum() == 0 and (some == (plain & (toy.samples()[:, 0] <= 0.5).numpy())).all() and 0 < some.sum() < 36
    facts = measure(toy.task(victim=paranoid), "test", list(range(40)), [0])
    assert facts.right == [] and facts.clean_accuracy == 0.0 and facts.control_rate == 0.0
