"""`advgym list`."""

import json

import pytest

from advgym import registry


@pytest.mark.parametrize("what", ["tasks", "agents", "defenses", "victims", "boards", "runtime"])
def test_json_is_alone_on_stdout(advgym, what):
    answer = advgym("list", what, "--json")
    rows = json.loads(answer.out)
    assert answer.code == 0
    assert answer.err == ""
    known = {
        "tasks": registry.tasks,
        "agents": registry.agents,
        "defenses": registry.defenses,
        "victims": registry.victims,
    }
    if what in known:
        assert [row["name"] for row in rows] == list(known[what]())


def test_wildcards(advgym):
    rows = json.loads(advgym("list", "tasks", "image/digits-*", "--json").out)
    assert rows
    assert all(row["name"].startswith("image/digits-") for row in rows)
    answer = advgym("list", "agents", "zz*")
    assert answer.code == 0
    assert "no agents match" in answer.out


def test_tables_name_everything(advgym):
    answer = advgym("list", "agents")
    assert all(name in answer.out for name in registry.agents())
    assert "white-box" in answer.out


def test_unknown_list(advgym):
    answer = advgym("list", "agnets")
    assert answer.code == 2
    assert "did you mean 'agents'" in answer.err


def test_boards_of_a_folder(advgym, monkeypatch, tmp_path):
    assert advgym("new", "board", tmp_path / "own.toml").code == 0
    monkeypatch.setenv("ADVGYM_BOARDS", str(tmp_path))
    rows = {row["name"]: row for row in json.loads(advgym("list", "boards", "--json").out)}
    shipped = {"image", "text", "text-homoglyph", "text-seq2seq", "graph", "graph-global", "speech", "grand"}
    assert shipped | {"own"} == set(rows)
    assert rows["own"]["public-data"] == ["dev"]
    assert rows["grand"]["phases"][0] == "dev 64x1"
    (tmp_path / "own.toml").write_text("title = ")
    answer = advgym("list", "boards")
    assert answer.code == 2
    assert "own.toml" in answer.err


def test_the_runtime_names_what_can_be_imported(advgym):
    rows = {row["name"]: row for row in json.loads(advgym("list", "runtime", "--json").out)}
    assert rows["scikit-learn"]["import"] == "sklearn"
    assert rows["torch"]["version"] == __import__("torch").__version__.split("+")[0]
