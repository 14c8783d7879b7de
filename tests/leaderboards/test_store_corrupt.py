"""A damaged SQLite file says what may be deleted, what is kept and what is lost; the record comes back without it."""

import sqlite3

import pytest
from store_entries import made

from advgym.leaderboards.rules.board_tables import Quota
from advgym.leaderboards.store import jobs, rebuild, record, submissions
from advgym.leaderboards.store.db import Corrupt, open_store, quick_check
from advgym.leaderboards.store.tokens import list_tokens, new_token

QUOTA = Quota(per_day=1000, total=1000)
WORDS = ("delete the file", "-wal", "-shm", "Kept: the entries, the ledger", "Lost: tokens", "quotas", "logs")


@pytest.fixture
def file(tmp_path):
    """A database of some hundred pages, and its record."""
    path = tmp_path / "db.sqlite3"
    store = open_store(path)
    for i in range(200):
        submissions.submit(store, "reds", "image", "dev", "attack", f"{i:064x}", {"name": "x" * 150}, QUOTA)
    new_token(store, "organiser", "")
    job = jobs.claim(store, "w", 60)
    entry, rows = made(blob=job.blob)
    jobs.finish(store, job, "w", record.write_entry(tmp_path, entry, rows, job.id))
    rebuild.refresh(store, tmp_path)
    store.close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    return path


def garbage(path):
    path.write_bytes(b"not a database, whatever its name says\n" * 200)


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 700])


def torn(path):
    """One page of the middle, as a power cut leaves it."""
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 4096 // 2 * 4096
    raw[middle : middle + 4096] = bytes(range(256)) * 16
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize("damage", [garbage, truncated, torn])
def test_a_damaged_file_says_what_to_do(file, tmp_path, damage):
    damage(file)
    with pytest.raises(Corrupt) as error:
        quick_check(open_store(file))
    for word in (str(file), *WORDS):
        assert word in str(error.value)
    for name in (file, *file.parent.glob("db.sqlite3-*")):  # what it says to do
        name.unlink()
    store = open_store(file)
    quick_check(store)
    assert rebuild.refresh(store, tmp_path) == []
    assert rebuild.entries(store, "image") == record.read_entries(tmp_path, "image") != []
    assert list_tokens(store) == []
    store.close()


def test_a_torn_page_that_is_met_later_says_the_same(file):
    store = open_store(file)
    submissions.listing(store)
    store.close()
    raw = bytearray(file.read_bytes())
    for page in range(8, len(raw) // 4096):
        raw[page * 4096 : page * 4096 + 4096] = b"\xff" * 4096
    file.write_bytes(bytes(raw))
    store = open_store(file)
    with pytest.raises(Corrupt, match="delete the file"):
        submissions.listing(store, limit=10_000)
    store.close()


def test_a_sound_file_passes(file):
    store = open_store(file)
    quick_check(store)
    store.close()
