"""Artefacts, the ledger and the entries: written whole or not at all, and every change is seen."""
# ruff: noqa: F811  (fixtures are imported by name)

import datetime as dt
import json
import os
import signal
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_entries import made
from store_servers import clock, store, url  # noqa: F401

from advgym.errors import AdvgymError, DataError
from advgym.leaderboards.entries.entry import Interval, canonical
from advgym.leaderboards.rules.board_tables import Quota
from advgym.leaderboards.store import artefacts, jobs, ledger, rebuild, record, submissions, tables


# -- artefacts -------------------------------------------------------------------------------------------------------
def test_an_artefact_is_found_by_its_hash(tmp_path):
    sha = artefacts.put(tmp_path, b"hello")
    assert sha == artefacts.put(tmp_path, b"hello")
    assert artefacts.get(tmp_path, sha) == b"hello"
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [sha]


def test_a_changed_artefact_is_refused_and_healed_by_its_owner(tmp_path):
    sha = artefacts.put(tmp_path, b"hello")
    artefacts.path(tmp_path, sha).write_bytes(b"hellO")
    with pytest.raises(DataError, match="was changed"):
        artefacts.get(tmp_path, sha)
    artefacts.put(tmp_path, b"hello")
    assert artefacts.get(tmp_path, sha) == b"hello"


@pytest.mark.parametrize("sha", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_what_is_no_hash_touches_no_path(tmp_path, sha):
    with pytest.raises(DataError, match="is not a SHA-256"):
        artefacts.get(tmp_path, sha)
    with pytest.raises(DataError, match="cannot read"):
        artefacts.get(tmp_path, "0" * 64)


# -- the ledger ------------------------------------------------------------------------------------------------------
def grow(root, n, start=0):
    return [ledger.append(root, "footnote", {"entry": f"{i:016x}", "n": i}) for i in range(start, start + n)]


def test_lines_are_chained_and_read_back(tmp_path):
    assert (ledger.read(tmp_path), ledger.head(tmp_path), ledger.verify_chain(tmp_path)) == ([], None, [])
    lines = grow(tmp_path, 5)
    assert ledger.read(tmp_path) == lines and ledger.read(tmp_path, 3) == lines[3:]
    assert ledger.head(tmp_path) == lines[-1]
    assert [line.seq for line in lines] == list(range(5))
    assert [line.prev for line in lines] == ["0" * 64, *(line.hash for line in lines[:-1])]
    assert ledger.verify_chain(tmp_path) == [] and ledger.verify_chain(tmp_path, lines[2]) == []


def test_the_time_is_utc(tmp_path):
    zone = dt.timezone(dt.timedelta(hours=2))
    line = ledger.append(tmp_path, "open", {}, at=dt.datetime(2026, 11, 20, 12, 0, 0, 999, zone))
    assert line.at == "2026-11-20T10:00:00+00:00"


@pytest.mark.parametrize("body", [{"a": 0.5}, {"a": None}, {"a": {"b": "c"}}, {"a": "x" * 70000}, {"a": [1]}])
def test_what_could_not_be_read_back_is_not_written(tmp_path, body):
    grow(tmp_path, 1)
    with pytest.raises((AdvgymError, msgspec.ValidationError)):
        ledger.append(tmp_path, "open", body)
    with pytest.raises(AdvgymError, match="did you mean 'entry'"):
        ledger.append(tmp_path, "entyr", {})
    assert len(ledger.read(tmp_path)) == 1 and ledger.verify_chain(tmp_path) == []


def test_once_adds_nothing_the_second_time(tmp_path):
    first = ledger.append(tmp_path, "entry", {"entry": "a", "submission": "s1"}, once=("submission",))
    again = ledger.append(tmp_path, "entry", {"entry": "b", "submission": "s1"}, once=("submission",))
    assert again == first
    ledger.append(tmp_path, "dispute", {"entry": "a", "submission": "s1"}, once=("submission",))  # another kind
    for _ in range(2):  # an empty value is no value
        ledger.append(tmp_path, "entry", {"submission": ""}, once=("submission",))
    assert [line.kind for line in ledger.read(tmp_path)] == ["entry", "dispute", "entry", "entry"]


def test_a_line_torn_anywhere_is_healed_and_no_whole_line_is_lost(tmp_path):
    lines = grow(tmp_path, 3)
    file = ledger.path(tmp_path)
    whole = file.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole) + 1):
        file.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends)
        assert ledger.read(tmp_path) == lines[:kept]
        assert ledger.head(tmp_path) == (lines[kept - 1] if kept else None)
        assert ledger.verify_chain(tmp_path) == []
        new = ledger.append(tmp_path, "open", {})
        assert ledger.read(tmp_path) == [*lines[:kept], new] and ledger.verify_chain(tmp_path) == []
        assert file.read_bytes()[: (ends[kept - 1] if kept else 0)] == whole[: (ends[kept - 1] if kept else 0)]


def test_a_long_torn_tail_is_healed_and_a_ledger_of_something_else_is_not_touched(tmp_path):
    lines = grow(tmp_path, 2)
    file = ledger.path(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole + b"\0" * 60000)  # what a power cut may leave
    assert ledger.append(tmp_path, "open", {}).seq == 2
    assert ledger.read(tmp_path)[:2] == lines
    file.write_bytes(b"x" * 500_000)
    with pytest.raises(DataError, match="are no line"):
        ledger.append(tmp_path, "open", {})
    assert file.read_bytes() == b"x" * 500_000


@pytest.mark.parametrize("where", range(4))
def test_a_changed_dropped_moved_or_added_line_is_seen(tmp_path, where):
    grow(tmp_path, 4)
    file = ledger.path(tmp_path)
    raw = file.read_bytes().splitlines(keepends=True)
    other = json.loads(raw[where]) | {"body": {"entry": "f" * 16, "n": 9}}
    forged = canonical(other) + b"\n"
    resealed = ledger.seal(other["seq"], other["prev"], other["at"], other["kind"], other["body"])
    for bad in (
        [*raw[:where], forged, *raw[where + 1 :]],
        [*raw[:where], b" " + raw[where], *raw[where + 1 :]],
        [*raw[:where], raw[where], *raw[where:]],
        [*raw[:where], b"not json\n", *raw[where + 1 :]],
    ):
        file.write_bytes(b"".join(bad))
        assert ledger.verify_chain(tmp_path)
    if where < 3:  # these are seen by what follows; at the end by a published head alone
        for bad in (
            [*raw[:where], *raw[where + 1 :]],
            [*raw[:where], canonical(resealed) + b"\n", *raw[where + 1 :]],
            [*raw[:where], raw[where + 1], raw[where], *raw[where + 2 :]],
        ):
            file.write_bytes(b"".join(bad))
            assert ledger.verify_chain(tmp_path)


def test_a_published_head_proves_that_the_end_was_cut_or_all_was_rewritten(tmp_path):
    lines = grow(tmp_path, 4)
    file = ledger.path(tmp_path)
    raw = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(raw[:3]))
    assert ledger.verify_chain(tmp_path) == []
    assert "published head (seq 3" in ledger.verify_chain(tmp_path, lines[3])[0]
    file.unlink()
    grow(tmp_path, 9, start=1)
    assert ledger.verify_chain(tmp_path) == [] and ledger.verify_chain(tmp_path, lines[3])


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_any_flipped_byte_is_seen(tmp_path_factory, place, value):
    root = tmp_path_factory.mktemp("l")
    lines = grow(root, 3)
    file = ledger.path(root)
    raw = bytearray(file.read_bytes())
    place %= len(raw)
    if raw[place] == value:
        return
    raw[place] = value
    file.write_bytes(bytes(raw))
    # The last newline alone may go unseen: then that line is torn, which a published head shows.
    assert ledger.verify_chain(root, lines[-1])


APPENDER = """
import sys
from pathlib import Path
from advgym.leaderboards.store import ledger
for i in range(40):
    ledger.append(Path(sys.argv[1]), "footnote", {"by": sys.argv[2], "n": i})
"""


def test_processes_append_one_at_a_time(tmp_path):
    crowd = [subprocess.Popen([sys.executable, "-c", APPENDER, tmp_path, str(i)]) for i in range(3)]
    assert [p.wait(timeout=500) for p in crowd] == [0, 0, 0]
    lines = ledger.read(tmp_path)
    assert ledger.verify_chain(tmp_path) == [] and len(lines) == 120
    for by in "012":
        assert [line.body["n"] for line in lines if line.body["by"] == by] == list(range(40))


# -- entries ---------------------------------------------------------------------------------------------------------
def test_an_entry_is_kept_with_its_rows(tmp_path):
    entry, rows = made()
    id = record.write_entry(tmp_path, entry, rows, "s1")
    assert id == entry.id
    assert record.read_entries(tmp_path, "image") == [entry] and record.read_entries(tmp_path, "text") == []
    assert record.read_entry(tmp_path, id) == entry
    assert canonical(record.read_rows(tmp_path, entry)) == canonical(rows)
    assert record.recorded(tmp_path, "s1") == id
    assert record.recorded(tmp_path, "s2") == record.recorded(tmp_path, "") == ""
    assert (tmp_path / "entries/image" / f"{id}.json").read_bytes() == canonical(entry)
    line = ledger.head(tmp_path)
    assert line.kind == "entry" and line.body == {
        "entry": id, "sha": line.body["sha"], "rows": entry.rows, "board": "image", "phase": "dev", "track": "attack",
        "submission": "s1",
    }  # fmt: skip


def test_the_same_submission_is_never_recorded_twice(tmp_path):
    first, rows = made()
    second, _ = made(created="2026-11-20T11:00:00Z")
    assert record.write_entry(tmp_path, first, rows, "s1") == first.id
    assert record.write_entry(tmp_path, second, rows, "s1") == first.id  # a worker that took over
    assert record.write_entry(tmp_path, first, rows, "s1") == first.id
    assert record.read_entries(tmp_path, "image") == [first]
    assert not (tmp_path / "entries/image" / f"{second.id}.json").exists()
    assert record.write_entry(tmp_path, second, rows, "s2") == second.id
    baseline, _ = made(team="baseline")
    for _ in range(2):
        assert record.write_entry(tmp_path, baseline, rows) == baseline.id
    assert len(ledger.read(tmp_path)) == 3


def test_an_entry_that_hangs_not_together_or_is_not_finite_is_not_kept(tmp_path):
    entry, rows = made()
    other = msgspec.structs.replace(rows, sets=[])
    bad = [
        (entry, other, "made for rows"),
        (msgspec.structs.replace(entry, headline=Interval(float("nan"), 0.0, 0.0)), rows, "finite"),
        (msgspec.structs.replace(entry, columns={"x": float("inf")}), rows, "finite"),
        (msgspec.structs.replace(entry, board="../x"), rows, "is no name"),
        (msgspec.structs.replace(entry, board=""), rows, "is no name"),
    ]
    for e, r, words in bad:
        with pytest.raises(AdvgymError, match=words):
            record.write_entry(tmp_path, e, r)
    assert list(tmp_path.iterdir()) == []


def test_files_without_a_line_do_not_count(tmp_path):
    entry, rows = made()
    record.write_entry(tmp_path, entry, rows, "s1")
    ledger.path(tmp_path).unlink()  # killed before the last step
    assert record.read_entries(tmp_path, "image") == [] and record.read_entry(tmp_path, entry.id) is None
    assert record.write_entry(tmp_path, entry, rows, "s1") == entry.id
    assert record.read_entries(tmp_path, "image") == [entry]


@pytest.mark.parametrize("id", ["", "../../../etc/passwd", "0" * 15, "0" * 17, "Z" * 16, "0" * 16])
def test_an_id_that_is_none_finds_nothing(tmp_path, id):
    record.write_entry(tmp_path, *made(), "s1")
    assert record.read_entry(tmp_path, id) is None


def test_a_changed_or_missing_entry_is_seen(tmp_path):
    entry, rows = made()
    id = record.write_entry(tmp_path, entry, rows)
    folder = tmp_path / "entries/image"
    better = canonical(msgspec.structs.replace(entry, headline=Interval(1.0, 1.0, 1.0)))
    (folder / f"{id}.json").write_bytes(better)
    with pytest.raises(DataError, match="was changed"):
        record.read_entries(tmp_path, "image")
    (folder / f"{id}.json").unlink()
    with pytest.raises(DataError, match="cannot read"):
        record.read_entry(tmp_path, id)
    (folder / f"{id}.rows.json").write_bytes(b"{}")
    with pytest.raises(DataError, match="was changed"):
        record.read_rows(tmp_path, entry)


def test_a_disk_that_is_full_in_the_middle_of_a_line_loses_nothing_else(tmp_path):
    import resource

    lines = grow(tmp_path, 3)
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ledger.path(tmp_path).stat().st_size + 50, was[1]))
    try:
        with pytest.raises(DataError, match="cannot write"):
            grow(tmp_path, 1)
        assert ledger.path(tmp_path).read_bytes()[-1:] != b"\n"
        with pytest.raises(DataError, match="cannot write"):
            record.write_entry(tmp_path, *made())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
        signal.signal(signal.SIGXFSZ, old)
    assert ledger.read(tmp_path) == lines and record.read_entries(tmp_path, "image") == []
    assert grow(tmp_path, 1)[0].seq == 3 and ledger.verify_chain(tmp_path) == []


def test_a_full_or_closed_disk_is_an_error_in_words(tmp_path):
    (tmp_path / "entries").write_text("a file in the way")
    with pytest.raises(DataError, match="cannot write"):
        record.write_entry(tmp_path, *made())
    assert ledger.read(tmp_path) == []


# -- and back to the database ----------------------------------------------------------------------------------------
QUOTA = Quota(per_day=5, total=5)


def scored(store, root, team="reds", finish=True, **more):
    """A submission that went all the way; without `finish` its worker died after writing the entry."""
    id = submissions.submit(store, team, "image", "dev", "attack", "0" * 64, {"name": "pgd"}, QUOTA)
    job = jobs.claim(store, "w", 60)
    assert job.id == id
    entry, rows = made(team=team, created=f"at {id}", **more)
    record.write_entry(root, entry, rows, id)
    if finish:
        assert jobs.finish(store, job, "w", entry.id, "its log")
    return id, entry, job


def test_refresh_copies_what_is_new_and_nothing_else(store, tmp_path):
    assert rebuild.refresh(store, tmp_path) == []
    first = scored(store, tmp_path)[1]
    assert rebuild.entries(store, "image") == []
    assert rebuild.refresh(store, tmp_path) == [] and rebuild.entries(store, "image") == [first]
    second = scored(store, tmp_path)[1]
    ledger.append(tmp_path, "close", {"board": "image"})
    for _ in range(2):
        assert rebuild.refresh(store, tmp_path) == []
        assert rebuild.entries(store, "image") == [first, second]
    assert rebuild.entries(store, "text") == []


def test_a_worker_that_died_after_writing_is_finished_by_the_record(store, tmp_path, clock):
    id, entry, _ = scored(store, tmp_path, finish=False)
    clock.now += 61
    jobs.requeue_expired(store)
    assert rebuild.refresh(store, tmp_path) == []
    found = submissions.status(store, id)
    assert (found.state, found.entry, found.counted) == ("scored", entry.id, True)
    assert jobs.claim(store, "v", 60) is None


def test_recover_asks_the_record_before_it_calls_a_worker_lost(store, tmp_path, clock, monkeypatch):
    lost, requeue = [], jobs.requeue_expired
    monkeypatch.setattr(jobs, "requeue_expired", lambda s: lost.append(requeue(s)))
    id, _, _ = scored(store, tmp_path, finish=False)
    with store.write() as connection:
        connection.execute(tables.job.update().values(attempts=3))
    clock.now += 61
    assert rebuild.recover(store, tmp_path) == []
    assert submissions.status(store, id).state == "scored" and lost == [0]
    waiting = submissions.submit(store, "reds", "image", "dev", "attack", "0" * 64, {}, QUOTA)
    jobs.claim(store, "w", 60)
    clock.now += 61
    assert rebuild.recover(store, tmp_path) == []
    assert submissions.status(store, waiting).state == "queued" and lost == [0, 1]


def test_the_record_decides_after_a_cancel_or_a_lost_worker(store, tmp_path, clock):
    cancelled, one, _ = scored(store, tmp_path, finish=False)
    submissions.cancel(store, cancelled)
    lost, two, _ = scored(store, tmp_path, finish=False)
    for attempt in range(3):
        clock.now += 61
        jobs.requeue_expired(store)
        assert (jobs.claim(store, "v", 60) is None) == (attempt == 2)
    assert submissions.status(store, lost).reason == "worker-lost"
    rebuild.rebuild(store, tmp_path)
    for id, entry in ((cancelled, one), (lost, two)):
        found = submissions.status(store, id)
        assert (found.state, found.entry, found.reason, found.counted) == ("scored", entry.id, "", True)
    assert submissions.spent(store, "reds", "image", "dev") == (2, 2)


def test_the_log_is_kept_when_the_record_was_read_first(store, tmp_path):
    id, entry, job = scored(store, tmp_path, finish=False)
    rebuild.refresh(store, tmp_path)
    assert jobs.finish(store, job, "w", entry.id, "its log")
    assert submissions.status(store, id).log == "its log"


def test_a_new_database_is_rebuilt_from_the_record(store, tmp_path, clock):
    clock.now = dt.datetime.now(dt.UTC).timestamp()
    done = [scored(store, tmp_path, team) for team in ("reds", "reds", "blues")]
    record.write_entry(tmp_path, *made(team="baseline"))
    rebuild.refresh(store, tmp_path)
    before = rebuild.entries(store, "image")
    with store.write() as connection:
        for table in (tables.job, tables.submission, tables.entry, tables.meta):
            connection.execute(table.delete())
    assert rebuild.rebuild(store, tmp_path) == []
    assert rebuild.entries(store, "image") == before and len(before) == 4
    for id, entry, _ in done:
        found = submissions.status(store, id)
        assert (found.state, found.entry, found.team, found.counted) == ("scored", entry.id, entry.team, True)
    assert submissions.spent(store, "reds", "image", "dev")[1] == 2
    assert rebuild.rebuild(store, tmp_path) == []


def test_rebuild_says_what_is_wrong_and_leaves_it_out(store, tmp_path):
    good, changed, bare = (scored(store, tmp_path)[1] for _ in range(3))
    folder = tmp_path / "entries/image"
    (folder / f"{changed.id}.json").write_bytes(canonical(msgspec.structs.replace(changed, team="thieves")))
    (folder / f"{bare.id}.rows.json").write_bytes(b"{}")
    faults = rebuild.rebuild(store, tmp_path)
    assert sum("was changed" in fault for fault in faults) == 2
    assert sum("which the record does not hold" in fault for fault in faults) == 2
    assert rebuild.entries(store, "image") == [good]


def test_a_database_of_another_record_is_noticed(store, tmp_path):
    id, entry, _ = scored(store, tmp_path)
    rebuild.refresh(store, tmp_path)
    ledger.path(tmp_path).unlink()
    other, rows = made(team="others")
    record.write_entry(tmp_path, other, rows)
    (fault,) = rebuild.refresh(store, tmp_path)
    assert id in fault and entry.id in fault
    assert rebuild.entries(store, "image") == [other]


def test_a_damaged_ledger_is_told_and_changes_nothing(store, tmp_path):
    entry = scored(store, tmp_path)[1]
    rebuild.refresh(store, tmp_path)
    with ledger.path(tmp_path).open("ab") as file:
        file.write(b"{}\n")
    assert "damaged" in rebuild.refresh(store, tmp_path)[0]
    assert "damaged" in rebuild.rebuild(store, tmp_path)[0]
    assert rebuild.entries(store, "image") == [entry]


def test_secrets_of_the_files_are_their_own_business(tmp_path):
    record.write_entry(tmp_path, *made())
    for file in tmp_path.rglob("*"):
        assert not os.stat(file).st_mode & 0o022, f"{file} can be written by others"
