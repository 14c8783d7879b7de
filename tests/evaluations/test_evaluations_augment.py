"""Perturbed and adversarial versions of a data set: valid, repeatable, over nothing; and training on them."""

import csv
import json

import numpy as np
import pandas
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import advgym
from advgym import AdvgymError
from advgym.cli.app import main

torch.set_num_threads(1)
TABLE = {"good": ["fine", "decent"], "bad": ["dull", "slow"], "film": ["movie"], "plot": ["story"]}
ROWS = [("a good film", "pos"), ("a bad film with a good plot", "neg"), ("a good plot", "pos"), ("so it is", "neg")]


def augment(data=None, **more):
    return advgym.augment(data if data is not None else ROWS, **{"candidates": TABLE, "per_sample": 3, **more})


def test_versions_of_texts_lie_within_the_fraction_and_are_repeatable():
    found = augment(fraction=0.3)
    texts = {i: text for i, (text, _) in enumerate(ROWS)}
    assert [r["text"] for r in found.rows if r["kind"] == "original"] == list(texts.values())
    for row in (r for r in found.rows if r["kind"] == "random"):
        old, new = texts[row["sample"]].split(), row["text"].split()
        moved = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
        assert 1 <= len(moved) <= max(1, int(0.3 * len(old))) and all(b in TABLE[a] for a, b in moved)
        assert row["label"] == ROWS[row["sample"]][1]
    assert len({(r["sample"], r["text"]) for r in found.rows}) == len(found)  # no version twice
    assert found.rows == augment(fraction=0.3, lanes=1).rows != augment(fraction=0.3, seed=1).rows
    assert [r for r in found.rows if r["nth"]] == augment(fraction=0.3, keep=False).rows
    assert found.inputs[0] == "a good film" and found.labels[0] == "pos" and "random" in repr(found)
    assert {r["sample"] for r in augment(most=2).rows} == {0, 1}


def test_an_agent_fools_the_victim_it_is_given():
    score = lambda texts: [[0.5 + t.count("bad"), t.count("good")] for t in texts]  # noqa: E731
    samples = [(text, int(label == "pos")) for text, label in ROWS]
    found = augment(samples, agent="greedy", victim=score, wins=True, keep=False)
    assert found.rows and all(r["success"] and r["kind"] == "adversarial" for r in found.rows)
    for row in found.rows:
        said = score([row["text"]])[0]
        assert int(said[1] > said[0]) != row["label"] == samples[row["sample"]][1]


def test_images_lie_within_the_ball():
    found = advgym.augment(task="image/digits-linf", most=6, per_sample=2)
    clean = {r["sample"]: r["image"] for r in found.rows if r["nth"] == 0}
    assert len(found) == 18 and all(np.abs(r["image"] - clean[r["sample"]]).max() <= 2 / 16 + 1e-6 for r in found.rows)
    train = advgym.make_task("image/digits-linf").samples("train", [0, 1])
    assert np.array_equal(clean[1], train.x[1].numpy()) and found.labels[0] == int(train.labels[0])


@pytest.mark.parametrize("end", ["csv", "jsonl", "parquet"])
def test_tables_are_read_as_samples_again(tmp_path, end):
    found, path = augment(), tmp_path / f"more.{end}"
    found.write(path)
    again = advgym.augment(str(path), task="text/wordswap", candidates=TABLE, keep=True)
    assert [(r["text"], r["label"]) for r in again.rows if r["nth"] == 0] == list(
        zip(found.inputs, found.labels, strict=True)
    )
    if end == "jsonl":
        assert json.loads(path.read_text().splitlines()[0])["kind"] == "original"
    with pytest.raises(AdvgymError, match="nothing is written over"):
        found.write(path)


def test_pictures_and_recordings_are_read_again(tmp_path):
    pytest.importorskip("PIL")
    found = advgym.augment(task="image/digits-linf", most=4, split="test")
    found.write(tmp_path / "png")
    found.write(tmp_path / "more.npz")
    held = np.load(tmp_path / "more.npz", allow_pickle=False)
    assert np.array_equal(held["x"], np.stack(found.inputs)) and held["y"].tolist() == found.labels
    with (tmp_path / "png" / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["path"].split("/")[0] for r in rows] == [str(v) for v in found.labels]
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    task = advgym.make_task("image/linf", victim=model, samples=tmp_path / "png")
    assert task.sizes["test"] == len(found)
    sound = advgym.augment(task="speech/synth-keyword", most=2, split="test")
    sound.write(tmp_path / "wav")
    loud = lambda x: torch.zeros(len(x), 10)  # noqa: E731
    assert advgym.make_task("speech/keyword", victim=loud, dataset=str(tmp_path / "wav"), eps=0.01).sizes["test"] == 4
    with pytest.raises(AdvgymError, match="holds no image"):
        found.write(tmp_path / "more.csv")
    with pytest.raises(AdvgymError, match="texts are written as"):
        augment().write(tmp_path / "folder")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": "graph/karate-edge"}, "one whole that many samples share"),
        ({"task": "image/digits-universal", "most": 2}, "bundles"),
        ({"task": "image/digits-linf", "fraction": 0.1}, "fraction= is of words"),
        ({"data": ROWS, "agent": "greedy"}, "pass victim="),
        ({"data": ROWS, "fraction": 1.5}, "at most 1"),
        ({"data": ROWS, "per_sample": 0}, "at least 1"),
        ({"data": ROWS, "agent": "no-such"}, "unknown agent"),
    ],
)
def test_what_cannot_be_is_refused_in_words(given, words):
    with pytest.raises(AdvgymError, match=words):
        advgym.augment(**given)


def test_training_on_them_fits_originals_and_every_round():
    seen = []

    def fit(texts, labels):
        seen.append((list(texts), list(labels)))
        return make_pipeline(CountVectorizer(token_pattern=r"\S+"), LogisticRegression()).fit(texts, labels)

    data = pandas.DataFrame(ROWS[:3] * 2, columns=["text", "label"])
    model, added = advgym.harden(fit, data, agent="greedy", rounds=2, task="text/wordswap", candidates=TABLE)
    assert len(seen) == 3 and seen[0] == (data["text"].tolist(), data["label"].tolist())
    for before, after, more in zip(seen, seen[1:], added, strict=False):
        assert after[0] == before[0] + more.inputs and after[1] == before[1] + more.labels
    assert set(model.predict(["a good film"])) <= {"pos", "neg"} and len(added[0]) > 0


def test_the_command(tmp_path, capsys):
    (tmp_path / "r.csv").write_text("text,label\na good film,1\na dull film,0\n")
    told = ["augment", str(tmp_path / "r.csv"), "--fraction", "0.4", "--out"]
    assert main([*told, str(tmp_path / "a.csv")]) == 0
    assert main([*told, str(tmp_path / "a.csv")]) == 2 and "nothing is written over" in capsys.readouterr().err
    with (tmp_path / "a.csv").open(newline="") as file:
        assert next(csv.reader(file))[:2] == ["text", "label"]
    assert main(["augment", str(tmp_path / "r.csv")]) == 2
    assert main(["augment", "--task", "image/digits-linf", "--agent", "pgd", "--most", "2", "--set", "steps=3",
                 "--out", str(tmp_path / "d.npz")]) == 0  # fmt: skip
