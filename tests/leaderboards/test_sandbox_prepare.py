"""What the first process of a sandbox is told to do once, every child finds done, after a restart too."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from sandbox_play import ask, open_box

from advgym.leaderboards.sandbox import LEVELS, SandboxError, launch


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "RUNTIME", ("json",))


@pytest.mark.parametrize("level", LEVELS)
def test_a_child_finds_it_done(level: str, tmp_path: Path) -> None:
    with open_box(level, tmp_path / "in") as box:
        box.prepare("sys:setrecursionlimit", 1234)
        code = "import sys\ntell(sys.getrecursionlimit())"
        assert ask(box, code) == 1234
        assert ask(box, code) == 1234


@pytest.mark.parametrize("level", LEVELS)
def test_it_is_done_again_in_a_sandbox_that_was_started_anew(level: str, tmp_path: Path) -> None:
    with open_box(level, tmp_path / "in") as box:
        box.prepare("sys:setrecursionlimit", 1234)
        os.kill(box._root, signal.SIGKILL)
        box._stale = True
        assert ask(box, "import sys\ntell(sys.getrecursionlimit())") == 1234


@pytest.mark.parametrize("level", LEVELS)
def test_what_fails_there_is_the_hosts_error(level: str, tmp_path: Path) -> None:
    with open_box(level, tmp_path / "in") as box, pytest.raises(SandboxError, match="ValueError"):
        box.prepare("sys:setrecursionlimit", -1)
