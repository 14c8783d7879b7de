"""`advgym new`: what it writes works at once."""

import re
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("kind", "task"), [("field", "image/digits-linf"), ("edits", "image/digits-pixel")])
def test_a_new_agent_attacks(advgym, tmp_path, kind, task):
    folder = tmp_path / f"My {kind} agent"
    answer = advgym("new", "agent", folder, "--kind", kind)
    assert answer.code == 0, answer.err
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "agent.py", "card.toml", "test_agent.py"]
    assert not any(re.search("@[A-Z]+@", p.read_text()) for p in folder.iterdir())
    answer = advgym("attack", task, "--agent", folder, "--episodes", 16, "--lanes", 16, "--set", "queries=100")
    assert answer.code == 0, answer.err
    assert f"my-{kind}-agent" in answer.out
    assert "crashed" not in answer.out


def test_a_new_defense_guards(advgym, tmp_path):
    folder = tmp_path / "rounder"
    assert advgym("new", "defense", folder).code == 0
    answer = advgym(
        "attack", "image/digits-linf", "--agent", "random-search", "--episodes", 6, "--defense", f"{folder}:step=0.5"
    )
    assert answer.code == 0, answer.err
    assert "behind rounder" in answer.out


@pytest.mark.slow
def test_their_own_tests_pass(advgym, tmp_path):
    for what in ("agent", "defense"):
        assert advgym("new", what, tmp_path / what).code == 0
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "agent", "defense"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_agent.py::" in done.stdout
    assert "test_defense.py::" in done.stdout


def test_what_is_there_stays(advgym, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    answer = advgym("new", "agent", tmp_path)
    assert answer.code == 2
    assert "not an empty folder" in answer.err
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]
    assert advgym("new", "agent", tmp_path / "note.txt").code == 2
    assert advgym("new", "agent", tmp_path / "x", "--kind", "feild").code == 2
    assert not (tmp_path / "x").exists()
