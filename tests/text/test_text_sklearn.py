import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from advgym.core.task import load_victim, make_task
from advgym.core.victim import Victim
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.inputs.vocabulary import Vocabulary
from advgym.envs.text.victims.pipelines import TfIdf, from_sklearn
from advgym.errors import VictimError

WORDS = ["a", "film", "fine", "awful", "dull", "good", "plot", "movie"]
TRAIN = ["a fine film", "awful plot awful film", "a good movie a good plot", "dull dull dull", "fine good", "awful"]
LABELS = [1, 0, 1, 0, 1, 0]
SAMPLES = [("a fine film", 1), ("dull and awful", 0), ("a good plot", 1), ("", 0)]
GROUPS = {"fine": ["good", "awful"], "awful": ["fine"], "dull": ["good"], "film": ["movie"]}


@pytest.fixture(scope="module")
def pipeline():
    return make_pipeline(TfidfVectorizer(token_pattern=r"\S+"), LogisticRegression(C=4.0)).fit(TRAIN, LABELS)


def module_of(pipeline):
    vectors, model = pipeline[0], pipeline[1]
    made = TfIdf(Vocabulary(vectors.get_feature_names_out()))
    with torch.no_grad():
        made.idf.copy_(torch.from_numpy(vectors.idf_))
        made.weight[:, 1].copy_(torch.from_numpy(model.coef_[0]))
        made.bias[1] = float(model.intercept_[0])
    return made.requires_grad_(False)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from([*WORDS, "Fine", "zebra"]), max_size=12), min_size=1, max_size=6))
def test_word_counts_give_what_scikit_learn_gives(texts):
    pipeline = make_pipeline(TfidfVectorizer(token_pattern=r"\S+"), LogisticRegression(C=4.0)).fit(TRAIN, LABELS)
    said = [" ".join(t) for t in texts]
    scores = module_of(pipeline)(said)
    want = pipeline.decision_function(said)
    assert np.allclose((scores[:, 1] - scores[:, 0]).numpy(), want, atol=1e-5)


def test_relaxed_counts_meet_the_plain_scores_and_have_their_slope(pipeline):
    task = make_task("text/wordswap", victim=Victim(module_of(pipeline)), samples=SAMPLES, candidates=GROUPS, edits=2)
    assert task.threat.knowledge == "white-box"
    b = task.samples("test", [0, 1, 2, 3])
    form = b.look(b.random(4)).form
    ones = torch.ones(form.shape[:2])
    hard, plain = task.victim(b.inputs(form)), task.victim(b.inputs(b.null()))
    assert torch.allclose(task.victim(b.relaxed(form, ones)), hard, atol=1e-5)
    assert torch.allclose(task.victim(b.relaxed(form, 0 * ones)), plain, atol=1e-5)
    weight = (0.3 * ones).double().requires_grad_()
    model = module_of(pipeline).double()
    assert torch.autograd.gradcheck(lambda w: model(b.relaxed(form, w)), (weight,))
    x, leaves = b.leaves(b.null())
    gain = torch.autograd.grad(task.victim(x)[:, 0].sum(), leaves)[0]
    assert b.rank_by(b.null(), [gain], 1)[0][0, 0, 0] >= 0


def test_pipelines_go_in_as_they_are(pipeline):
    words = make_pipeline(CountVectorizer(), LinearSVC()).fit(TRAIN, LABELS)
    three = make_pipeline(CountVectorizer(), LinearSVC()).fit([*TRAIN, "plot plot"], [*LABELS, 2])
    texts = [t for t, _ in SAMPLES]
    for model in (pipeline, words, three):
        task = make_task("text/wordswap", victim=model, samples=SAMPLES, candidates=GROUPS)
        assert task.threat.knowledge == "score"
        b = task.samples("test", [0, 1, 2, 3])
        scores = task.victim(b.inputs(b.null()))
        assert scores.argmax(1).tolist() == model.predict(texts).tolist()
    assert np.allclose(from_sklearn(pipeline)(texts).exp().numpy(), pipeline.predict_proba(texts), atol=1e-6)
    assert from_sklearn(three)(texts).shape == (4, 3)
    assert from_sklearn(make_pipeline(CountVectorizer(), RidgeClassifier()).fit(TRAIN, LABELS))(texts).shape == (4, 2)
    with pytest.raises(VictimError, match=r"neither predict_proba nor decision_function.*access=.labels."):
        from_sklearn(CountVectorizer())


def test_an_empty_text_and_unknown_words_are_the_intercept(pipeline):
    model = module_of(pipeline)
    found = model(TextInput(torch.tensor([[-1, -1], [0, -1]]), Vocabulary(["zebra"])))
    assert torch.allclose(found, model.bias.expand(2, -1)) and torch.allclose(model([""]), found[:1])


@pytest.mark.realdata
def test_the_movie_review_victim_reaches_its_mark(data_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    from advgym.core.task import _load_victim

    card = _load_victim("mr-tfidf", {}).card
    assert card["clean_accuracy"] >= 0.76 and card["train_seconds"] < 60
    task = make_task("text/mr-wordswap", victim="mr-tfidf")
    assert task.threat.knowledge == "white-box" and load_victim("mr-tfidf") is task.victim
