import pytest
import sacrebleu
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.core.kinds.sequences import UNSEEN, SequenceGoal, margin
from advgym.envs.text.models.writers import END, ENDED, seal
from advgym.errors import AdvgymError
from advgym.lib.bleu import sentence_bleu

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


# -- BLEU, phrases, and where targets come from --------------------------------------------------------------
def tokens_of(seed, n, width, many):
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, many + 1, (n, width), generator=g)
    return torch.where(torch.arange(width) < torch.randint(0, width + 1, (n, 1), generator=g), ids, -1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.integers(1, 6))
def test_sentence_bleu_is_that_of_sacrebleu(seed, width, other, many):
    output, ref = tokens_of(seed, 12, width, many), tokens_of(seed + 1, 12, other, many)
    found = sentence_bleu(output, ref)
    for i in range(len(output)):
        said, wanted = (" ".join(str(t) for t in row if t >= 0) for row in (output[i].tolist(), ref[i].tolist()))
        want = sacrebleu.sentence_bleu(said, [wanted], tokenize="none").score / 100
        assert found[i].item() == pytest.approx(want, abs=1e-9)


def test_the_bleu_goal_is_bound_minus_bleu_and_has_a_slope():
    goal = SequenceGoal(WORDS, T, "bleu", bound=30.0)
    scores, ref = draw(3).requires_grad_(), goal.output(draw(4))
    objective, surrogate = goal.judge(scores, ref, None)
    want = 0.3 - sentence_bleu(goal.output(scores), ref)
    assert torch.allclose(objective, torch.where(ref[:, 0] >= 0, want, -1.0).float())
    slope, none = (torch.autograd.grad(v.sum(), scores, retain_graph=True)[0] for v in (surrogate, objective))
    here = (ref >= 0).unsqueeze(2)
    assert (slope != 0).any() and not (slope * ~here).any() and not none.any()
    # Driving the clean output's likelihood down is driving the surrogate up.
    ahead = scores.detach().scatter_add(2, ref.clamp_min(0).unsqueeze(2), -0.1 * here.float())
    assert (goal.judge(ahead, ref, None)[1] >= surrogate.detach() - 1e-6).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_phrase_objective_is_positive_exactly_when_the_words_stand_together(seed, many):
    goal = SequenceGoal(WORDS, T, "phrase")
    scores, ref = draw(seed), goal.output(draw(seed + 1))
    target = torch.randint(1, 5, (len(scores), many), generator=torch.Generator().manual_seed(seed))
    target = torch.cat([target, target.new_full((len(target), T - many), -1)], 1)
    objective, surrogate = goal.judge(scores, ref, target)
    assert surrogate.isfinite().all()
    for i in range(len(scores)):
        said, want = decode(scores[i]), target[i, :many].tolist()
        held = any(said[s : s + many] == want for s in range(len(said) - many + 1))
        assert (objective[i] > 0) == held


def test_a_phrase_of_one_word_is_a_keyword():
    scores = draw(8)
    target = torch.tensor([[2, -1, -1, -1]]).expand(len(scores), -1)
    ref = torch.full_like(target, -1)
    one = SequenceGoal(WORDS, T, "phrase").judge(scores, ref, target)[0]
    assert torch.equal(one, SequenceGoal(WORDS, T, "keyword").judge(scores, ref, target)[0])


def test_targets_come_from_the_pool_and_are_not_held():
    ref = torch.tensor([[1, 2, -1, -1]] * 40)
    goal = SequenceGoal(WORDS, T, "keyword", pool=torch.tensor([2, 3]))
    assert set(goal.targets(0, torch.arange(40), ref)[:, 0].tolist()) == {3}
    phrases = torch.tensor([[1, 2], [2, 1], [3, -1], [2, -1]])
    phrase = SequenceGoal(WORDS, T, "phrase", phrases=phrases)
    found = phrase.targets(5, torch.arange(40), ref)
    assert {tuple(r) for r in found.tolist()} == {(2, 1, -1, -1), (3, -1, -1, -1)}
    held = SequenceGoal(WORDS, T, "phrase", phrases=phrases[:1]).targets(0, torch.arange(40), ref)
    assert (held == -1).all() and (phrase.judge(draw(1), ref, held)[0] == -1).all()
    for empty in (
        SequenceGoal(WORDS, T, "phrase"),
        SequenceGoal(WORDS, T, "keyword", pool=torch.zeros(0, dtype=torch.int64)),
    ):
        with pytest.raises(AdvgymError, match="name targets"):
            empty.targets(0, torch.arange(40), ref)
    assert phrase.parse_target("city bank").tolist() == [3, 1, -1, -1]
    for wrong in ("", "zebra", "city city city city city"):
        with pytest.raises(AdvgymError, match="a target is a phrase"):
            phrase.parse_target(wrong)


def test_a_translation_is_right_from_a_bleu_on():
    goal = SequenceGoal(WORDS, T, least=50.0)
    scores = torch.zeros(1, T, 5)
    for t, token in enumerate([1, 2, 3, END]):
        scores[0, t, token] = 9.0
    scores = seal(scores)
    assert goal.right(scores, torch.tensor([[1, 2, 3, -1]])) and not goal.right(scores, torch.tensor([[4, 4, 4, 4]]))
    # A word that the victim cannot write never matches, and is not trained on.
    label = torch.tensor([[1, 2, UNSEEN, -1]])
    assert sentence_bleu(goal.output(scores), label) < sentence_bleu(goal.output(scores), goal.output(scores)) == 1
    full = goal.loss(scores, torch.tensor([[1, 2, 3, -1]])).item()
    assert goal.loss(scores, label).item() == pytest.approx(full, abs=1e-6)
    silent = seal(torch.eye(5)[END].expand(1, T, 5).clone())
    assert not SequenceGoal(WORDS, T, least=0.0).right(silent, label)
    for wrong in ({"bound": 0.0}, {"bound": 101.0}):
        with pytest.raises(AdvgymError, match="bleu is a bound"):
            SequenceGoal(WORDS, T, "bleu", **wrong)
    with pytest.raises(AdvgymError, match="unknown goal"):
        SequenceGoal(WORDS, T, "rewrite")
