"""The traps again, as an ordinary user: other namespaces, no user ids to give away. Needs root to become one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import as_user
import pytest
from sandbox_play import need

HERE = Path(__file__).parent
root = pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of that user's; pytest's own are closed to him, and opened ones are closed again by other runs."""
    folder = Path(tempfile.mkdtemp(prefix="advgym-user-"))
    os.chown(folder, as_user.UID, as_user.UID)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def rerun(folder: Path, *arguments: str) -> str:
    environment = ["env", "-i", f"HOME={folder}", "PATH=/usr/bin:/bin", "OMP_NUM_THREADS=1", "COLUMNS=200"]
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(folder / "base")]
    done = subprocess.run(
        [*as_user.prefix(), *environment, *pytest_, *arguments],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


@root
@pytest.mark.slow
@pytest.mark.parametrize("part", ["traps", "limits", "box"])
def test_as_an_ordinary_user(part: str, home: Path) -> None:
    need("bwrap")  # it is how an ordinary user is made here
    said = rerun(home, str(HERE / f"test_sandbox_{part}.py"))
    passed = int(re.findall(r"(\d+) passed", said)[-1])
    assert passed >= {"traps": 100, "limits": 100, "box": 30}[part] and "sandbox level missing" not in said


@root
def test_ordinary_user_is_one() -> None:
    need("bwrap")
    code = (
        "import os; print(os.getuid(), os.geteuid(), open('/proc/self/status').read().split('CapEff:')[1].split()[0])"
    )
    done = subprocess.run([*as_user.prefix(), sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(as_user.UID), str(as_user.UID), "0" * 16]
