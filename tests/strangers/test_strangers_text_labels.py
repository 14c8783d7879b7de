"""Labels of data and classes of victims meet by name, or it is an error that names both sides."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import advgym
from advgym.core.task import make_task
from advgym.core.victim import Victim
from advgym.envs.text.inputs.slots import TextInput
from advgym.errors import DataError, VictimError

sys.path.insert(0, str(Path(__file__).parents[1] / "text"))
import tiny_hub

GROUPS = {"fine": ["good"], "awful": ["terrible"], "dull": ["boring"]}
WORDS = {"neg": "awful", "neutral": "plain", "pos": "fine"}
TEXTS = [(f"a {WORDS[name]} film {i}", name) for i in range(4) for name in WORDS]
ORDER = list(WORDS)


def fitted(values, texts=TEXTS, model=LogisticRegression):
    return make_pipeline(CountVectorizer(), model()).fit([t for t, _ in texts], values)


def task_of(victim, samples=None, **options):
    return make_task("text/wordswap", victim=victim, samples=samples, candidates=GROUPS, antonyms=False, **options)


def accuracy(task, split="test"):
    batch = task.samples(split, list(range(task.sizes[split])))
    with torch.no_grad():
        scores = task.victim(batch.inputs(batch.null()))
    assert scores.dtype == torch.float32
    return float(task.goal.right(scores, batch.labels).float().mean())


def put(folder, rows, name="a.csv"):
    path = folder / name
    path.write_text("text,label\n" + "".join(f"{t},{y}\n" for t, y in rows))
    return str(path)


# -- scikit-learn -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model", [LogisticRegression, LinearSVC])
@pytest.mark.parametrize(
    "numbering",
    [
        {"neg": "neg", "neutral": "neutral", "pos": "pos"},
        {"neg": "z bad", "neutral": "so so", "pos": "a good"},  # an order of its own
        {"neg": 1, "neutral": 2, "pos": 3},
        {"neg": 30, "neutral": 10, "pos": 20},
        {"neg": "1", "neutral": "2", "pos": "3"},
        {"neg": np.int64(4), "neutral": np.int64(5), "pos": np.int64(6)},
    ],
)
@pytest.mark.parametrize("some", [ORDER, ["neutral", "pos"]])  # a class that the data lack moves nothing
def test_classes_of_scikit_learn(numbering, some, model, tmp_path):
    pipeline = fitted([numbering[y] for _, y in TEXTS], model=model)
    rows = [(t, numbering[y]) for t, y in TEXTS if y in some]
    method = "predict_proba" if model is LogisticRegression else "decision_function"
    path = put(tmp_path, rows)
    for victim in (pipeline, getattr(pipeline, method), Victim(pipeline.predict, access="labels")):
        assert accuracy(task_of(victim, rows)) == 1.0
        assert accuracy(task_of(victim, dataset=path)) == 1.0
    result = advgym.attack("text/wordswap", "greedy", victim=pipeline, dataset=path, candidates=GROUPS, antonyms=False)
    assert result.clean_accuracy == 1.0


def test_scikit_learn_and_others_words_are_told_apart(tmp_path):
    words = fitted([y for _, y in TEXTS])
    with pytest.raises(DataError, match=r"numbers 0, 1, 2, and the classes of victim 'own' are the words neg, neutral"):
        task_of(words, [(t, ORDER.index(y)) for t, y in TEXTS])
    with pytest.raises(DataError, match=r"words bad, good, .*the classes of victim 'own' are neg, neutral, pos"):
        task_of(words, dataset=put(tmp_path, [("a film", "good"), ("no film", "bad")]))
    numbers = fitted([ORDER.index(y) + 1 for _, y in TEXTS])
    with pytest.raises(DataError, match=r"a\.csv, line 3: labels are whole numbers 1 to 3, not '0'.*are 1, 2, 3"):
        task_of(numbers, dataset=put(tmp_path, [("a film", 1), ("no film", 0)]))
    with pytest.raises(DataError, match=r"words neg, pos.*numbers will do"):
        task_of(numbers, [("a film", "pos"), ("no film", "neg")])


# -- the hub -------------------------------------------------------------------------------------------------------
def hub_model(folder, id2label):
    """A tiny classifier whose answer to the texts below is known by asking it."""
    import transformers

    tiny_hub.bert(folder, classes=len(id2label))
    config = transformers.AutoConfig.from_pretrained(folder)
    config.id2label = dict(enumerate(id2label))
    config.label2id = {n: i for i, n in enumerate(id2label)}
    config.save_pretrained(folder)
    return f"transformers:{folder}"


def said_by(victim, names):
    """Texts with the names that the model itself gives them."""
    words = [w for w in " ".join(tiny_hub.LINES[:7]).split() if w != ","]
    texts = [" ".join(words[i : i + n]) for i in range(len(words)) for n in (1, 2, 5)]
    module = advgym.core.task.load_victim(victim)
    return [(t, names[i]) for t, i in zip(texts, module(texts).argmax(1).tolist(), strict=True)]


@pytest.mark.parametrize(
    "names", [["POSITIVE", "NEGATIVE", "NEUTRAL"], ["neg", "neu", "pos"], ["3 stars", "1 star", "2 stars"]]
)
def test_names_of_a_hub_model(names, tmp_path):
    import datasets

    victim = hub_model(tmp_path / "hub", names)
    rows = said_by(victim, names)
    assert len({y for _, y in rows}) > 1
    for spell in (str, str.lower, lambda n: n[:3].lower() if n[0].isalpha() else n[0]):
        said = [(t, spell(y)) for t, y in rows]
        assert accuracy(task_of(victim, said)) == 1.0
        assert accuracy(task_of(victim, dataset=put(tmp_path, said))) == 1.0
    if names[0][0].isalpha():  # id2label numbers the names itself
        assert accuracy(task_of(victim, [(t, names.index(y)) for t, y in rows])) == 1.0
    # A data set numbers its own names in its own order.
    order = sorted(names)
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=order)})
    made = datasets.Dataset.from_dict(
        {"text": [t for t, _ in rows], "label": [order.index(y) for _, y in rows]}, features
    )
    made.save_to_disk(tmp_path / "disk")
    assert accuracy(task_of(victim, dataset=str(tmp_path / "disk"))) == 1.0
    assert accuracy(task_of(victim, made)) == 1.0
    with pytest.raises(DataError, match=f"words bad, good.*are {names[0]}, {names[1]}"):
        task_of(victim, [("a film", "good"), ("no film", "bad")])


def test_a_hub_model_without_names_takes_numbers_alone(tmp_path):
    victim = hub_model(tmp_path, ["LABEL_0", "LABEL_1"])
    assert accuracy(task_of(victim, said_by(victim, [0, 1]))) == 1.0
    with pytest.raises(DataError, match=r"words neg, pos, and the classes of victim .* are LABEL_0, LABEL_1"):
        task_of(victim, [("a film", "pos"), ("no film", "neg")])


# -- callables -----------------------------------------------------------------------------------------------------
def by_word(texts):
    return [[float("awful" in t), float("plain" in t) + 0.25, float("fine" in t)] for t in texts]


KINDS = {
    "int": int, "float": float, "numpy": np.int64, "numpy float": np.float32, "torch": torch.tensor, "text": str,
    "array": lambda i: np.array([i]), "torch float": lambda i: torch.tensor(float(i)),
    "bytes": lambda i: str(i).encode(),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_every_type(kind):
    assert accuracy(task_of(by_word, [(t, KINDS[kind](ORDER.index(y))) for t, y in TEXTS])) == 1.0


def test_bools_and_arrays_of_samples():
    two = [(t, y == "pos") for t, y in TEXTS if y != "neutral"]
    for make in (bool, np.bool_, torch.tensor):
        assert accuracy(task_of(lambda t: [[float("awful" in x) + 0.5, float("fine" in x)] for x in t],
                                [(t, make(y)) for t, y in two])) == 1.0  # fmt: skip
    labels = Victim(lambda texts: np.array(["fine" in t for t in texts]), access="labels")
    assert accuracy(task_of(labels, two)) == 1.0


def test_class_words_need_names():
    with pytest.raises(DataError, match=r"words neg, neutral, pos, and the scores of victim 'own' have no names"):
        task_of(by_word, TEXTS)
    named = Victim(by_word, card={"classes": ["neg", "neutral", "pos"]})
    assert accuracy(task_of(named, TEXTS)) == 1.0
    turned = Victim(lambda t: [row[::-1] for row in by_word(t)], card={"classes": ["pos", "neutral", "neg"]})
    assert accuracy(task_of(turned, TEXTS)) == 1.0
    said = Victim(lambda texts: [next(y for y, w in WORDS.items() if w in t) for t in texts], access="labels")
    assert accuracy(task_of(said, TEXTS)) == 1.0
    with pytest.raises(VictimError, match=r"words neg, neutral, .*samples' labels, neg, pos.*name all"):
        accuracy(task_of(said, [(TEXTS[1][0], "pos"), TEXTS[0]]))


@pytest.mark.parametrize("label", [5, -1, 1.5, None, "many", float("nan"), [1], "", np.array([1, 2])])
def test_every_sample_is_looked_at(label):
    samples = [("a film", 0)] * 40 + [("a film", label)]
    with pytest.raises(DataError, match="sample 40: labels are"):
        task_of(by_word, samples)


# -- answers -------------------------------------------------------------------------------------------------------
def answers():
    from transformers.modeling_outputs import SequenceClassifierOutput

    t = lambda texts: torch.tensor(by_word(texts))  # noqa: E731
    return {
        "output": lambda x: SequenceClassifierOutput(logits=t(x)),
        "output with a loss": lambda x: SequenceClassifierOutput(loss=torch.tensor(1.0), logits=t(x)),
        "dict": lambda x: {"logits": t(x)},
        "tuple": lambda x: (t(x), torch.zeros(len(x), 2, 4)),
        "loss and logits": lambda x: (torch.tensor(0.5), t(x)),
        "numpy": lambda x: t(x).numpy(),
        "float64": lambda x: t(x).double(),
        "numpy float64": lambda x: t(x).double().numpy(),
        "bfloat16": lambda x: t(x).bfloat16(),
        "float16": lambda x: t(x).half().numpy(),
        "ints": lambda x: (4 * t(x)).long(),
        "list of tensors": lambda x: list(t(x)),
        "list of arrays": lambda x: list(t(x).numpy()),
        "tuples of floats": lambda x: tuple(map(tuple, t(x).tolist())),
        "requires grad": lambda x: t(x).requires_grad_(),
    }


@pytest.mark.parametrize("kind", answers())
def test_what_a_victim_may_answer(kind):
    samples = [(t, ORDER.index(y)) for t, y in TEXTS]
    assert accuracy(task_of(answers()[kind], samples)) == 1.0
    result = advgym.attack("text/wordswap", "greedy", victim=answers()[kind], samples=samples, candidates=GROUPS,
                           antonyms=False)  # fmt: skip
    plain = advgym.attack("text/wordswap", "greedy", victim=by_word, samples=samples, candidates=GROUPS, antonyms=False)
    assert result.success_rate == plain.success_rate > 0 and not any("crashed" in f for f in result.flags)


class Module(torch.nn.Module):
    """Reads the words themselves; answers as transformers' models do."""

    def __init__(self, wrap):
        super().__init__()
        self.embedding, self.wrap = torch.nn.Embedding(2, 3), wrap

    def forward(self, x: TextInput):
        known = [1 if "fine" in w else 0 for w in x.vocabulary.words]
        vectors, mask = x.embed(self.embedding.weight, torch.tensor([*known, 0]))
        return self.wrap((vectors * mask.unsqueeze(2)).sum(1))


@pytest.mark.parametrize(
    "wrap", [lambda s: (s,), lambda s: {"logits": s}, lambda s: s.double(), lambda s: s.bfloat16()]
)
def test_modules_may_answer_so_too(wrap):
    task = task_of(Module(wrap), [(t, ORDER.index(y)) for t, y in TEXTS])
    assert task.threat.knowledge == "white-box"
    accuracy(task)
    result = advgym.attack(task, "first-order", episodes=4)
    assert result.attacked == 0 or result.gradients_mean > 0


@pytest.mark.parametrize(
    "answer",
    [None, "yes", [["a", "b"]], [[1.0, 2.0], [3.0]], {"label": "POS"}, [{"label": "POS"}], [1j, 2j], [[0.3]], 0.3],
)
def test_other_answers_say_what_is_wanted(answer):
    with pytest.raises(VictimError, match=r"victim.*(want|at least 2)"):
        task_of(lambda texts: answer, [("a film", 0)])
