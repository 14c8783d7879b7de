"""Union of threat models and security curves: against hand counts on made results, and played."""

import csv

import pytest
import torch

from advgym import AdvgymError
from advgym.cli.app import main
from advgym.evaluations import grid, union
from advgym.judge import results
from advgym.lib.rates import wilson

torch.set_num_threads(1)
GRID = """
[study]
title = "small"
episodes = 10
clean = 10
union = "task"
[axes]
task = ["image/digits-linf", "image/digits-l2", "image/digits-flow"]
victim = ["digits-cnn", "digits-mlp"]
agent = ["pgd", "fgsm"]
[seen]
digits-mlp = "image/digits-linf"
"""
CURVE = """
[study]
title = "curve"
episodes = 6
clean = 6
curve = "eps"
[axes]
task = "image/digits-linf"
eps = ["1/16", "0.5", "15/16"]
agent = "fgsm"
"""


class Sample:
    def __init__(self, id, success):
        self.id, self.success = id, success


class Result:
    """What the table reads of one."""

    clean_accuracy = 0.9

    def __init__(self, broken, right=range(9), episodes=10):
        self.samples, self.episodes = [Sample(i, i in broken) for i in right], episodes


def study(tmp_path, text=GRID):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return grid.read(path)


def test_a_sample_stands_where_nothing_broke_it(tmp_path):
    found = study(tmp_path)
    broke = {"image/digits-linf": {0, 1}, "image/digits-l2": {1, 2}, "image/digits-flow": set()}
    have = {c.key: Result(broke[c.task] if c.agent == "pgd" else {5}) for c in found.cells}
    cnn, mlp = union.table(found, have)
    assert (cnn["victim"], mlp["victim"]) == ("digits-cnn", "digits-mlp") and cnn["clean"] == 0.9
    for row in (cnn, mlp):
        assert [row[task] for task in broke] == [0.6, 0.6, 0.8] and row["union"] == 0.5
        assert (row["union_low"], row["union_high"]) == wilson(5, 10)
    assert cnn["unseen_mean"] == pytest.approx(2 / 3) and mlp["unseen_mean"] == pytest.approx(0.7)


def test_a_sample_that_one_task_has_wrong_does_not_stand():
    assert union.standing([Result({0}), Result(set(), right=range(8))]) == ({1, 2, 3, 4, 5, 6, 7}, 10)


def test_a_missing_cell_leaves_no_union(tmp_path):
    found = study(tmp_path)
    have = {c.key: Result(set()) for c in found.cells}
    del have[found.cells[0].key]
    row = union.table(found, have)[0]
    assert row["union"] is None and row["image/digits-linf"] == 0.9  # fgsm was played there
    assert union.table(found, {})[0]["unseen_mean"] is None


def test_a_curve_ends_where_nothing_stands(tmp_path):
    found = study(tmp_path, CURVE)
    small, half, large = found.cells
    assert not union.over(found, large, {})
    have = {small.key: Result({0}), half.key: Result(set(range(9)))}
    assert union.over(found, large, have) and not union.over(found, half, have)
    (row,) = union.curves(found, have)
    assert row["points"] == [(1 / 16, 0.8), (0.5, 0.0)] and row["zero"] == 0.5
    assert union.curves(found, {small.key: have[small.key]})[0]["zero"] is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('union = "task"', 'union = "radius"', "unknown axis to have the union over"),
        ('union = "task"', 'curve = "eps"', "unknown axis to draw a curve over"),
        ('union = "task"', 'curve = "victim"', "numbers or fractions"),
        ('union = "task"', "", "name its axis"),
        ("digits-mlp = ", "digits-nlp = ", "did you mean 'digits-mlp'"),
        ('mlp = "image/digits-linf"', 'mlp = "image/digits-l0"', r"unknown task in \[seen\]"),
    ],
)
def test_plain_errors(tmp_path, old, new, words):
    assert old in GRID
    with pytest.raises(AdvgymError, match=words):
        study(tmp_path, GRID.replace(old, new))


def test_a_union_is_played_and_shown(tmp_path):
    small = GRID.replace(', "image/digits-flow"]', "]").replace('["pgd", "fgsm"]', '"fgsm"')
    study(tmp_path, small)
    out = tmp_path / "out"
    assert main(["study", str(tmp_path / "grid.toml"), "--out", str(out)]) == 0
    rows = list(csv.DictReader((out / "union.csv").open()))
    cells = [results.load(p) for p in (out / "cells").glob("*.json") if not p.name.endswith("cell.json")]
    for row in rows:
        for r in cells:
            if r.victim["name"] == row["victim"]:
                assert float(row[r.task]) == pytest.approx(r.robust_accuracy)
                assert float(row["union"]) <= r.robust_accuracy + 1e-9
    text = (out / "study.html").read_text()
    assert "Union over tasks" in text and "unseen mean" in text and (out / "union.tex").is_file()


def test_a_curve_is_played_to_its_end(tmp_path):
    study(tmp_path, CURVE.replace('"fgsm"', '"pgd"').replace('"0.5"', '"12/16"'))
    out = tmp_path / "out"
    assert main(["study", str(tmp_path / "grid.toml"), "--out", str(out)]) == 0
    rows = list(csv.DictReader((out / "curves.csv").open()))
    assert float(rows[-1]["accuracy"]) == 0 and float(rows[-1]["zero"]) == 0.75 and len(rows) == 2  # 15/16 is left out
    assert "nothing stands at 0.75" in (out / "study.html").read_text()
