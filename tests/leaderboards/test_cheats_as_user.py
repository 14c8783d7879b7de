"""The cheats again, by an ordinary user: without root, both levels are built otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from as_user import home, prefix  # noqa: F401

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# What the level decides; the other files are of what the evaluator does, whoever it is.
FILES = ["test_cheats_reach.py", "test_cheats_meters.py", "test_cheats_product.py"]
FEW = "not cheats_product or few"  # every seventh combination: none of them hangs on who the evaluator is


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user already: the other files are this test")
def test_the_cheats_fail_without_root_too(home: Path) -> None:  # noqa: F811
    env = {
        "PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "ADVGYM_CACHE": str(home / "cache"),
        "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8", "LOGNAME": "advgym",
    }  # fmt: skip
    command = [*prefix(ROOT), sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-k", FEW,
               *(str(HERE / f) for f in FILES)]  # fmt: skip
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1500)
    said = ran.stdout[:6000] + "\n...\n" + ran.stdout[-6000:] + ran.stderr[-2000:]
    if missing := re.search(r"sandbox level missing: .*", ran.stdout):
        pytest.skip(missing[0])
    assert ran.returncode == 0, said
    for level in ("bwrap", "landlock"):
        assert len(re.findall(rf"^PASSED .*\[{level}", ran.stdout, re.MULTILINE)) > 40, said
