"""What is told from a model and data alone, and what is asked for by name."""

import json

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from advgym import AdvgymError
from advgym.evaluations.subject import read


@pytest.mark.parametrize(
    ("model", "task"),
    [("digits-cnn", "image/digits-linf"), ("synth-bag", "text/synth-wordswap"), ("karate-gcn", "graph/karate-edge"),
     ("synth-keyword-cnn", "speech/synth-keyword"), ("digits-mlp", "image/digits-linf")],
)  # fmt: skip
def test_a_registered_victim_brings_its_task(model, task):
    assert read(model).task == task


@pytest.mark.parametrize(
    ("architecture", "kind", "task"),
    [("BertForSequenceClassification", "bert", "text/wordswap"), ("ViTForImageClassification", "vit", "image/linf"),
     ("Wav2Vec2ForCTC", "wav2vec2", "speech/transcribe"),
     ("HubertForSequenceClassification", "hubert", "speech/keyword"),
     ("ASTForAudioClassification", "audio-spectrogram-transformer", "speech/keyword")],
)  # fmt: skip
def test_a_checkpoint_says_what_it_is_for(tmp_path, architecture, kind, task):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture], "model_type": kind}))
    assert read(f"transformers:{tmp_path}", "somewhere.xyz").task == task


@pytest.mark.parametrize(
    ("data", "task"),
    [([("fine words here", 1)], "text/wordswap"), ([(np.zeros((3, 8, 8)), 0)], "image/linf"),
     ([(np.zeros(800), 0)], "speech/keyword"), ([(np.zeros(800), "one two")], "speech/transcribe")],
)  # fmt: skip
def test_samples_tell(data, task):
    assert read(lambda x: x, data).task == task


def test_files_tell(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nfine,1\n")
    assert read(lambda x: x, str(tmp_path / "a.csv")).task == "text/wordswap"
    (tmp_path / "b.csv").write_text("path,label\na.wav,1\n")
    assert read(lambda x: x, str(tmp_path / "b.csv")).task == "speech/keyword"
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "one.png").write_bytes(b"")
    assert read(lambda x: x, str(tmp_path / "c")).task == "image/linf"


def test_a_text_pipeline_is_one():
    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(["good film", "bad film"], [1, 0])
    assert read(model, "reviews.parquet").task == "text/wordswap"


def test_message_passing_is_for_graphs():
    from torch_geometric.nn import GCNConv

    assert read(torch.nn.ModuleList([GCNConv(4, 2)]), "somewhere.bin").task == "graph/edge"


@pytest.mark.parametrize(
    ("model", "data", "more", "words"),
    [
        ("no-such-model", "mnist", {}, "module:object"),
        ("os:no_such", "mnist", {}, "has no 'no_such'"),
        ("no_such_module_at_all:x", "mnist", {}, "cannot import"),
        (torch.nn.Linear(2, 2), None, {}, "nothing to attack"),
        (torch.nn.Linear(2, 2), "/no/such/file", {}, "neither a registered data set nor a file"),
        (torch.nn.Linear(2, 2), [(np.zeros((2, 2, 2, 2)), 0)], {}, "domain cannot be told"),
        ("digits-cnn", None, {"domain": "smell"}, "unknown domain"),
        ("digits-cnn", "digits", {"task": "image/no-such"}, "unknown task"),
    ],
)  # fmt: skip
def test_plain_errors(model, data, more, words):
    with pytest.raises(AdvgymError, match=words):
        read(model, data, **more)
