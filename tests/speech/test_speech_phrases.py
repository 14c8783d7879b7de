"""Phrase, silence and other error rates: what is met, and losses that pull towards it."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym import make_task
from advgym.envs.speech import symbols
from advgym.envs.speech.goals.decode import greedy, phrase_loss
from advgym.envs.speech.goals.transcripts import CtcGoal
from advgym.envs.speech.measures.errors import phrase_distance, wer
from advgym.errors import AdvgymError

torch.set_num_threads(1)


def ids(texts, wide=24):
    return torch.tensor([symbols.encode(t, width=wide) for t in texts])


def test_phrase_distance_is_the_least_over_all_places():
    texts = ["one two six", "two", "twofold", "one six", "", "nine two", "two one"]
    found = phrase_distance(ids(["one two six", "two", "tworest", "one six", "", "nine two", "two one"]),
                            ids(["two"] * len(texts)), 1)  # fmt: skip
    assert [d == 0 for d in found.tolist()] == [True, True, False, False, False, True, True]
    assert phrase_distance(ids(["tworest"]), ids(["two"]), 0).item() == 0, "inside a word where words do not count"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3), max_size=7), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_phrase_distance_is_plain_python(text, phrase):
    def distance(a, b):
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            last, row[0] = row[0], i
            for j, y in enumerate(b, 1):
                last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
        return row[-1]

    pad = lambda v, n: torch.tensor([v + [-1] * (n - len(v))])  # noqa: E731
    want = min(distance(phrase, text[i:j]) for i in range(len(text) + 1) for j in range(i, len(text) + 1))
    assert phrase_distance(pad(text, 8), pad(phrase, 5)).item() == want


def exact(logp, phrase, space):
    """Minus the log of the summed probability of the aligned paths, by enumeration: anything, the phrase, anything."""
    frames, many = logp.shape
    total = 0.0
    for path in itertools.product(range(many), repeat=frames):
        said = greedy(F.one_hot(torch.tensor([path]), many).float(), space)[0]
        said = [s for s in said.tolist() if s >= 0]
        wanted = [space, *phrase, space] if space else phrase
        padded = [space, *said, space] if space else said
        if any(padded[i : i + len(wanted)] == wanted for i in range(len(padded))):
            total += float(logp[torch.arange(frames), list(path)].sum().exp())
    return total


@pytest.mark.parametrize("space", [0, 1])
def test_the_phrase_loss_is_near_the_probability_of_the_phrase(space):
    """The recursion sums over alignments; each text with the phrase has one at least, and few have many."""
    scores = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(3)) * 2
    phrase = [2, 3]
    p = exact(F.log_softmax(scores, 2)[0], phrase, space)
    found = torch.exp(-phrase_loss(scores, torch.tensor([[*phrase, -1]]), space)).item()
    assert p <= found * (1 + 1e-4) and found <= 2.5 * p


def test_losses_pull_towards_what_is_wanted():
    for name, target in (("phrase", ids(["six"], 20)), ("silence", None)):
        goal = CtcGoal(20, name=name)
        ref = ids(["one two"], 20)
        scores = torch.zeros(1, 20, goal.outputs)
        for frame, symbol in enumerate(symbols.encode("one two")):
            scores[0, 2 * frame, symbol] = 3.0
        for _ in range(200):
            scores.requires_grad_()
            objective, surrogate = goal.judge(scores, ref, target)
            if objective > 0:
                break
            (g,) = torch.autograd.grad(surrogate.sum(), scores)
            assert torch.isfinite(g).all()
            scores = (scores + 0.5 * g / g.norm()).detach()
        said = goal.text(goal.output(scores)[0].tolist())
        assert ("six" in said.split()) if name == "phrase" else said == ""
        assert bool(goal.met(goal.output(scores), ref, target))


def test_rows_of_other_lengths_do_not_change_a_loss():
    scores = torch.randn(2, 12, 17, generator=torch.Generator().manual_seed(0))
    both = phrase_loss(scores, ids(["six", "three"], 8))
    torch.testing.assert_close(both[:1], phrase_loss(scores[:1], ids(["six"], 8)))
    assert torch.isfinite(both).all()


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 2.0), st.integers(1, 6), st.integers(0, 8))
def test_any_word_error_rate_can_be_the_bound(bound, words, wrong):
    said = ["one"] * words
    heard = ["two" if i < wrong else "one" for i in range(words)] + ["two"] * max(0, wrong - words)
    goal = CtcGoal(80, wer=bound)
    hyp, ref = ids([" ".join(heard)], 80), ids([" ".join(said)], 80)
    rate = float(wer(hyp, ref))
    assert bool(goal.met(hyp, ref, None)) == (rate >= bound - 1e-6)


def test_half_is_what_it_was():
    goal = CtcGoal(40)
    for words in (1, 2, 3, 4):
        ref = ids([" ".join(["six"] * words)], 40)
        for wrong in range(words + 1):
            hyp = ids([" ".join(["one"] * wrong + ["six"] * (words - wrong))], 40)
            assert goal._objective(hyp, ref, None).item() == pytest.approx(wrong / words - 0.5 + 0.5 / words)


def test_default_phrases_are_words_that_are_not_said():
    goal = CtcGoal(40, name="phrase")
    ref = ids(["one two six", "nine"], 40)
    for seed in range(8):
        found = goal.targets(seed, torch.tensor([4, 9]), ref)
        for target, clean in zip(found.tolist(), ("one two six", "nine"), strict=True):
            assert goal.text(target) in symbols.DIGITS and goal.text(target) not in clean.split()
    with pytest.raises(AdvgymError, match="every word of the vocabulary"):
        CtcGoal(40, name="phrase", vocabulary=("one", "two")).targets(0, torch.tensor([1]), ids(["one two"], 40))
    with pytest.raises(AdvgymError, match="goal='silence'"):
        goal.parse_target("  ")


def test_texts_take_the_case_of_the_alphabet():
    assert symbols.spelled("Two six", " EINOSTWX") == "TWO SIX" and symbols.spelled("Two", symbols.ALPHABET) == "two"
    assert symbols.spelled("Two", " Two") == "Two"
    assert CtcGoal(20, " EINOSTWX", "targeted").parse_target("two").tolist()[:3] == [7, 8, 5]


@pytest.mark.parametrize(("options", "said"), [({"wer": 0}, "word error rate"), ({"decode": "best"}, "decode")])
def test_mistakes_are_explained(options, said):
    with pytest.raises(AdvgymError, match=said):
        make_task("speech/synth-transcribe", **options)


def test_beam_decoding_is_a_row_away():
    task = make_task("speech/synth-transcribe", decode="beam")
    batch = task.samples("test", [0, 1])
    assert task.goal.right(task.victim(batch.x), batch.labels).all()
