import itertools

import numpy as np
import pytest
import torch

from advgym.envs.text.inputs.slots import TextInput, as_text, remap_to
from advgym.envs.text.inputs.vocabulary import Vocabulary, make_lexicon, neighbours, pad_rows
from advgym.errors import AdvgymError

WORDS = Vocabulary(["a", "film", "movie", "fine", "is"])


def given(rows, width=5):
    return TextInput(pad_rows([WORDS.encode(r.split()) for r in rows], width), WORDS)


def test_strings_are_words_joined_by_one_space_and_empty_slots_leave_none():
    x = given(["a film is fine", "", "movie"])
    x.ids[0, 1] = -1
    assert x.strings() == ["a is fine", "", "movie"]
    assert x.take(torch.tensor([2, 0])).strings() == ["movie", "a is fine"]


def test_the_vocabulary_as_bytes():
    data, offsets = WORDS.strings
    assert [data[a:b].decode() for a, b in itertools.pairwise(offsets)] == list(WORDS.words)
    assert offsets.dtype == np.int64


def test_tokens_stand_left_and_unknown_words_get_their_own_id():
    own = Vocabulary(["film", "fine"])
    remap = remap_to(WORDS, own, shift=2, unknown=1, padding=0)
    x = given(["a film is fine", "fine", ""])
    x.ids[0, 0] = -1
    ids, mask = x.tokens(remap)
    assert ids.tolist() == [[2, 1, 3], [3, 0, 0], [0, 0, 0]]
    assert mask.sum(1).tolist() == [3, 1, 0]


def test_embedding_of_mixed_words_is_linear_and_exact_at_the_ends():
    table = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    table[0] = 0
    remap = remap_to(WORDS, WORDS, shift=2, unknown=1, padding=0)
    base, other = given(["a film is"]), given(["a movie is fine"])
    for weight in (0.0, 0.3, 1.0):
        soft = TextInput(base.ids, WORDS, other.ids.unsqueeze(2), torch.full((1, 5, 1), weight))
        e, mask = soft.embed(table, remap)
        plain = {0.0: base, 1.0: other}.get(weight)
        if plain is None:
            # The word that only the other text has fades in from zero.
            assert mask.sum() == 4
            assert torch.allclose(e[0, 1], 0.7 * table[3] + 0.3 * table[4])
            assert torch.allclose(e[0, 3], 0.3 * table[5])
        else:
            want, want_mask = plain.embed(table, remap)
            assert torch.equal(mask, want_mask) and torch.allclose(e, want, atol=1e-6)
    with pytest.raises(AdvgymError, match="relaxed text has none"):
        soft.strings()


def test_strings_go_in_too_and_nothing_else():
    assert as_text(["a film", "odd words here"], WORDS).strings() == ["a film", "odd words here"]
    for wrong in ("a film", 3, [1, 2]):
        with pytest.raises(AdvgymError, match="TextInput or a list of strings"):
            as_text(wrong, WORDS)


def test_replace_merges_words_everywhere():
    table = torch.tensor([0, 1, 1, 3, 4])
    soft = TextInput(
        given(["movie is"]).ids, WORDS, torch.tensor([2, -1, 3, -1, -1]).view(1, 5, 1), torch.ones(1, 5, 1)
    )
    merged = soft.replace(table)
    assert merged.ids[0].tolist() == [1, 4, -1, -1, -1] and merged.swap[0, :, 0].tolist() == [1, -1, 3, -1, -1]


def test_lexicon_statistics_in_closed_form():
    near = neighbours(WORDS, {"film": ["movie", "film", "nowhere", "movie"], "movie": ["film"]}, 3)
    assert near[1].tolist() == [2, -1, -1]
    train = pad_rows([[1, 4], [1, 4], [2, 4], [1, 4]], 2)
    lexicon = make_lexicon(WORDS, near, 2, frozen=["movie"], train=train, labels=torch.tensor([0, 0, 1, 1]))
    assert lexicon.swappable.tolist() == [False, True, False, False, False]
    # counts + 1/2 over totals: class 0 film 2.5 of 6.5, class 1 film 1.5 of 6.5
    assert lexicon.odds[1].item() == pytest.approx(np.log(1.5 / 2.5), abs=1e-6)
    assert lexicon.odds[3] == 0 and lexicon.frequency[4].item() == pytest.approx(np.log(5))
    assert lexicon.related(torch.tensor([1, 2, 1, -1]), torch.tensor([2, 1, 4, -1])).tolist() == [
        True,
        True,
        False,
        False,
    ]
