"""Columns: measured of final perturbations, stored, summarised, shown and verified; nothing of it reaches an agent."""

import json
import math

import msgspec
import pytest
import toy

from advgym import AdvgymError, attack, make, verify
from advgym.core.columns import Columns, Meter
from advgym.judge import figures, results
from advgym.judge.columns import barred, summarise
from advgym.judge.results import Sample
from advgym.lib import rates


def size(batch, form):
    """How many cells are changed, and the share of them."""
    many = (form[..., 0] >= 0).sum(1).double()
    return {"cells": many.tolist(), "share": (many / form.shape[1]).tolist()}


def measured(bar=0.4, about=None, compute=size, **threat):
    task = toy.task("edits", **threat)
    task.columns = Columns(
        compute, about=lambda: about or {"cells": "1"}, bars={"share": bar},
        models={"named": lambda name: lambda batch, form: {"named": [float(len(name))] * len(form)}},
    )  # fmt: skip
    return task


@pytest.fixture(scope="module")
def result():
    return attack(measured(), "random-search", episodes=20, lanes=7, measures={"named": "abc"})


def test_rows_carry_the_columns_of_what_is_stored(result):
    for s in result.samples:
        many = len(s.perturbation["edits"])
        assert s.columns == {"cells": many, "share": pytest.approx(many / 3), "named": 3.0}


def test_the_summary_follows_from_the_rows(result):
    won = [s for s in result.samples if s.success]
    assert won and set(result.columns) == {"cells", "share", "named"}
    cells, share = result.columns["cells"], result.columns["share"]
    assert cells.mean == pytest.approx(sum(s.columns["cells"] for s in result.samples) / len(result.samples))
    assert cells.mean_success == pytest.approx(sum(s.columns["cells"] for s in won) / len(won))
    assert cells.bar is None and cells.success_rate is None
    good = sum(s.columns["share"] >= 0.4 for s in won)
    assert share.bar == 0.4 and share.success_rate == pytest.approx(good / result.attacked)
    assert share.success_ci == rates.wilson(good, result.attacked) and share.success_rate <= result.success_rate
    assert [name for name, _ in barred(result)] == ["share"]
    assert result.columns_about == {"cells": "1", "named": "abc"}


def test_the_bar_is_included():
    rows = attack(measured(bar=1 / 3), "random-search", episodes=20, lanes=20)
    assert rows.columns["share"].success_rate == rows.success_rate > 0


def test_no_observation_has_them():
    env = make(measured(), 2)
    obs, info = env.reset(seed=0)
    assert not {"cells", "share", "named"} & (set(obs) | set(info) | set(env.context))


def test_it_is_saved_loaded_and_verified(result, tmp_path):
    results.save(result, tmp_path / "r.json")
    again = results.load(tmp_path / "r.json")
    assert again == result and verify(again, task=measured()) == []


@pytest.mark.parametrize("what", ["value", "missing", "extra", "summary", "bar", "about", "dropped"])
def test_a_changed_column_is_found(result, what):
    r = msgspec.json.decode(msgspec.json.encode(result), type=results.Result)
    if what == "value":
        r.samples[0].columns["cells"] += 1
    elif what == "missing":
        del r.samples[1].columns["share"]
    elif what == "extra":
        r.samples[1].columns["bonus"] = 1.0
    elif what == "summary":
        r.columns["cells"].mean += 0.1
    elif what == "bar":
        r.columns["share"].bar = 0.1
    elif what == "about":
        r.columns_about["cells"] = "2"
    else:
        r.columns = {}
    assert verify(r, task=measured())


def test_a_file_without_the_later_blocks_loads_and_is_true(result, tmp_path):
    path = tmp_path / "old.json"
    results.save(attack(toy.task("field"), "noise", episodes=6, lanes=6), path)
    table = json.loads(path.read_text())
    for key in ("queries_distinct_mean", "queries_distinct_median", "success_at", "success_area", "columns",
                "columns_about"):  # fmt: skip
        del table[key]
    for sample in table["samples"]:
        del sample["columns"]
    path.write_text(json.dumps(table))
    old = results.load(path)
    assert old.columns == {} and old.success_area is None and old.samples[0].columns == {}
    assert verify(old, task=toy.task("field")) == []


def test_resuming_measures_with_the_same_models_only(tmp_path):
    out = tmp_path / "r.json"

    def stop(done, total, wins):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attack(measured(), "random-search", episodes=12, lanes=4, out=out, progress=stop)
    other = attack(measured(), "random-search", episodes=12, lanes=4, out=out, measures={"named": "x"})
    assert all(s.columns["named"] == 1.0 for s in other.samples)


def test_bad_columns_are_named():
    with pytest.raises(AdvgymError, match=r"unknown measure 'nmaed'.*named"):
        attack(measured(), "noise", episodes=2, measures={"nmaed": "x"})
    with pytest.raises(AdvgymError, match="unknown measure"):
        Meter(toy.task("edits"), {"named": "x"})
    for bad in (lambda b, f: {"cells": [1.0]}, lambda b, f: {"cells": [math.nan] * len(f)}):
        with pytest.raises(AdvgymError, match=r"'cells'.*finite"):
            attack(measured(compute=bad), "noise", episodes=9, lanes=9)


def test_a_task_without_columns_has_none():
    r = attack(toy.task("field"), "noise", episodes=4, lanes=4)
    assert not Meter(toy.task("field")) and r.columns == {} == r.samples[0].columns and summarise([], None) == {}


def row(first, success=True):
    return Sample(
        id=0, label=0, before=0, after=1, success=success, valid=True, objective=1.0, queries=30, queries_distinct=20,
        first_success=first, gradients=0, distance=1.0, reason="", perturbation=None,
    )  # fmt: skip


def test_success_at_the_customary_queries():
    rows = [row(1), row(25), row(26), row(100), row(-1, False)]
    assert figures.success_at(rows, 100) == [(25, 0.4), (50, 0.6), (100, 0.8)]
    assert figures.success_at(rows, 24) == [] and figures.success_at([], 100)[0] == (25, 0.0)


def test_the_area_is_the_mean_of_the_curve():
    rows = [row(1), row(3), row(10), row(-1, False)]
    curve = [sum(r.success and r.first_success <= q for r in rows) / len(rows) for q in range(1, 11)]
    assert figures.success_area(rows, 10) == pytest.approx(sum(curve) / 10)
    assert figures.success_area([], 10) == 0.0 and figures.success_area([row(1)], 10) == 1.0


def test_later_summary_figures_are_checked():
    r = attack(toy.task("field", queries=30), "random-search", episodes=12, lanes=12)
    assert r.success_at and r.queries_distinct_mean is not None
    for key, value in (("queries_distinct_mean", 1.5), ("success_area", 0.99), ("success_at", [(25, 0.123)])):
        wrong = msgspec.structs.replace(r, **{key: value})
        assert any(key in line for line in verify(wrong, task=toy.task("field", queries=30)))
