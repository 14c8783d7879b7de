"""Families: rows of a tasks.toml that stand for several."""

from itertools import product

import pytest

import advgym
from advgym import DataError, registry
from advgym.lib.rows import expanded

ZOO = ("sage", "gin", "gat", "appnp", "mlp", "rgcn", "gnnguard", "rung", "jaccard", "svd", "soft-median", "pro-gnn")
SETS = ("karate", "sbm", "cora")
TABLE = """
[victims."{dataset}-{model}"]
make = "m:f"
title = "{model} on {dataset}"
each = { dataset = ["cora", "citeseer"], model = ["sage", "gin"] }

[victims.cora-gin]
make = "m:other"

[tasks."t-{dataset}"]
make = "m:task"
victim = "{dataset}-gin"
queries = 7
constraint = { edits = 3 }
each = { dataset = ["cora", "citeseer"] }
"""


@pytest.fixture
def clean(monkeypatch):
    """A registry without what this test adds, and no new ids."""
    for name in ("_tasks", "_victims"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    monkeypatch.setattr(advgym.ids, "register_id", lambda name, threshold=None: None)


def test_a_row_names_what_it_is_made_for(clean, tmp_path):
    """Every choice is a row, texts are filled in, and what is written out wins."""
    (tmp_path / "tasks.toml").write_text(TABLE)
    advgym.add_rows(tmp_path / "tasks.toml", "mine")
    assert registry.victim_row("citeseer-sage")[1] == {
        "make": "m:f", "title": "sage on citeseer", "dataset": "citeseer", "model": "sage",
    }  # fmt: skip
    assert registry.victim_row("cora-sage")[1]["title"] == "sage on cora"
    assert registry.victim_row("citeseer-gin")[1]["make"] == "m:f"
    assert registry.victim_row("cora-gin")[1] == {"make": "m:other"}
    assert registry.task_row("mine/t-citeseer")[1] == {
        "make": "m:task", "victim": "citeseer-gin", "queries": 7, "constraint": {"edits": 3}, "dataset": "citeseer",
    }  # fmt: skip
    assert not any("{" in name for name in {**registry.victims(), **registry.tasks()})


def test_a_row_that_is_written_out_wins_wherever_it_stands():
    family, plain = {"make": "m:f", "each": {"n": [1, 2]}}, {"make": "m:g"}
    for table in ({"x{n}": family, "x1": plain}, {"x1": plain, "x{n}": family}):
        assert expanded(table, "row") == {"x1": plain, "x2": {"make": "m:f", "n": 2}}


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"{a}-{b}": {"each": {"a": ["x"]}}}, r"row '\{a\}-\{b\}': \{b\} in .* has no value; each gives a"),
        ({"{a}": {"title": "of {c}", "each": {"a": ["x"]}}}, r"row '\{a\}': \{c\} in 'of \{c\}' has no value"),
        ({"{a}-gcn": {"make": "m:f"}}, r"row '\{a\}-gcn': \{a\} .* the row has no each"),
        ({"{a}": {"each": {"a": ["x", "y"], "b": ["z", "w"]}}}, r"row '\{a\}': its rows would share a name; put \{b\}"),
        ({"{a}": {"each": {"a": ["x", "x"]}}}, r"row '\{a\}': a row 'x' is made twice, here and by '\{a\}'"),
        ({"{a}-y": {"each": {"a": ["x"]}}, "x-{b}": {"each": {"b": ["y"]}}}, r"row 'x-\{b\}': .*'x-y'.* by '\{a\}-y'"),
        ({"{a}": {"a": "y", "each": {"a": ["x"]}}}, r"row '\{a\}': 'a' is given twice"),
        ({"{a}": {"each": {"a": []}}}, r"row '\{a\}': each gives lists"),
        ({"{a}": {"each": {"a": "xy"}}}, r"row '\{a\}': each gives lists"),
        ({"{a}": {"each": {"a": [["x"]]}}}, r"row '\{a\}': each gives lists"),
        ({"{a}": {"each": ["a"]}}, r"row '\{a\}': each gives lists"),
        ({"plain": {"each": {}}}, r"row 'plain': each gives lists"),
        ({"plain": 3}, r"row 'plain' is 3; a row is a table"),
    ],
)
def test_a_family_that_cannot_be_is_refused_by_name(table, match):
    with pytest.raises(DataError, match=match):
        expanded(table, "row")


def test_an_error_names_the_file(tmp_path):
    (tmp_path / "tasks.toml").write_text('[victims."{model}"]\nmake = "m:f"\n')
    with pytest.raises(DataError, match=r"tasks\.toml: victim '\{model\}'"):
        advgym.add_rows(tmp_path / "tasks.toml", "mine")


def test_the_graph_victims_that_ship():
    """Models on datasets: none is lost and none is new."""
    here = "advgym.envs.graph"
    rows = {name: row for name, row in registry._built_in().victims.items() if row["make"].startswith(here)}
    assert len(rows) == 86
    for dataset, model in product(SETS, ZOO):
        row = rows[f"{dataset}-{model}"]
        assert row["make"].endswith("zoo:zoo_victim") and (row["dataset"], row["model"]) == (dataset, model)
    for dataset in SETS:
        assert rows[f"{dataset}-gcn-robust"]["adversarial"] is True
        assert rows[f"{dataset}-gcn"]["make"].endswith("recipes:node_victim") and "model" not in rows[f"{dataset}-gcn"]
        assert rows[f"{dataset}-unrolled-first"]["exact"] is False
    anew = {name.partition("-retrained-")[::2] for name in rows if "-retrained-" in name}
    always, by_features = {"sgc", "sage", "gat", "appnp", "rgcn", "gnnguard"}, {"mlp", "svd", "jaccard"}
    assert anew == {*product(SETS, always), *product(("sbm", "cora"), by_features)}
