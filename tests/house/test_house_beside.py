"""A script beside the checkout gets the package, though the checkout has its name."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAY = "import advgym, advgym.agents, advgym.envs.image; advgym.make; print(advgym.__file__, advgym.agents.__file__)"


@pytest.fixture
def beside(tmp_path):
    """A folder with the checkout in it, called `advgym`."""
    (tmp_path / "advgym").symlink_to(ROOT)
    return tmp_path


def said(code, where, *flags, path=""):
    env = {**os.environ, "PYTHONPATH": path}
    run = subprocess.run([sys.executable, *flags, "-c", code], cwd=where, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout.split()


def test_editable(beside):
    assert said(SAY, beside) == [str(ROOT / "advgym" / f) for f in ("__init__.py", "agents/__init__.py")]


def test_installed(beside, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "advgym").symlink_to(ROOT / "advgym")
    assert said(SAY, beside, path=str(site)) == [
        str(site / "advgym" / f) for f in ("__init__.py", "agents/__init__.py")
    ]


def test_not_installed(beside):
    """Its dependencies are there, itself it is not: `-S` reads no .pth."""
    say = f"import sys; sys.path.append({sysconfig.get_paths()['purelib']!r}); {SAY}"
    assert said(say, beside, "-S")[0] == str(ROOT / "advgym" / "__init__.py")


def test_as_a_script_and_as_a_command(beside):
    (beside / "mine.py").write_text("import advgym\nprint(advgym.attack.__module__)\n")
    run = subprocess.run([sys.executable, "mine.py"], cwd=beside, capture_output=True, text=True)
    assert run.stdout.strip() == "advgym.judge.run", run.stderr[-2000:]
    run = subprocess.run([sys.executable, "-m", "advgym", "--version"], cwd=beside, capture_output=True, text=True)
    assert run.stdout.startswith("advgym "), run.stderr[-2000:]
