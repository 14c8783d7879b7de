"""The command line called in this process, and a few files for it."""

from pathlib import Path
from typing import NamedTuple

import pytest

from advgym.cli.app import main

TASK = "image/digits-linf"


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def advgym(capsys, monkeypatch):
    """`advgym("list", "tasks")` -> (code, out, err)."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*args: object) -> Answer:
        from advgym.cli.printing import _console

        _console.cache_clear()  # capsys hands out new streams
        code = main([str(a) for a in args])
        found = capsys.readouterr()
        return Answer(code, found.out, found.err)

    return call


@pytest.fixture
def slow_agent(tmp_path) -> Path:
    """Random search that waits to be stopped from its ADVGYM_TEST_BATCHES-th batch on."""
    path = tmp_path / "dawdler.py"
    path.write_text(
        "import os, time\n\n"
        "left = [int(os.environ.get('ADVGYM_TEST_BATCHES', 1000))]\n\n"
        "def attack(env, *, draws=3, seed=0):\n"
        '    """Random draws."""\n'
        "    env.reset(seed=seed)\n"
        "    left[0] -= 1\n"
        "    time.sleep(3600 * (left[0] < 0))\n"
        "    for t in range(draws):\n"
        "        if env.done:\n"
        "            break\n"
        "        env.step(env.threat.random(seed + t))\n"
    )
    return path
