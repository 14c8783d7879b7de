"""Error rates against jiwer, noise ratios against closed forms."""

import jiwer
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.envs.speech import symbols
from advgym.envs.speech.measures import errors as metrics
from advgym.envs.speech.measures import levels

WIDTH = 24
text = st.text(alphabet=symbols.ALPHABET[:5], max_size=WIDTH).map(symbols.tidy)
pairs = st.lists(st.tuples(text, text.filter(bool)), min_size=1, max_size=6)


def ids(texts: list[str]) -> torch.Tensor:
    return torch.tensor([symbols.encode(t, width=WIDTH) for t in texts])


@settings(max_examples=150, deadline=None)
@given(pairs)
def test_wer_and_cer_are_jiwers(rows):
    hyp, ref = [list(side) for side in zip(*rows, strict=True)]
    wer, cer = metrics.wer(ids(hyp), ids(ref)), metrics.cer(ids(hyp), ids(ref))
    for i, (h, r) in enumerate(rows):
        assert wer[i].item() == pytest.approx(jiwer.wer(r, h))
        assert cer[i].item() == pytest.approx(jiwer.cer(r, h))
    assert metrics.corpus_wer(ids(hyp), ids(ref)) == pytest.approx(jiwer.wer(ref, hyp))


@given(pairs)
@settings(deadline=None)
def test_edit_distance_is_a_metric_on_texts(rows):
    a, b = [ids(list(side)) for side in zip(*rows, strict=True)]
    there, back = metrics.edit_distance(a, b), metrics.edit_distance(b, a)
    assert torch.equal(there, back)
    assert torch.equal(there == 0, (a == b).all(1))
    assert (there <= torch.maximum(metrics.lengths(a), metrics.lengths(b))).all()


def test_a_row_does_not_depend_on_its_neighbours():
    hyp, ref = ["three seven", "", "one", "nine one four"], ["tree", "six six", "one", "five"]
    together = metrics.wer(ids(hyp), ids(ref))
    alone = torch.cat([metrics.wer(ids([h]), ids([r])) for h, r in zip(hyp, ref, strict=True)])
    assert torch.equal(together, alone)


def test_words_hash_alike_wherever_they_stand():
    found = metrics.words(ids(["one two one", "two", "owt"]))
    assert found[0, 0] == found[0, 2] != found[0, 1]
    assert found[1, 0] == found[0, 1] != found[2, 0]
    assert metrics.lengths(found).tolist() == [3, 1, 1]


def test_an_alphabet_without_space_is_one_word():
    assert metrics.lengths(metrics.words(ids(["one two"]), space=0)).tolist() == [1]


def test_snr_is_a_ratio_of_powers_on_the_support():
    x = torch.tensor([[0.5, -0.5, 0.5, 0.25]])
    d = torch.tensor([[0.05, 0.05, -0.05, 0.9]])
    inside = torch.tensor([[True, True, True, False]])
    assert levels.snr_db(x, d, inside).item() == pytest.approx(20.0, abs=1e-4)
    assert levels.snr_db(x, torch.zeros_like(x)).item() == float("inf")
    assert levels.peak_db(x, x / 10).item() == pytest.approx(-20.0, abs=1e-4)
