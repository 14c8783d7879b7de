"""kill -9 of workers, clients and readers: no job or quota is lost, nothing is scored twice, the chain is whole."""
# ruff: noqa: F811  (fixtures are imported by name)

import subprocess
import sys
from pathlib import Path

import pytest
from store_kill import KEYS
from store_servers import url  # noqa: F401

from advgym.leaderboards.entries.entry import canonical
from advgym.leaderboards.store import ledger, rebuild, record, submissions
from advgym.leaderboards.store.db import open_store

HERE = Path(__file__).parent
ROUNDS = 20


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_score_nothing_twice(url, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    command = [sys.executable, HERE / "store_kill.py", url, root, str(ROUNDS), "7"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr[-3000:]

    store = open_store(url)
    assert ledger.verify_chain(root) == []
    lines = [line for line in ledger.read(root) if line.kind == "entry"]
    found = submissions.listing(store, limit=10**6)
    assert len(found) == KEYS, "each key is one submission, however often its client was killed"
    assert len({s.blob for s in found}) == KEYS
    assert {s.state for s in found} <= {"scored", "failed"}, submissions.counts(store)
    assert sum(s.attempts > 1 for s in found) >= 3, "the kills hit too little"

    by_submission = {line.body["submission"]: line.body["entry"] for line in lines}
    assert len(by_submission) == len(lines), "a submission has two lines"
    assert by_submission == {s.id: s.entry for s in found if s.state == "scored"}
    lost = [s for s in found if s.state == "failed"]  # killed three times over: told so, and given back
    assert all((s.reason, s.counted, s.attempts) == ("worker-lost", False, 3) for s in lost)
    assert submissions.spent(store, "reds", "image", "dev")[1] == KEYS - len(lost)

    entries = record.read_entries(root, "image")
    assert [e.id for e in entries] == [line.body["entry"] for line in lines]
    for entry in entries:
        record.read_rows(root, entry)
    assert rebuild.refresh(store, root) == []
    assert [canonical(e) for e in rebuild.entries(store, "image")] == [canonical(e) for e in entries]
    assert rebuild.rebuild(store, root) == []
    store.close()
