"""`advgym score`: a small board from start to files, and what it refuses."""

import json
from typing import NamedTuple

import msgspec
import pytest

from advgym import verify
from advgym.cli.app import main
from advgym.leaderboards.entries.entry import Interval
from advgym.leaderboards.scoring.intervals import mean_interval
from advgym.leaderboards.scoring.matrix import Scored

BOARD = """
title = "Small"
opens = 2026-01-01T00:00:00Z
closes = 2030-01-01T00:00:00Z

[[tasks]]
id = "image/digits-linf"
knowledge = "white-box"
queries = 12
gradients = 12
constraint = { eps = 0.25 }

[[tasks]]
id = "image/digits-pixel"
knowledge = "score"
queries = 12

[phases.dev]
samples = 8
source = "split:test"
seeds = 2

[phases.test]
samples = 8
source = "generator"

[defense]
panel = ["noise"]
"""


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def advgym(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def call(*args):
        from advgym.cli.printing import _console

        _console.cache_clear()  # capsys hands out new streams
        code = main([str(a) for a in args])
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(BOARD)
    return path


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "nudge"
    path.mkdir()
    (path / "card.toml").write_text('name = "nudge"\nkind = ["field", "edits"]\nknowledge = "decision"\n')
    (path / "agent.py").write_text(
        "def attack(env, *, seed=0):\n"
        '    """One random draw."""\n'
        "    env.reset(seed=seed)\n"
        "    env.step(env.threat.random(seed))\n"
    )
    return path


def test_a_board_from_start_to_files(advgym, small, own, tmp_path):
    folder = tmp_path / "out"
    found = advgym("score", small, "--agent", "pgd", "--agent", own, "--defense", "bit-depth:bits=2", "--out", folder)
    assert found.code == 0, found.err
    for word in ("attacks × defenses", "pgd", "nudge", "bit-depth", "not sandboxed"):
        assert word in found.out
    scored = msgspec.json.decode((folder / "score.json").read_bytes(), type=Scored)
    assert scored.board == "small" and scored.seeds == [0, 1] and scored.sandbox == "none"
    assert {line.name for line in scored.attacks} == {"pgd", "nudge"}
    assert {line.name for line in scored.defenses} == {"none", "bit-depth"}
    pgd = next(line for line in scored.attacks if line.name == "pgd")
    assert [t.status for t in pgd.tasks] == ["scored", "not attempted"] and pgd.columns["attempted"] == 0.5
    assert any("pgd on image/digits-pixel" in key for key in scored.missing)
    rates = [t.success.value for t in pgd.tasks]
    assert rates[0] > 0 and rates[1] == 0
    assert pgd.headline == mean_interval([(r, t.attacked) for r, t in zip(rates, pgd.tasks, strict=True)])
    assert "digits" in (folder / "index.html").read_text()
    files = sorted((folder / "results").glob("*.json"))
    assert len(files) == 2 * 2 * (1 + 2)  # seeds, victims, agents that fit
    one = next(f for f in files if "--pgd--bit-depth--1" in f.name)
    assert verify(one) == [] and json.loads(one.read_text())["seed"] == 1
    many = [json.loads(f.read_text()) for f in files if "linf--pgd--none" in f.name]
    assert rates[0] == pytest.approx(sum(r["success_rate"] for r in many) / 2)


def test_the_worst_case_is_over_the_agents_given(advgym, small, tmp_path):
    for name, agents in (("weak", ["noise"]), ("both", ["noise", "pgd", "random-search"])):
        args = [x for a in agents for x in ("--agent", a)]
        assert advgym("score", small, *args, "--out", tmp_path / name).code == 0
    weak, both = (
        msgspec.json.decode((tmp_path / name / "score.json").read_bytes(), type=Scored).defenses[0].headline
        for name in ("weak", "both")
    )
    assert isinstance(weak, Interval) and both.value < weak.value


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--agent", "pgd", "--phase", "test"], "hidden"),
        (["--agent", "pgd", "--phase", "finals"], "finals"),
        (["--agent", "pgdd"], "did you mean 'pgd'"),
        (["--agent", "pgd", "--agent", "pgd"], "given twice"),
        (["--agent", "pgd", "--defense", "none"], "none"),
        (["--agent", "pgd", "--engine", "cloud"], "engine"),
    ],
)
def test_what_it_refuses(advgym, small, args, says):
    found = advgym("score", small, *args)
    assert found.code == 2 and says in found.err and "Traceback" not in found.err


def test_nothing_to_play_says_why(advgym, small, own):
    text = (
        small.read_text()
        .replace("white-box", "decision")
        .replace("gradients = 12", "")
        .replace('knowledge = "score"', 'knowledge = "decision"')
    )
    small.write_text(text)
    found = advgym("score", small, "--agent", "pgd")
    assert found.code == 2 and "nothing could be played" in found.err and "white-box" in found.err


def test_unknown_boards_and_files_in_the_way(advgym, small, tmp_path):
    assert advgym("score", "imgae", "--agent", "pgd").code == 2
    (tmp_path / "file").write_text("")
    found = advgym("score", small, "--agent", "pgd", "--out", tmp_path / "file")
    assert found.code == 2 and "is a file" in found.err
