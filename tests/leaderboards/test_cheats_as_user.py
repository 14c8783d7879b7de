"""The cheats again, by an ordinary user: without root, both levels are built otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from as_user import UID, prefix

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# What the level decides; the other files are of what the evaluator does, whoever it is.
FILES = ["test_cheats_reach.py", "test_cheats_meters.py"]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user already: the other files are this test")
@pytest.mark.parametrize("level", ["bwrap", "landlock"])
def test_the_cheats_fail_without_root_too(level: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for folder in (home, tmp_path, *tmp_path.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o755)
    os.chown(home, UID, UID)
    env = {
        "PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "ADVGYM_CACHE": str(home / "cache"),
        "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8",
    }  # fmt: skip
    command = [*prefix(ROOT), sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider",
               "-k", level, *(str(HERE / f) for f in FILES)]  # fmt: skip
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)
    said = ran.stdout[-6000:] + ran.stderr[-2000:]
    if missing := re.search(r"sandbox level missing: .*", said):
        pytest.skip(missing[0])
    assert ran.returncode == 0, said
    passed = re.search(r"(\d+) passed", said)
    assert passed and int(passed[1]) > 40 and "failed" not in said, said
