"""Boards as data: what loads, what is refused and in which words, what the hash covers."""

import datetime as dt
import tomllib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advgym.errors import AdvgymError
from advgym.leaderboards.rules import board, board_tables
from advgym.leaderboards.rules.board_values import shape_problems, value_problems

TEXT = """
title = "A board"
opens = 2026-01-01T00:00:00Z
closes = 2027-01-01T00:00:00Z
[[tasks]]
id = "image/digits-linf"
knowledge = "score"
queries = 50
[phases.dev]
samples = 8
source = "split:test"
[defense]
panel = ["noise"]
"""
RAW = tomllib.loads(TEXT)


@pytest.fixture
def write(tmp_path):
    def call(text: str, name: str = "own"):
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return path

    return call


def test_the_built_in_boards_load():
    found = board.builtin()
    assert set(found) == {
        "image", "text", "text-homoglyph", "text-seq2seq", "graph", "graph-global", "speech", "grand",
    }  # fmt: skip
    for name in found:
        one = board.load(name)
        assert one.name == name
        assert board.public_data(one, "dev")
        assert name == "graph-global" or not board.public_data(one, "test")  # its tasks have no generator
    assert {row.id.split("/")[0] for row in board.load("grand").tasks} == {"image", "text", "graph", "speech"}


def test_names_are_found_in_a_folder_and_by_path(write, monkeypatch):
    path = write(TEXT)
    assert board.load(path) == board.load("own", path.parent)
    monkeypatch.setenv("ADVGYM_BOARDS", str(path.parent))
    assert board.load("own").title == "A board"
    assert "image" in board.known()
    with pytest.raises(AdvgymError, match="did you mean 'own'"):
        board.load("owm")
    with pytest.raises(AdvgymError, match="no board file"):
        board.load("nowhere/own.toml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('title = "A board"', "", ["title is missing"]),
        ("queries = 50", 'queries = "50"', ["tasks[0].queries is a whole number, not '50'"]),
        ("queries = 50", "queries = 0", ["tasks[0].queries is from 1"]),
        ("queries = 50", "querys = 50", ["tasks[0].querys", "did you mean 'queries'", "tasks[0].queries is missing"]),
        ("queries = 50", "queries = 50\ngradients = 3", ["'score' knowledge has none"]),
        ('knowledge = "score"', 'knowledge = "white-box"', ["tasks[0].gradients is from 1"]),
        ("samples = 8", "samples = 0", ["phases.dev.samples is from 1"]),
        ("samples = 8", "samples = 8\nseeds = 1.5", ["phases.dev.seeds is a whole number"]),
        ("split:test", "splitt:test", ["phases.dev.source is 'splitt:test'", "generator"]),
        ("split:test", "split:", ["phases.dev.source"]),
        ("[phases.dev]", "[phases.devv]", ["unknown 'devv'; did you mean 'dev'"]),
        ("opens = 2026-01-01T00:00:00Z", "opens = 2028-01-01T00:00:00Z", ["is not before closes"]),
        ("opens = 2026-01-01T00:00:00Z", "opens = 2026-01-01T00:00:00", ["opens needs its offset"]),
        ("opens = 2026-01-01T00:00:00Z", "opens = 2026-01-01", ["opens is a date and time such as"]),
        ('panel = ["noise"]', "panel = []", ["defense.panel is empty"]),
        ('panel = ["noise"]', "floor = nan", ["defense.floor is a share", "defense.panel is empty"]),
        ('panel = ["noise"]', 'panel = ["noise"]\ndevice = "gpu"', ["defense.device: unknown 'gpu'", "cpu, cuda"]),
        ('panel = ["noise"]', 'panel = ["noise"]\n[limits]\ncpu_s = inf', ["limits.cpu_s is from 1"]),
        ('panel = ["noise"]', 'panel = ["noise"]\n[limitz]\ncpu_s = 1', ["limitz", "did you mean 'limits'"]),
        ('title = "A board"', 'title = "A\\u001bboard"', ["title is at most"]),
        ('title = "A board"', 'title = "A board"\ntracks = ["atack"]', ["unknown 'atack'; did you mean 'attack'"]),
        ('title = "A board"', 'title = "A board"\nname = "../up"', ["a-z, 0-9 and -"]),
        ("[phases.dev]", '[[tasks]]\nid = "image/digits-linf"\nknowledge = "score"\nqueries = 1\n[phases.dev]',
         ["is there twice"]),
    ],
)  # fmt: skip
def test_each_mistake_is_named(write, old, new, words):
    assert old in TEXT
    with pytest.raises(AdvgymError) as caught:
        board.load(write(TEXT.replace(old, new)))
    for word in words:
        assert word in str(caught.value)


def test_every_mistake_is_named_at_once(write):
    text = (
        TEXT.replace("queries = 50", "querys = 50").replace("samples = 8", 'samples = "many"').replace("title", "titel")
    )
    with pytest.raises(AdvgymError) as caught:
        board.load(write(text))
    assert len(str(caught.value).splitlines()) == 1 + 5


@pytest.mark.parametrize("text", ["title = ", "\x00", "a = [" * 2000])
def test_what_is_no_toml(write, text):
    with pytest.raises((AdvgymError, RecursionError)) as caught:
        board.load(write(text))
    assert isinstance(caught.value, AdvgymError)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(["title", "opens", "tasks", "phases", "tracks", "limits", "quota", "defense", "shards", "x"]),
    json_like,
)
def test_any_value_is_accepted_or_named(key, value):
    raw = {**RAW, key: value}
    problems = shape_problems(raw, board_tables.Board, "")
    if not problems:
        problems = value_problems(msgspec.convert(raw, board_tables.Board))
        if not problems:
            assert board.board_hash(msgspec.convert(raw, board_tables.Board))
    assert all(isinstance(p, str) and p for p in problems)


def test_the_hash_covers_what_scores_depend_on(write):
    one = board.load(write(TEXT))
    assert board.board_hash(one) == board.board_hash(board.load(write(TEXT)))
    later = msgspec.structs.replace(one, title="Another", closes=dt.datetime(2029, 1, 1, tzinfo=dt.UTC))
    assert board.board_hash(later) == board.board_hash(one)
    for change in (
        {"probes": False},
        {"tracks": ["attack"]},
        {"limits": board_tables.Limits(cpu_s=61)},
        {"shards": board_tables.Shards(lanes=8)},
        {"tasks": [msgspec.structs.replace(one.tasks[0], queries=51)]},
        {"phases": {"dev": board_tables.Phase(samples=8, source="split:train")}},
    ):
        assert board.board_hash(msgspec.structs.replace(one, **change)) != board.board_hash(one)


def test_knowledge_that_a_task_gives():
    assert board.gives("white-box", "score") and board.gives("score", "score") and not board.gives("score", "white-box")
    assert board.gives("transfer", "white-box")


def test_phases_by_name():
    with pytest.raises(AdvgymError, match="did you mean 'dev'"):
        board.phase_of(board.load("image"), "deb")
