"""Constraints on substitutes and on whole texts."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import advgym
from advgym.core.task import make_task
from advgym.envs.text.constraints import read_rules
from advgym.envs.text.constraints.edit_distance import levenshtein
from advgym.envs.text.constraints.perplexity import Perplexity
from advgym.envs.text.constraints.similarity import Similarity
from advgym.errors import AdvgymError, DataError
from advgym.leaderboards.boundary import mirror

sys.path.insert(0, str(Path(__file__).parent))
import tiny_language

SAMPLES = [("the film was really good", 1), ("a dull plot of the film", 0), ("", 0), ("dull", 0)]
GROUPS = {"film": ["movie", "plot"], "good": ["fine", "awful"], "dull": ["boring", "nice"], "plot": ["story"]}


def victim(texts):
    return [[("dull" in t) * 1.0, 0.5] for t in texts]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_language.encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    return tiny_language.causal(tmp_path_factory.mktemp("causal"))


def own(**options):
    return make_task("text/wordswap", victim=victim, samples=SAMPLES, candidates=GROUPS, share=1.0, **options)


def offered(task, lane, site):
    b = task.samples("test", [lane])
    words = b.lexicon.vocabulary.words
    return [words[b.payloads[0, site, c]] for c in b.mask()[0, site].nonzero().squeeze(1).tolist()]


# -- substitutes -----------------------------------------------------------------------------------------------------
def naive(a, b):
    if not a or not b:
        return len(a) + len(b)
    return min(naive(a[1:], b) + 1, naive(a, b[1:]) + 1, naive(a[1:], b[1:]) + (a[0] != b[0]))


@given(st.text("abc", max_size=5), st.text("abc", max_size=5), st.integers(0, 5))
def test_edit_distance(one, other, most):
    want = naive(one, other)
    assert levenshtein(one, other) == want
    assert (levenshtein(one, other, most) <= most) == (want <= most)


def test_an_edit_distance_prunes_the_table():
    assert offered(own(edit_distance=0, antonyms=False), 0, 1) == ["movie", "plot"]
    assert offered(own(edit_distance=4, antonyms=False), 0, 1) == ["plot"]
    assert offered(own(edit_distance=2, antonyms=False), 0, 1) == []


def test_antonyms_of_ones_own(monkeypatch):
    monkeypatch.delenv("ADVGYM_DATA", raising=False)
    monkeypatch.delenv("NLTK_DATA", raising=False)
    assert offered(own(), 0, 4) == ["fine", "awful"]  # "auto", and no WordNet: nobody to ask
    assert offered(own(antonyms={"awful": ["good"]}), 0, 4) == ["fine"]  # either way round
    with pytest.raises(DataError, match=r"antonyms=true needs WordNet.*under \$ADVGYM_DATA"):
        own(antonyms=True)
    with pytest.raises(DataError, match="pos=true needs WordNet"):
        own(pos=True)


@pytest.mark.realdata
def test_wordnet_guards_by_default(data_dir):
    groups = {"good": ["bad", "fine"], "alive": ["dead"], "films": ["movies", "hate"], "quickly": ["quick", "slowly"]}
    text = [("good films alive quickly Good, films", 1)]
    task = make_task("text/wordswap", victim=victim, samples=text, candidates=groups)
    assert [offered(task, 0, i) for i in range(6)] == [
        ["fine"], ["movies", "hate"], [], ["quick"], ["Fine,"], ["movies", "hate"],
    ]  # fmt: skip
    task = make_task("text/wordswap", victim=victim, samples=text, candidates=groups, pos=True)
    assert offered(task, 0, 1) == ["movies", "hate"] and offered(task, 0, 3) == ["quick"]  # both are of either part
    rules = read_rules({"pos": True, "antonyms": False})
    assert rules.keep("film", ["awful", "movie", "xyzzy"]) == ["movie", "xyzzy"]


def test_stop_words_are_no_sites(tmp_path):
    file = tmp_path / "stop.txt"
    file.write_text("film\nof\n")
    table = {**GROUPS, "the": ["a"]}
    for value, want in ((True, [[], ["movie", "plot"]]), (False, [["a"], ["movie", "plot"]]), (["film"], [["a"], []]),
                        (str(file), [["a"], []])):  # fmt: skip
        task = make_task(
            "text/wordswap", victim=victim, samples=SAMPLES, candidates=table, stopwords=value, antonyms=False
        )
        assert [offered(task, 0, site) for site in (0, 1)] == want
    with pytest.raises(AdvgymError, match="stopwords"):
        own(stopwords=3)
    with pytest.raises(AdvgymError, match="No such file"):
        own(stopwords="/nowhere/list.txt")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"edit_distance": -1}, "edit_distance is a whole number"),
        ({"edit_distance": 1.5}, "edit_distance is a whole number"),
        ({"pos": "yes"}, "pos is true or false"),
        ({"antonyms": 3}, "antonyms is 'auto'"),
        ({"similarity": "/no/model"}, "cannot load '/no/model'"),
        ({"perplexity": "/no/model"}, "cannot load '/no/model'"),
        ({"candidates": "vocabulary", "pos": True}, "cannot look through"),
        ({"candidates": "vocabulary", "slots": 2}, "set slots=0"),
    ],
)
def test_plain_errors(options, says):
    given = {"victim": victim, "samples": SAMPLES, "candidates": GROUPS, **options}
    with pytest.raises(AdvgymError, match=says):
        make_task("text/wordswap", **given)


# -- whole texts -----------------------------------------------------------------------------------------------------
def test_similarity_is_the_cosine_of_mean_pooled_states(encoder):
    import transformers

    law = Similarity(encoder, 0.5)
    texts, clean = ["the film was good", "a dull plot , really", ""], ["the movie was good", "", ""]
    tokens, model = transformers.AutoTokenizer.from_pretrained(encoder), transformers.AutoModel.from_pretrained(encoder)

    def vector(text):
        return model(**tokens(text, return_tensors="pt")).last_hidden_state[0].mean(0)

    want = [torch.cosine_similarity(vector(a), vector(b), 0).item() for a, b in zip(texts, clean, strict=True)]
    assert law.cosine(texts, clean).tolist() == pytest.approx(want, abs=1e-5) and want[2] == pytest.approx(1, abs=1e-5)
    assert law.allow(texts, clean) == [w >= 0.5 for w in want]
    long = law.cosine(["film " * 500], ["film"])  # longer than the model reads
    assert long.isfinite().all()


def test_perplexity_is_a_ratio(causal):
    import transformers

    law = Perplexity(causal, 1.5)
    tokens, model = (
        transformers.AutoTokenizer.from_pretrained(causal),
        transformers.AutoModelForCausalLM.from_pretrained(causal),
    )

    def loss(text):
        ids = torch.tensor([[2, *tokens(text, add_special_tokens=False)["input_ids"]]])
        return model(input_ids=ids, labels=ids).loss.item()

    texts, clean = ["the film was good", "a plot"], ["the movie was good", "really a dull plot"]
    want = [torch.tensor(loss(a) - loss(b)).exp().item() for a, b in zip(texts, clean, strict=True)]
    assert law.ratio(texts, clean).tolist() == pytest.approx(want, rel=1e-4)
    assert law.ratio(["", "film " * 500], ["", "film"]).isfinite().all() and law.allow([""], [""]) == [True]


@pytest.mark.parametrize("which", ["similarity", "perplexity"])
def test_whole_texts_are_judged_where_a_perturbation_is(encoder, causal, which):
    name = encoder if which == "similarity" else causal
    law = Similarity(name, 0.0) if which == "similarity" else Perplexity(name, 1.0)
    plain = own(antonyms=False)
    b = plain.samples("test", [0, 1])
    p = b.null()
    p[:, 0] = torch.tensor([[1, 0], [1, 0]])
    texts, clean = b.inputs(b.look(p).form).strings(), b.inputs(b.null()).strings()
    value = (law.cosine if which == "similarity" else law.ratio)(texts, clean)
    bound = float(value.mean())  # between the two
    options = {"similarity_min": bound} if which == "similarity" else {"perplexity_max": bound}
    task = own(antonyms=False, **{which: name}, **options)
    b = task.samples("test", [0, 1, 2, 3])
    four = b.null()
    four[:2, 0] = torch.tensor([[1, 0], [1, 0]])
    look = b.look(four)
    want = value >= bound if which == "similarity" else value <= bound
    assert look.real.all() and look.valid.tolist() == [*want.tolist(), True, True] and sum(want.tolist()) == 1
    for seed in range(3):
        assert b.check(b.random(seed)).all() and b.check(b.project(four)).all()
    four[0, 1] = torch.tensor([4, b.probe])  # a probe is answered, and no model is asked about it
    assert not b.look(four).valid[0] and b.look(four).real[0]
    twin = mirror.unpack(mirror.pack(b))
    assert torch.equal(twin.look(four).valid, b.look(four).valid)
    result = advgym.attack(task, "greedy", episodes=4, lanes=4)
    assert result.invalid_rate == 0 and advgym.verify(result, task=task) == []
