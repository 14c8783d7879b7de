"""People's own objects as victims and samples: told by duck type, read as they are, refused in words."""

import copy

import datasets
import numpy as np
import pandas
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from torch.utils.data import DataLoader, TensorDataset

import advgym
from advgym import AdvgymError, Victim, make_task
from advgym.core.own.known import known, table, task_of_model
from advgym.core.own.samples import read_samples
from advgym.core.own.victims import ChannelsLast, read_victim

torch.set_num_threads(1)
TABLE = {"good": ["fine", "decent"], "bad": ["dull"]}
ROWS = [("a good film", 0), ("a bad film", 1), ("a fine plot", 0)]
FRAME = pandas.DataFrame(ROWS, columns=["text", "label"])


def score(texts):
    return [[t.count("good") + t.count("fine"), t.count("bad") + 0.5] for t in texts]


def text_task(samples, victim=score):
    return make_task("text/wordswap", victim=victim, samples=samples, candidates=TABLE)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "fine",
             "film", "plot", "decent", "dull"]  # fmt: skip
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                     intermediate_size=16)  # fmt: skip
    return transformers.BertForSequenceClassification(config), transformers.BertTokenizerFast(str(folder / "vocab.txt"))


@pytest.fixture(scope="module")
def digits():
    draw = np.random.default_rng(0)
    x = draw.random((40, 1, 4, 4), dtype=np.float32)
    return x, (x.reshape(40, -1).argmax(1) // 8).astype(np.int64)


# -- data ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "samples",
    [
        FRAME,
        datasets.Dataset.from_pandas(FRAME),
        (FRAME["text"], FRAME["label"]),
        (FRAME["text"].tolist(), FRAME["label"].tolist()),
        (np.array(FRAME["text"]), torch.tensor([0, 1, 0])),
        iter(ROWS),
        FRAME.iloc[::-1].iloc[::-1],
        DataLoader(ROWS, batch_size=2, shuffle=True),
        DataLoader(ROWS, batch_size=2, collate_fn=lambda b: tuple(zip(*b, strict=True))),
    ],
)
def test_texts_of_any_origin_are_the_same_samples(samples):
    made, plain = text_task(samples), text_task(ROWS)
    batch, want = (t.samples("test", [0, 1, 2]) for t in (made, plain))
    null = batch.look(batch.null()).form
    assert batch.inputs(null).strings() == want.inputs(null).strings() == [text for text, _ in ROWS]
    assert batch.labels.tolist() == [0, 1, 0]


def test_images_of_any_origin_are_the_same_samples(digits):
    x, y = digits
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    pairs = TensorDataset(torch.tensor(x), torch.tensor(y))
    frame = pandas.DataFrame({"image": list(x), "label": y})
    many = [list(zip(x, y, strict=True)), (x, y), (list(x), list(y)), pairs, DataLoader(pairs, batch_size=7), frame]
    read = [make_task("image/linf", victim=model, samples=s).samples("test", list(range(40))) for s in many]
    assert all(torch.equal(b.x, read[0].x) and torch.equal(b.labels, read[0].labels) for b in read)


def test_recordings_as_arrays_and_labels():
    waves, labels = np.zeros((3, 800), np.float32), [0, 1, 0]
    waves[:, ::7] = 0.1
    loud = lambda x: torch.stack([x.square().mean(1), torch.ones(len(x))], 1)  # noqa: E731
    one, other = (make_task("speech/keyword", victim=loud, samples=s, eps=0.01)
                  for s in ((waves, labels), list(zip(waves, labels, strict=True))))  # fmt: skip
    assert torch.equal(one.samples("test", [0, 1, 2]).x, other.samples("test", [0, 1, 2]).x)


def test_two_samples_in_a_tuple_stay_two_samples():
    for samples in ((("good", 1), ("bad", 0)), (["good", 1], ["bad", 0]), (("a", "b"), ("c", "d"))):
        assert read_samples(samples) is samples


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (datasets.DatasetDict({"test": datasets.Dataset.from_pandas(FRAME)}), r"data\['test'\]"),
        (datasets.Dataset.from_pandas(FRAME).to_iterable_dataset(), "list.stream.take"),
        (FRAME["text"], "one column"),
        (FRAME.rename(columns={"text": "said"}), "holds the text by its name"),
        (FRAME.rename(columns={"label": "q"}), "holds the label by its name"),
        (FRAME.assign(label=[0, 1, np.nan]), "sample 2.*not nan"),
        (FRAME.assign(text=["a", None, "b"]), "sample 1.*is a text"),
        (FRAME.assign(label=["x", "y", "z"]), "words x, y, z"),
        (FRAME.iloc[:0], "without rows"),
        ((["a", "b"], ["c", "d"]), r"list\(zip\(X, y\)\)"),
        ((["a", "b", "c"], [1, 2]), "3 inputs and 2 labels"),
        (pandas.DataFrame({"input_ids": [[1]], "label": [0]}), "before they were tokenised"),
        (DataLoader(ROWS, shuffle=True, collate_fn=lambda b: b), "shuffle=False"),
        (TensorDataset(torch.zeros(3, 2)), "TensorDataset of one tensor"),
        (LogisticRegression(), "goes in as victim="),
    ],
)
def test_data_that_cannot_be_right_is_refused_in_words(samples, words):
    with pytest.raises(AdvgymError, match=words):
        text_task(samples)


def test_streams_of_torch_are_refused():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(ROWS)

    for samples in (Stream(), DataLoader(Stream())):
        with pytest.raises(AdvgymError, match="islice"):
            text_task(samples)


# -- victims ---------------------------------------------------------------------------------------------------------
def test_a_model_with_its_tokenizer_is_the_model(bert):
    model, tokenizer = bert
    kept, mode = copy.deepcopy(model.config.to_dict()), model.training
    texts = [text for text, _ in ROWS]
    with torch.no_grad():
        model.eval()
        want = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        model.train(mode)
    for victim in (bert, (tokenizer, model)):
        task = text_task(FRAME, victim)
        assert task.victim.access == "gradients" and task.threat.knowledge == "white-box"
        assert torch.allclose(task.victim(texts), want, atol=1e-5)
    assert model.config.to_dict() == kept and model.training == mode
    assert all(p.requires_grad for p in model.parameters())


def test_a_pipeline_is_its_model(bert):
    from transformers import pipeline

    model, tokenizer = bert
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    texts = [text for text, _ in ROWS]
    want = [max(range(2), key=lambda i: row[i]) for row in text_task(FRAME, bert).victim(texts).tolist()]
    assert text_task(FRAME, pipe).victim(texts).argmax(1).tolist() == want
    assert [int(found["label"][-1]) for found in pipe(texts)] == want
    assert task_of_model(pipe) == "text/wordswap"


def test_an_image_model_goes_through_its_processor(digits):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                                    image_size=8, patch_size=4)  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config).eval()
    processor = transformers.ViTImageProcessor(size={"height": 8, "width": 8})
    x = torch.rand(4, 3, 8, 8).mul(255).round() / 255
    task = make_task("image/linf", victim=(model, processor), samples=(x.numpy(), [0, 1, 0, 1]))
    pixels = processor([(i * 255).round().byte().permute(1, 2, 0).numpy() for i in x], return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(task.victim(x), model(**pixels).logits, atol=1e-3)
    with pytest.raises(AdvgymError, match=r"goes with its tokenizer|for image/linf"):
        text_task(FRAME, (model, processor))


def test_an_estimator_of_rows_plays_images(digits):
    x, y = digits
    for estimator in (DecisionTreeClassifier(max_depth=3), LogisticRegression()):
        estimator.fit(x.reshape(40, -1), y)
        task = make_task("image/linf", victim=estimator, samples=(x, y))
        found = task.victim(torch.tensor(x)).argmax(1).numpy()
        assert (found == estimator.predict(x.reshape(40, -1))).all() and task.threat.knowledge == "score"


class Session:
    """As onnxruntime's: one input of a fixed number of rows, channels last."""

    def __init__(self, rows, kind="tensor(float)"):
        self.rows, self.kind, self.asked = rows, kind, []

    def get_inputs(self):
        return [type("Input", (), {"name": "x", "type": self.kind, "shape": [self.rows, 4, 4, 1]})()]

    def run(self, _, given):
        x = given["x"]
        self.asked.append(x.shape)
        return [x.reshape(len(x), -1).argmax(1), x.reshape(len(x), -1)[:, :2]]


Session.__module__, Session.__name__ = "onnxruntime.capi.session", "InferenceSession"


@pytest.mark.parametrize("rows", ["n", 3, 1])
def test_a_session_of_onnxruntime_is_asked_in_its_own_shape(digits, rows):
    x, _ = digits
    session = Session(rows)
    found = read_victim(session, "image/linf")(torch.tensor(x[:7]))
    assert torch.equal(found, torch.tensor(x[:7].reshape(7, -1)[:, :2]))
    assert set(session.asked) == {(7 if rows == "n" else rows, 4, 4, 1)}
    with pytest.raises(AdvgymError, match=r"tensor.int64"):
        read_victim(Session(1, "tensor(int64)"), "image/linf")


class Keras(torch.nn.Module):
    """As a Keras model with the torch backend."""

    name, input_shape = "net", (None, 8, 8, 3)

    def forward(self, x):
        assert x.shape[1:] == (8, 8, 3)
        return x.mean((1, 2))


class Numpy:
    """As a Keras model with another backend."""

    name, input_shape = "net", (None, 8, 8, 3)

    def __call__(self, x, training):
        assert isinstance(x, np.ndarray) and not training
        return x.mean((1, 2))


for _kind in (Keras, Numpy):
    _kind.__module__, _kind.__name__ = "keras.src.models.model", "Model"


def test_a_keras_model_gets_its_channels_last():
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    victim = read_victim(Keras(), "image/linf")
    assert isinstance(victim.model, ChannelsLast) and victim.access == "gradients"
    assert torch.autograd.grad(victim(x).sum(), x)[0].abs().sum() > 0
    other = read_victim(Numpy(), "image/linf")
    assert other.access == "scores" and torch.allclose(other(x.detach()), victim(x.detach()))
    with pytest.raises(AdvgymError, match="prepares them"):
        read_victim(Numpy(), "text/wordswap")


def test_models_that_cannot_be_right_are_refused_in_words(bert):
    import transformers

    model, tokenizer = bert
    masked = transformers.pipeline("fill-mask", model=transformers.BertForMaskedLM(model.config), tokenizer=tokenizer)
    wrong = [
        (tokenizer, "tokenizer alone"), (model, r"victim=\(model, tokenizer\)"), ((model, "x"), "a pair is a model"),
        ((model,), "a pair is a model"), (type(model), "is the class"), (masked, "'fill-mask'"),
        (transformers.BertModel(model.config), "no classifier"), (3, "cannot be called"), (FRAME, "answers nothing"),
    ]  # fmt: skip
    for victim, words in wrong:
        with pytest.raises(AdvgymError, match=words):
            text_task(ROWS, victim)
    with pytest.raises(AdvgymError, match="task='text/wordswap'"):
        make_task("image/linf", victim=bert, samples=[(torch.rand(1, 4, 4), 0)])


def test_an_audit_tells_the_domain_from_the_object(bert):
    from advgym.evaluations.subject import read

    assert read(bert, FRAME).task == "text/wordswap"
    assert read(score, FRAME).task == "text/wordswap"
    assert read(score, datasets.Dataset.from_pandas(FRAME)).task == "text/wordswap"
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    images = datasets.Dataset.from_dict({"image": [np.zeros((4, 4), np.uint8)], "label": [0]}, features=kinds)
    assert read(lambda x: x, images).task == "image/linf"
    assert read(lambda x: x, (np.zeros((2, 1, 4, 4)), np.zeros(2, int))).task == "image/linf"


def test_gymnasium_takes_the_objects_too(bert):
    import gymnasium

    env = gymnasium.make("advgym/text.wordswap-v0", victim=score, samples=FRAME, candidates=TABLE)
    obs, _ = env.reset(seed=0)
    assert obs["queries_left"] > 0
    env.close()


def test_rows_of_the_table_are_whole():
    for row in table().objects:
        assert bool(row.kind) or bool(row.instead), row
    assert known(score) is None and known([]) is None and known(Victim(score)) is None
    assert all(task in advgym.registry.tasks() for task in table().pipelines.values())
    assert all(row.task in advgym.registry.tasks() for row in table().hub)
