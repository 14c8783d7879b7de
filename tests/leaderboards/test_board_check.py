"""`advgym board check` and `advgym new board`: what only shows once tasks are made."""

import pytest
from test_board_load import TEXT

from advgym.cli.app import main
from advgym.leaderboards.rules.board import builtin
from advgym.leaderboards.rules.board_check import check


@pytest.fixture
def problems(tmp_path):
    def call(*changes: tuple[str, str]) -> list[str]:
        text = TEXT
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "own.toml").write_text(text)
        return check(tmp_path / "own.toml")

    return call


def test_a_sound_board_has_none(problems):
    assert problems() == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("image/digits-linf", "image/digits-lnf", "tasks[0]: unknown task 'image/digits-lnf'; did you mean"),
        ("image/digits-linf", "image/linf", "has no data and victim of its own"),
        ('"score"', '"scores"', "unknown knowledge 'scores'; did you mean 'score'"),
        ("queries = 50", 'queries = 50\ngoal = "targetd"', "did you mean 'targeted'"),
        ("queries = 50", "queries = 50\nconstraint = { epz = 1 }", "unknown constraint of image/digits-linf 'epz'"),
        ("queries = 50", 'queries = 50\nconstraint = { eps = "a" }', "eps is a number"),
        ("samples = 8", "samples = 451", "samples is 451, but split 'test' of image/digits-linf has 450"),
        ("split:test", "split:tset", "unknown split of image/digits-linf 'tset'; did you mean 'test'"),
        ("split:test", "path:/no/where", "/no/where is not a folder"),
        ('["noise"]', '["nose"]', "defense.panel: unknown agent 'nose'; did you mean 'noise'"),
        ('["noise"]', '["pgd"]', "no agent of it plays image/digits-linf, which takes field"),
        ('["noise"]', '["greedy"]', "no agent of it plays image/digits-linf, which takes field"),
    ],
)
def test_each_mistake_is_named(problems, old, new, words):
    found = problems((old, new))
    assert any(words in p for p in found), found


def test_generators(problems):
    assert problems(("split:test", "generator")) == []
    found = problems(("split:test", "generator"), ("image/digits-linf", "graph/karate-edge"))
    assert "phases.dev: graph/karate-edge has no generator of samples" in found[0]
    assert "graph/sbm-edge" in found[0]
    found = problems(
        ("split:test", "generator"), ("image/digits-linf", "graph/sbm-edge"), ("samples = 8", "samples = 241")
    )
    assert "240 test nodes" in found[0]


def test_a_file_that_is_not_there():
    assert "unknown board" in check("imgae")[0] and "did you mean 'image'" in check("imgae")[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(builtin()))
def test_the_built_in_boards_are_in_order(name):
    assert check(name) == []


def test_the_commands(tmp_path, capsys):
    path = tmp_path / "boards" / "mine.toml"
    assert main(["new", "board", str(path)]) == 0
    assert main(["board", "check", str(path)]) == 0
    assert "in order" in capsys.readouterr().out
    assert main(["new", "board", str(path)]) == 2  # it is there
    assert main(["new", "board", str(tmp_path / "My Board")]) == 2
    path.write_text(path.read_text().replace("samples", "sampels"))
    assert main(["board", "check", str(path)]) == 1
    assert main(["board", "list", "--boards", str(path.parent)]) == 2  # one that does not load
