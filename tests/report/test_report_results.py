"""A result in a shell, a notebook and a table; as a hub's folder; and who is told of it while it is made."""

import copy
import csv
import json
import logging
import pickle
import sys
from types import ModuleType

import datasets
import msgspec
import pandas
import pytest
import torch

import advgym
from advgym import AdvgymError, Callback, Result
from advgym.report.plot import steps

torch.set_num_threads(1)
TABLE = {"good": ["fine", "decent"], "bad": ["dull"]}


def score(texts):
    return [[t.count("good") + 0.4 * t.count("fine"), t.count("bad") + 0.5] for t in texts]


SAMPLES = [("a good film", 0), ("a bad film", 1), ("a good plot", 0), ("a fine film", 1)]


@pytest.fixture(scope="module")
def result():
    return advgym.attack("text/wordswap", "greedy", victim=score, samples=SAMPLES, candidates=TABLE)


@pytest.fixture(scope="module")
def images():
    return advgym.attack("image/digits-linf", "pgd", episodes=12)


def test_a_line_says_what_was_found(result):
    assert repr(result).startswith("Result(greedy on text/wordswap: success ") and len(repr(result)) < 200
    assert f"{result.success_rate:.1%}" in repr(result)
    page = result._repr_html_()
    assert page.startswith("<div") and "<svg" in page and all(flag[:20] in page for flag in result.flags)
    assert "http" not in page and "<script" not in page


def test_tables_hold_every_sample(result, tmp_path):
    frame = result.to_pandas()
    assert frame["id"].tolist() == [s.id for s in result.samples]
    assert frame["success"].tolist() == [s.success for s in result.samples]
    assert [json.loads(p) for p in frame["perturbation"]] == [s.perturbation for s in result.samples]
    result.to_csv(tmp_path / "r.csv")
    result.to_parquet(tmp_path / "r.parquet")
    assert pandas.read_parquet(tmp_path / "r.parquet").equals(frame)
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["success"] for r in rows] == [str(s.success) for s in result.samples]


def test_a_file_is_read_as_the_same_result(result, tmp_path):
    result.save(tmp_path / "r.json")
    again = Result.load(tmp_path / "r.json")
    assert again == result and b"made" not in msgspec.json.encode(result)
    assert pickle.loads(pickle.dumps(result)) == copy.copy(result) == result
    with pytest.raises(AdvgymError, match="own; pass task="):
        again.examples(1)
    assert repr(again.examples(2, task=result.made)) == repr(result.examples(2))


def test_examples_are_the_tasks_own(result, images):
    found = result.examples(2)
    assert len(found) == 2 and all("(->" in e.line for e in found)
    assert all(e.sample in {s.id for s in result.samples if s.success} for e in found)
    assert "<del" in found._repr_html_() and len(result.examples(0)) == 0
    assert "data:image/png" in images.examples(1)._repr_html_()


def test_the_plot_is_success_against_queries(images):
    x, y = steps(images)
    assert x == sorted(x) and y == sorted(y) and y[-1] == images.success_rate and x[-1] == images.threat["queries"]
    for queries, rate in images.curve:
        assert abs(max(b for a, b in zip(x, y, strict=True) if a <= queries) - rate) < 1e-9
    ax = images.plot(color="k")
    assert ax.get_xlabel() == "queries per sample" and images.plot(ax) is ax and len(ax.lines) == 4
    assert ax.lines[0].get_color() == "k"


# -- hubs ------------------------------------------------------------------------------------------------------------
def test_a_hub_folder_is_a_data_set(result, tmp_path):
    folder = result.to_hub_folder(tmp_path / "texts")
    found = datasets.load_dataset(str(folder), split="test", cache_dir=str(tmp_path / "cache"))
    wins = [s for s in result.samples if s.success]
    assert len(found) == len(wins) and found["sample"][:] == [s.id for s in wins]
    assert [score([t])[0] for t in found["adversarial"]] != [score([t])[0] for t in found["clean"]]
    said = [max(range(2), key=score([t])[0].__getitem__) for t in found["adversarial"]]
    assert said == [s.after for s in wins]
    head, _, body = (folder / "README.md").read_text().removeprefix("---\n").partition("\n---\n")
    yaml = pytest.importorskip("yaml")
    about = yaml.safe_load(head)
    assert about["configs"][0]["data_files"][0]["path"] == "data/test.parquet" and "adversarial" in about["tags"]
    assert all(flag in body for flag in result.flags) and Result.load(folder / "result.json") == result
    with pytest.raises(AdvgymError, match="holds something already"):
        result.to_hub_folder(folder)


def test_images_of_a_hub_folder_are_images(images, tmp_path):
    folder = images.to_hub_folder(tmp_path / "images")
    found = datasets.load_dataset(str(folder), split="test", cache_dir=str(tmp_path / "cache"))
    assert isinstance(found.features["adversarial"], datasets.Image) and found[0]["clean"].size == (8, 8)


# -- callbacks -------------------------------------------------------------------------------------------------------
class Heard(Callback):
    def __init__(self):
        self.said = []

    def on_start(self, run):
        self.said.append(run)

    def on_progress(self, progress):
        self.said.append(progress)

    def on_result(self, result):
        self.said.append(result)


class Broken(Callback):
    def on_progress(self, progress):
        raise ValueError("no connection")


def attack(**more):
    return advgym.attack("image/digits-linf", "noise", episodes=9, lanes=3, queries=5, **more)


def test_callbacks_hear_of_every_batch_and_a_broken_one_costs_nothing(caplog):
    heard, log = Heard(), logging.getLogger("advgym")
    log.addHandler(caplog.handler)
    try:
        found = attack(callbacks=[Broken(), heard])
    finally:
        log.removeHandler(caplog.handler)
    start, *steps, last = heard.said
    assert start.agent == "noise" and start.attacked == found.attacked and start.threat["queries"] == 5
    assert [p.done for p in steps] == [3, 6, found.attacked][: len(steps)] and steps[-1].done == steps[-1].total
    assert steps[-1].queries == sum(s.queries for s in found.samples) and steps[-1].rate == found.success_rate
    assert last is found
    told = "callback Broken failed in on_progress and is left out: ValueError: no connection"
    assert len({id(r) for r in caplog.records if r.getMessage() == told}) == 1
    assert attack(callbacks=heard).samples == attack().samples == found.samples


def test_what_is_no_callback_is_refused():
    for wrong in (Heard, print, [3]):
        with pytest.raises(AdvgymError, match="callbacks= are objects"):
            attack(callbacks=wrong)


@pytest.mark.parametrize("kind", ["TensorBoard", "MLflow", "WandB"])
def test_a_missing_tracker_says_what_to_install(kind, monkeypatch):
    for module in ("torch.utils.tensorboard", "mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(AdvgymError, match="pip install"):
        getattr(advgym, kind)()


class Board:
    """As each tracker's client: keeps what it is told."""

    def __init__(self, *_, **__):
        self.kept, self.summary = [], {}

    def __getattr__(self, name):
        if name == "active_run":
            return lambda: None
        return lambda *a, **k: self.kept.append((name, a, k)) or self


@pytest.mark.parametrize(
    ("kind", "module", "calls"),
    [("TensorBoard", "torch.utils.tensorboard", {"add_scalar", "add_hparams", "close"}),
     ("MLflow", "mlflow", {"start_run", "log_params", "log_metrics", "log_text", "end_run"}),
     ("WandB", "wandb", {"log", "finish"})],
)  # fmt: skip
def test_trackers_are_told_figures_and_progress(kind, module, calls, monkeypatch, tmp_path):
    board, fake = Board(), ModuleType(module)
    fake.SummaryWriter = lambda *_: board
    fake.init, fake.Table = lambda **_: board, Board
    for name in ("start_run", "log_params", "log_metrics", "log_metric", "log_text", "end_run", "active_run"):
        setattr(fake, name, getattr(board, name))
    monkeypatch.setitem(sys.modules, module, fake)
    tracker = advgym.TensorBoard(tmp_path) if kind == "TensorBoard" else getattr(advgym, kind)()
    found = attack(callbacks=tracker)
    assert calls <= {name for name, _, _ in board.kept}
    assert str(found.success_rate) in str(board.kept) + str(board.summary)
