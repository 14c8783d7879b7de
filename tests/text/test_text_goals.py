import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.envs.text.goals import SequenceGoal, margin
from advgym.envs.text.seq2seq import END, ENDED, seal
from advgym.errors import AdvgymError

WORDS, T = ("bank", "cuts", "city", "coast"), 4


def decode(scores):
    """Words of a greedy output, in plain Python."""
    out = []
    for row in scores.tolist():
        token = row.index(max(row))
        if token == END:
            break
        out.append(token)
    return out


def draw(seed, n=40):
    g = torch.Generator().manual_seed(seed)
    return seal(torch.randn(n, T, len(WORDS) + 1, generator=g) + torch.tensor([0.3, 0, 0, 0, 0]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_non_overlap_objective_is_positive_exactly_when_no_position_is_kept(seed):
    goal = SequenceGoal(WORDS, T)
    scores, clean = draw(seed), draw(seed + 1)
    ref = goal.output(clean)
    objective, surrogate = goal.judge(scores, ref, None)
    assert objective.isfinite().all() and surrogate.isfinite().all()
    for i in range(len(scores)):
        new, old = decode(scores[i]), decode(clean[i])
        assert goal.output(scores)[i].tolist() == new + [-1] * (T - len(new))
        apart = bool(old) and all(t >= len(new) or new[t] != word for t, word in enumerate(old))
        assert (objective[i] > 0) == apart


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_keyword_objective_is_positive_exactly_when_all_appear(seed, many):
    goal = SequenceGoal(WORDS, T, "keyword", many)
    scores = draw(seed)
    target = torch.stack([torch.randperm(4, generator=torch.Generator().manual_seed(seed + i))[:many] + 1
                          for i in range(len(scores))])  # fmt: skip
    target = torch.cat([target, target.new_full((len(scores), T - many), -1)], 1)
    objective, surrogate = goal.judge(scores, goal.output(scores), target)
    assert surrogate.isfinite().all()
    for i in range(len(scores)):
        assert (objective[i] > 0) == (set(target[i, :many].tolist()) <= set(decode(scores[i])))


def test_after_the_end_nothing_counts():
    scores = torch.zeros(1, T, 5)
    scores[0, 0, 2], scores[0, 1, END], scores[0, 2, 3] = 5.0, 5.0, 9.0
    sealed = seal(scores)
    assert sealed[0, :2].equal(scores[0, :2])
    assert sealed[0, 2].tolist() == [0.0] + [ENDED] * 4
    goal = SequenceGoal(WORDS, T, "keyword")
    target = torch.tensor([[3, -1, -1, -1]])
    assert goal.judge(sealed, goal.output(sealed), target)[0].item() == -5.0  # at the position of the end or before
    assert goal.describe(goal.output(sealed)[0]) == "cuts"


def test_margins_in_closed_form():
    scores = torch.tensor([[[1.0, 4.0, 2.0]]])
    assert margin(scores, torch.tensor([[[0, 1, 2]]]))[0, 0].tolist() == [-3.0, 2.0, -2.0]


def test_targets_are_absent_from_the_output_and_keyed():
    goal = SequenceGoal(WORDS, T, "keyword", 2)
    ref = torch.tensor([[1, 2, -1, -1]] * 50)
    target = goal.targets(0, torch.arange(50), ref)
    assert set(target[:, :2].flatten().tolist()) == {3, 4} and (target[:, 2:] == -1).all()
    assert torch.equal(goal.targets(0, torch.arange(10, 20), ref[:10]), target[10:20])


def test_targets_by_word_or_token():
    goal = SequenceGoal(WORDS, T, "keyword", 2)
    for given_as in ("city bank", ["city", "bank"], [3, 1], torch.tensor([3, 1, -1, -1])):
        assert goal.parse_target(given_as).tolist() == [3, 1, -1, -1]
    for wrong in ("city", "city zebra", [0, 1], [9, 1], ["city", "bank", "cuts"]):
        with pytest.raises(AdvgymError, match="a target is 2 keyword"):
            goal.parse_target(wrong)
    with pytest.raises(AdvgymError, match="1, 2 or 3"):
        SequenceGoal(WORDS, T, "keyword", 4)


def test_right_and_loss_follow_the_true_headline():
    goal = SequenceGoal(WORDS, T)
    scores = torch.full((1, T, 5), 0.0)
    for t, token in enumerate([1, 2, END]):
        scores[0, t, token] = 20.0
    scores = seal(scores)
    label = torch.tensor([[1, 2, -1, -1]])
    assert goal.right(scores, label) and goal.loss(scores, label).item() < 1e-6
    assert not goal.right(scores, torch.tensor([[1, 2, 3, -1]]))
    assert goal.loss(scores, torch.tensor([[1, 2, 3, -1]])).item() > 4
