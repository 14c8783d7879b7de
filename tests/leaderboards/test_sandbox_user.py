"""The traps again, as an ordinary user: other namespaces, no user ids to give away. Needs root to become one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import as_user
import pytest
from as_user import home  # noqa: F401
from sandbox_play import need

HERE = Path(__file__).parent
root = pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")


def rerun(folder: Path, *arguments: str) -> str:
    environment = ["env", "-i", f"HOME={folder}", "PATH=/usr/bin:/bin", "OMP_NUM_THREADS=1", "COLUMNS=200"]
    # Without the conftest of all tests, which imports torch.
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--confcutdir", str(HERE)]
    pytest_ += ["--basetemp", str(folder / "base")]
    done = subprocess.run(
        [*as_user.prefix(), *environment, *pytest_, *arguments],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


@root
@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_as_an_ordinary_user(home: Path) -> None:  # noqa: F811
    need("bwrap")  # it is how an ordinary user is made here
    least = {"traps": 100, "limits": 90, "box": 30}
    said = rerun(home, *(str(HERE / f"test_sandbox_{part}.py") for part in least))
    assert "sandbox level missing" not in said
    for part, count in least.items():
        assert len(re.findall(rf"^PASSED .*test_sandbox_{part}\.py::", said, re.MULTILINE)) >= count, part


@root
def test_ordinary_user_is_one() -> None:
    need("bwrap")
    code = (
        "import os; print(os.getuid(), os.geteuid(), open('/proc/self/status').read().split('CapEff:')[1].split()[0])"
    )
    done = subprocess.run([*as_user.prefix(), sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(as_user.UID), str(as_user.UID), "0" * 16]
