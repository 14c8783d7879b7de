"""Servers and workers killed with -9, again and again, while real sandboxes score: the benchmark, smaller."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]
NEVER = (
    "lost", "there twice, or never handed in", "scored twice", "scored, not in the ledger", "in the ledger, not scored",
    "failed for no reason", "quota astray", "faults of the record", "other after a rebuild", "processes left",
)  # fmt: skip


def test_twenty_kills_lose_nothing():
    argv = [sys.executable, "-m", "benchmarks.boards.kill_storm", "--kills", "20", "--json"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=1400)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["kills"] == sum(found["kinds"].values()) == 20
    assert found["scored"] > 0 and {name: found[name] for name in NEVER} == dict.fromkeys(NEVER, 0)
    over = found["scored"] + found["failed by their own fault"] + found["given up after three deaths"]
    assert over == found["handed in"]
