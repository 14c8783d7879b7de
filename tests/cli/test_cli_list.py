"""`advgym list`."""

import json

import pytest

from advgym import registry


@pytest.mark.parametrize("what", ["tasks", "agents", "defenses", "victims", "boards"])
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


def test_no_boards(advgym, monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "HOME", tmp_path)
    assert "no boards yet" in advgym("list", "boards").out
    assert advgym("list", "boards", "--json").out.strip() == "[]"
    folder = tmp_path / "leaderboards" / "boards"
    folder.mkdir(parents=True)
    (folder / "one.toml").write_text('title = "A board"\ntasks = ["a/b"]\n')
    assert json.loads(advgym("list", "boards", "--json").out) == [{"name": "one", "title": "A board", "tasks": ["a/b"]}]
    (folder / "one.toml").write_text("title = ")
    answer = advgym("list", "boards")
    assert answer.code == 2
    assert "one.toml" in answer.err
