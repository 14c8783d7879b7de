"""Decoding against plain Python, and objectives that are positive exactly on success."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.envs.speech import symbols
from advgym.envs.speech.goals.decode import ctc_loss, greedy
from advgym.envs.speech.goals.transcripts import CtcGoal
from advgym.envs.speech.measures.errors import wer
from advgym.errors import AdvgymError

FRAMES = 20
paths = st.lists(st.lists(st.integers(0, 4), min_size=FRAMES, max_size=FRAMES), min_size=1, max_size=5)


def scores_of(path: list[list[int]], symbols_count: int = 17) -> torch.Tensor:
    return F.log_softmax(5.0 * F.one_hot(torch.tensor(path), symbols_count).float(), 2)


def saying(*texts: str, frames: int = FRAMES) -> torch.Tensor:
    """Scores whose best path says each text."""
    out = []
    for text in texts:
        path = []
        for symbol in symbols.encode(text):
            path += [0, symbol] if path and path[-1] == symbol else [symbol]
        out.append(path + [0] * (frames - len(path)))
    return scores_of(out)


@settings(max_examples=200, deadline=None)
@given(paths)
def test_greedy_is_plain_python(path):
    for space in (1, 0):
        found = greedy(scores_of(path), space)
        for row, ids in zip(path, found.tolist(), strict=True):
            collapsed = [s for s, last in zip(row, [None, *row], strict=False) if s != last]
            kept = [s for s in collapsed if s != 0]
            text = symbols.decode(kept)
            want = symbols.encode(symbols.tidy(text)) if space else kept
            assert ids == want + [-1] * (FRAMES - len(want))


@settings(max_examples=150, deadline=None)
@given(paths, paths)
def test_objectives_are_positive_exactly_on_success(path, other):
    n = min(len(path), len(other))
    scores, ref = scores_of(path[:n]), greedy(scores_of(other[:n]))
    goal = CtcGoal(FRAMES)
    objective, surrogate = goal.judge(scores, ref, None)
    rate = wer(goal.output(scores), ref)
    words = torch.tensor([max(1, len(goal.text(r).split())) for r in ref.tolist()])
    assert torch.equal(objective > 1e-6, rate >= 0.5)
    torch.testing.assert_close(objective, rate - 0.5 + 0.5 / words)
    assert objective.dtype == surrogate.dtype == torch.float32 and torch.isfinite(surrogate).all()

    targeted = CtcGoal(FRAMES, name="targeted")
    objective, surrogate = targeted.judge(scores, ref, ref)
    assert torch.equal(objective > 1e-6, (targeted.output(scores) == ref).all(1))
    assert torch.isfinite(surrogate).all()


def test_surrogates_are_ctc_losses_and_pull_the_right_way():
    goal, target = CtcGoal(FRAMES), CtcGoal(FRAMES, name="targeted")
    scores = saying("three", "one six").requires_grad_()
    ref = goal.output(scores.detach())
    _, loss = goal.judge(scores, ref, None)
    for i, text in enumerate(("three", "one six")):
        ids = torch.tensor([symbols.encode(text)])
        one = F.ctc_loss(scores[i].unsqueeze(1), ids, [FRAMES], [ids.shape[1]], reduction="none")
        torch.testing.assert_close(loss[i : i + 1], one)
    _, wish = target.judge(scores, ref, ref)
    torch.testing.assert_close(wish, -loss)
    (g,) = torch.autograd.grad(loss.sum(), scores)
    assert g.abs().sum() > 0
    assert (ctc_loss(saying("two", "two"), ref) > loss.detach()).all()


def test_nan_is_no_success():
    scores = saying("one", "two")
    ref = CtcGoal(FRAMES).output(saying("six", "six"))
    scores[0, 3, 2] = torch.nan
    assert (CtcGoal(FRAMES).judge(scores, ref, None)[0] > 0).tolist() == [False, True]
    nan = torch.full_like(scores, torch.nan)
    target = CtcGoal(FRAMES, name="targeted")
    assert (target.judge(nan, ref, target.output(nan))[0] < 0).all()


def test_logits_and_log_probabilities_are_judged_alike():
    goal = CtcGoal(FRAMES)
    logits = torch.randn(4, FRAMES, 17, generator=torch.Generator().manual_seed(0))
    ref = goal.output(saying("one", "two", "six", "nine"))
    for a, b in zip(goal.judge(logits, ref, None), goal.judge(logits.log_softmax(2), ref, None), strict=True):
        torch.testing.assert_close(a, b)


def test_right_means_less_than_half_wrong():
    goal = CtcGoal(FRAMES)
    truth = goal.output(saying("one two six", "one two"))
    assert goal.right(saying("one six six", "one six"), truth).tolist() == [True, False]


def test_a_target_that_fits_in_no_path_has_no_loss_rather_than_infinity():
    assert ctc_loss(scores_of([[0, 1]]), torch.tensor([[1, 1, 1]])).tolist() == [0.0]


def test_default_targets_are_other_digit_strings_of_as_many_words():
    goal = CtcGoal(40, name="targeted")
    ref = goal.output(saying("one two six", "nine", "", frames=40))
    keys = torch.tensor([5, 9, 2])
    found = goal.targets(0, keys, ref)
    assert torch.equal(found, goal.targets(0, keys, ref))
    assert torch.equal(found[1:2], goal.targets(0, keys[1:2], ref[1:2]))
    assert not (found == ref).all(1).any()
    texts = [goal.text(t) for t in found.tolist()]
    assert [len(t.split()) for t in texts] == [3, 1, 1]
    assert all(word in symbols.DIGITS for t in texts for word in t.split())
    for seed in range(30):
        assert not (goal.targets(seed, keys, ref) == ref).all(1).any()


def test_default_targets_fit_in_the_frames():
    goal = CtcGoal(6, name="targeted", vocabulary=("three", "six", "a very long one"))
    ref = goal.output(saying("six", frames=6))
    for seed in range(10):
        assert goal.text(goal.targets(seed, torch.tensor([1]), ref)[0].tolist()) == "three"
    with pytest.raises(AdvgymError, match="no word of the vocabulary"):
        CtcGoal(2, name="targeted").targets(0, torch.tensor([1]), torch.full((1, 2), -1))
    with pytest.raises(AdvgymError, match="two words"):
        CtcGoal(6, name="targeted", vocabulary=("one",)).targets(0, torch.tensor([1]), ref)


def test_parse_and_describe_targets():
    goal = CtcGoal(FRAMES, name="targeted")
    ids = goal.parse_target(" seven  two ")
    assert goal.describe(ids) == '"seven two"'
    assert torch.equal(goal.parse_target(ids), ids) and torch.equal(goal.parse_target(ids.tolist()), ids)
    assert goal.parse_target("").tolist() == [-1] * FRAMES
    for bad, said in (
        ("abc", "no symbol for 'a'"),
        ("three " * 9, "frames"),
        ([0, 3], "symbols are 1 to 16"),
        ([99], "99"),
    ):
        with pytest.raises(AdvgymError, match=said):
            goal.parse_target(bad)
