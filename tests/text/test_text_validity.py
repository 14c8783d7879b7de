"""Validity: what keeps the meaning scores high, what changes it scores low, and nothing breaks it."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym import AdvgymError
from advgym.envs.text.measures.validity import Relations, calibration, default_relations, score
from advgym.envs.text.measures.validity.changes import CELLS, compare, read_words
from advgym.envs.text.measures.validity.features import NAMES, features
from advgym.envs.text.measures.validity.relations import inflected, slip
from advgym.envs.text.measures.validity.scoring import TABLE

LINE = "a fine film that never loses its sense of humour and keeps you watching until the very end ."
BARE = Relations()
ANY = st.text(st.characters(codec=None), max_size=60)
WORDS = st.lists(st.sampled_from([*LINE.split(), "happy", "19", "f", "ilm", "not"]), max_size=12).map(" ".join)


def kept(adversarial, original=LINE, known=BARE):
    return float(score([original], [adversarial], known)[0])


@settings(max_examples=60, deadline=None)
@given(ANY, ANY)
def test_any_unicode_gets_a_probability(one, other):
    for a, b in ((one, other), (other, one), (one, one)):
        assert 0.0 <= kept(a, b) <= 1.0
    assert kept(one, one) == 1.0 == kept(one.lower(), "  ".join(one.lower().split()))


@settings(max_examples=60, deadline=None)
@given(WORDS, WORDS)
def test_identical_is_the_top_and_empty_is_the_bottom(one, other):
    assert kept(one, one) == 1.0 >= kept(one, other)
    assert kept(one, "") == kept("", one) == (0.0 if one.strip() else 1.0)


@settings(max_examples=60, deadline=None)
@given(WORDS.filter(str.strip), st.integers(0, 99))
def test_a_negation_put_in_never_helps(text, where):
    words = text.split()
    at = where % (len(words) + 1)
    denied = " ".join([*words[:at], "not", *words[at:]])
    assert kept(denied, text) < 0.2


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, len(LINE) - 1), min_size=1, max_size=30))
def test_look_alikes_keep_it_high_wherever_they_stand(places):
    swap = {"a": "а", "e": "е", "i": "і", "o": "ο", "f": "𝒇", "n": "𝖓", "t": "𝐭", "m": "m\u200b", "l": "ⅼ"}
    written = "".join(swap.get(c, c) if i in places else c for i, c in enumerate(LINE))
    assert kept(written) > 0.9


@pytest.mark.parametrize(
    ("adversarial", "low", "high"),
    [
        (LINE.upper(), 1.0, 1.0),
        (LINE.replace("film", "flim"), 0.6, 0.95),
        (LINE.replace("film", "films"), 0.6, 0.95),
        (LINE.replace("film", "fi1m"), 0.9, 1.0),
        (LINE.replace("film", "f ilm"), 0.5, 0.95),
        (LINE.replace(" very", ""), 0.6, 0.95),
        (LINE.replace("fine", "dreadful"), 0.0, 0.2),
        (LINE.replace("never", "always"), 0.0, 0.05),
        (LINE.replace("never ", ""), 0.0, 0.05),
        (LINE.replace("fine", "unfine"), 0.0, 0.05),
        (" ".join(LINE.replace(" ", "")), 0.0, 0.2),
        ("zzz", 0.0, 0.01),
    ],
)
def test_kinds_of_change(adversarial, low, high):
    assert low <= kept(adversarial) <= high


def test_more_changes_are_worse():
    words = LINE.split()
    for put in ("zebra", "", "ti me"):
        found = [kept(" ".join([put] * k + words[k:]) if put else " ".join(words[k:])) for k in range(7)]
        assert found[0] == 1.0 and found == sorted(found, reverse=True)


def test_one_change_weighs_less_in_a_long_text():
    assert kept("awful " + " ".join(["word"] * 200), "fine " + " ".join(["word"] * 200)) > kept(
        "awful film", "fine film"
    )


def test_tables_of_words_make_synonyms_mild_and_antonyms_hard():
    table = Relations({"fine": ["good", "bad"]}, apart=lambda a, b: {a, b} != {"fine", "bad"}, sources=("own",))
    good, bad = LINE.replace("fine", "good"), LINE.replace("fine", "bad")
    assert kept(good, known=table) > 0.6 > 0.2 > kept(good)
    assert kept(bad, known=table) < kept(bad) < 0.2
    assert table.antonyms("happy", "unhappy") and not table.antonyms("film", "movie")


def test_a_slip_that_is_another_word_is_no_slip():
    table = Relations({"fine": ["good"], "find": ["seek"]})
    line = LINE.replace("fine", "find")
    assert kept(line, known=table) < 0.2 < kept(line)


def test_forms_and_slips():
    assert inflected("watch", "watching") and inflected("story", "stories") and not inflected("be", "beds")
    assert slip("movie", "mvoie") and slip("movie", "movi") and slip("movie", "moviee") and slip("movie", "mowie")
    assert not slip("movie", "move on") and not slip("1986", "2986") and not slip("cat", "car")


def test_changes_by_kind():
    found = compare("the film isn't good , really", "thе f ilm is good really bad")
    assert found.swaps == [("not", ""), ("", "bad")] and found.torn == 1 and found.odd == 1 and found.words == 7
    assert read_words("") == ([], []) == read_words("?!")


def test_a_sail_is_no_snail_but_l_is_1_in_disguise():
    assert compare("they fail here", "they fall here").swaps == [("fail", "fall")]
    assert compare("they fail here", "they fаⅰl here").swaps == []
    assert compare("in 2001", "in 2𝟎0l").swaps == []
    assert compare("a film here", "a fiλm here").swaps == [] != compare("a film here", "a fλrm here").swaps


def test_long_texts_are_compared_as_bags():
    many = int(CELLS**0.5) + 10
    old, new = " ".join(f"a{i}x" for i in range(many)), " ".join(f"b{i}y" for i in range(many))
    found = compare(old, new)
    assert len(found.swaps) == many and kept(new, old) < 0.01


def test_the_table_is_complete_and_was_made_for_this_code():
    table = calibration()
    raw = json.loads(TABLE.read_text())
    assert tuple(table["features"]) == NAMES and len(table["coefficients"]) == len(NAMES) == len(raw["means"])
    signs = dict(zip(NAMES, table["coefficients"], strict=True))
    assert all(signs[n] < 0 for n in ("hard", "mild", "torn", "negated")) and signs["length"] > 0
    assert signs["hard"] < signs["mild"]
    assert table["cross_validation"]["auc"] > table["baseline"]["auc"] + 0.2


@pytest.mark.parametrize(
    ("originals", "adversarials", "words"),
    [("text", ["text"], "originals"), (["a"], "a", "adversarials"), (["a"], [3], "strings"), (["a"], [], "no pairs")],
)
def test_what_is_no_pair_is_refused(originals, adversarials, words):
    with pytest.raises(AdvgymError, match=words):
        score(originals, adversarials)
    assert score([], []).shape == (0,)


@pytest.mark.realdata
def test_judgements_are_told_apart_as_the_table_says(data_dir):
    """The figures of the committed table follow from the data, and the score beats the character score by far."""
    from sklearn.metrics import roc_auc_score

    with (data_dir / "text" / "validity" / "pairs-dev.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    old, new = [r["original"] for r in rows], [r["adversarial"] for r in rows]
    truth = np.array([float(r["label"]) == 0 for r in rows])
    p = score(old, new)
    found = calibration()["cross_validation"]
    assert roc_auc_score(truth, p) == pytest.approx(found["auc"], abs=0.02)
    assert np.mean((p - truth) ** 2) == pytest.approx(found["brier"], abs=0.01)
    ordinary = np.array([all(c.isascii() for c in set(b) - set(a)) for a, b in zip(old, new, strict=True)])
    assert roc_auc_score(truth[ordinary], p[ordinary]) == pytest.approx(found["auc_plain"], abs=0.04)
    x = features(old, new, default_relations())
    assert x.mean(0) == pytest.approx(calibration()["means"], abs=1e-6)
    assert np.array_equal(p, score(old, new))


@pytest.mark.realdata
def test_real_tables_guard_against_antonyms(data_dir):
    known = default_relations()
    assert {"counter-fitted", "wordnet", "wordnet-antonyms"} <= set(known.sources)
    assert known.antonyms("good", "bad") and known.synonyms("film", "movie")
    movie, bad = (kept(LINE.replace(*swap), known=known) for swap in (("film", "movie"), ("fine film", "bad film")))
    assert movie > 0.6 and bad < 0.1
