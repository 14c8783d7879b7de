"""The newcomer's first steps: in this environment always; in a fresh one, gigabytes, where it is asked for."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hour import ROOT, play

pytestmark = pytest.mark.slow


def check(steps):
    wrong = {step.item: (step.wrong, step.said[-2000:]) for step in steps if step.wrong}
    assert not wrong, wrong


@pytest.fixture
def git():
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the newcomer needs git and a repository to clone")


def test_first_steps(git, tmp_path):
    check(play(tmp_path))


def test_first_steps_in_a_fresh_environment(git, tmp_path):
    if not os.environ.get("ADVGYM_NEWCOMER"):
        pytest.skip("a fresh environment is made where ADVGYM_NEWCOMER is set: 6 GB")
    check(play(tmp_path, fresh=True))
