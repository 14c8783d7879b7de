"""A record that was tampered with is never served in silence: what x when, the database intact; and its copies."""

import logging

import msgspec
import pytest
import sqlalchemy as sa
import web_entries
import web_server
from fastapi.testclient import TestClient

from advgym.leaderboards.entries.entry import canonical
from advgym.leaderboards.rules import opening
from advgym.leaderboards.service.export import export
from advgym.leaderboards.store import health, ledger, rebuild, record, tables

ENTRY = web_entries.few()[0][0].id
BETTER = (b'"licence":"MIT"', b'"licence":"BSD"')


def ledger_line(root):
    """One word of a line in the middle."""
    path = ledger.path(root)
    raw = path.read_bytes().splitlines(keepends=True)
    raw[1] = raw[1].replace(b'"phase":"dev"', b'"phase":"fin"')
    path.write_bytes(b"".join(raw))
    return record.LEDGER


def entry_json(root):
    where = f"entries/showcase/{ENTRY}.json"
    (root / where).write_bytes((root / where).read_bytes().replace(*BETTER))
    return where


def rows_json(root):
    where = f"entries/showcase/{ENTRY}.rows.json"
    (root / where).write_bytes((root / where).read_bytes().replace(b'"success":false', b'"success":true ', 1))
    return where


def phase_card(root):
    """What would open the hidden phase's rows."""
    where = "phases/showcase/final.json"
    card = msgspec.json.decode((root / where).read_bytes())
    (root / where).write_bytes(canonical({**card, "closed": "2026-11-19"}))
    return where


TAMPER = [ledger_line, entry_json, rows_json, phase_card]


@pytest.fixture
def record_root(tmp_path):
    """A record that a database knows already."""
    site = web_server.few(tmp_path)
    web_server.write_card(tmp_path, "showcase", "final")
    assert health.examine(site.store, tmp_path) == []
    site.store.close()
    return tmp_path


def organiser(site):
    client = TestClient(site.app, raise_server_exceptions=False)
    client.headers["authorization"] = f"Bearer {site.boss}"
    client.cookies.set("advgym_token", site.boss)
    return client


@pytest.mark.parametrize("when", ["before start", "while running"])
@pytest.mark.parametrize("tamper", TAMPER, ids=lambda t: t.__name__)
def test_tampering_is_said(record_root, tamper, when, caplog):
    where = tamper(record_root) if when == "before start" else ""
    site = web_server.Site(record_root, web_entries.board())
    client = organiser(site)
    with caplog.at_level(logging.ERROR, "advgym"):
        site.app.state.watch.look()
        if when == "while running":
            assert not caplog.records and "The record is whole" in client.get("/organise").text
            assert client.get("/boards/showcase").text.count("Part of the record is damaged") == 0
            where = tamper(record_root)
            site.app.state.watch.look()
    assert any("the record is damaged" in line.getMessage() for line in caplog.records)
    told = client.get("/api/organise/record").json()["faults"]
    assert where in {fault["where"] for fault in told}
    page = client.get("/organise").text
    assert "The record is damaged" in page and where in page
    for path in ("/", "/boards/showcase"):
        page = client.get(path).text
        assert "Part of the record is damaged" in page and where.rpartition("/")[2] in page
    assert where.rpartition("/")[2] in str(client.get("/api/boards/showcase").json()["damaged"])
    if tamper is entry_json:
        assert client.get(f"/entries/{ENTRY}").status_code == client.get(f"/api/entries/{ENTRY}").status_code == 500
        assert ENTRY not in str(client.get("/api/boards/showcase").json()["tables"])
    if tamper is rows_json:
        assert client.get(f"/api/entries/{ENTRY}.rows").status_code == 500
        assert "Part of the record is damaged" in client.get(f"/entries/{ENTRY}").text
    if tamper is ledger_line:
        assert client.get("/api/ledger").status_code == client.get("/api/ledger/head").status_code == 500
    if tamper is phase_card:
        assert "final" not in client.get("/api/boards/showcase").json()["phase_cards"]
    assert str(record_root) not in client.get("/boards/showcase").text
    site.store.close()


@pytest.mark.parametrize("tamper", TAMPER, ids=lambda t: t.__name__)
def test_what_was_restored_is_served_again(record_root, tamper, caplog):
    site = web_server.Site(record_root, web_entries.board())
    client, watch = organiser(site), site.app.state.watch
    kept = {p: p.read_bytes() for p in record_root.rglob("*.json*") if p.is_file()}
    tamper(record_root)
    assert watch.look().faults
    for path, raw in kept.items():
        path.write_bytes(raw)
    with caplog.at_level(logging.WARNING, "advgym"):
        assert watch.look().faults == []
    assert "the record is whole again" in caplog.text
    assert "damaged" not in client.get("/boards/showcase").text
    assert client.get(f"/api/entries/{ENTRY}.rows").status_code == 200
    site.store.close()


@pytest.mark.parametrize("tamper", TAMPER, ids=lambda t: t.__name__)
def test_the_export_says_so_too(record_root, tamper, tmp_path_factory):
    where = tamper(record_root)
    out = tmp_path_factory.mktemp("out")
    export(record_root, {"showcase": web_entries.board()}, out)
    page = (out / "boards" / "showcase.html").read_text()
    assert "Part of the record is damaged" in page and where.rpartition("/")[2] in page


def test_only_the_organiser_reads_what_is_wrong(record_root):
    site = web_server.Site(record_root, web_entries.board())
    client = TestClient(site.app)
    assert client.get("/api/organise/record").status_code == 401
    answer = client.get("/api/organise/record", headers={"authorization": f"Bearer {site.team}"})
    assert answer.status_code == 403
    site.store.close()


def test_a_look_at_an_unchanged_record_reads_no_file_again(record_root, monkeypatch):
    site = web_server.Site(record_root, web_entries.board())
    watch, read = site.app.state.watch, []
    monkeypatch.setattr(record, "sha_of", lambda path, real=record.sha_of: read.append(path) or real(path))
    watch.look()
    assert len(read) == 8  # four entries and their rows
    watch.look()
    assert len(read) == 8
    rows_json(record_root)
    assert len(watch.look().faults) == 1
    assert len(read) == 9
    site.store.close()


# -- the database's copies -------------------------------------------------------------------------------------
def changed(table_values):
    return lambda c: c.execute(sa.update(tables.entry).where(tables.entry.c.id == ENTRY).values(**table_values))


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (changed({"body": "{}"}), "copy of entry"),
        (changed({"id": "0" * 16}), "no sound line"),
        (lambda c: c.execute(sa.delete(tables.entry).where(tables.entry.c.id == ENTRY)), "has no copy of entry"),
    ],
)
def test_copies_that_disagree_are_told(record_root, act, says):
    site = web_server.Site(record_root, web_entries.board())
    with site.store.write() as connection:
        act(connection)
    found = site.app.state.watch.look().faults
    assert {f.where for f in found} == {health.DATABASE} and any(says in f.text for f in found)
    rebuild.rebuild(site.store, record_root)  # the record decides
    assert site.app.state.watch.look().faults == []
    site.store.close()


def test_a_ledger_that_was_rewritten_stays_told_until_it_is_accepted(record_root):
    """A new chain is whole in itself; the database remembers the head of the old one."""
    lines = ledger.read(record_root)
    ledger.path(record_root).unlink()
    for line in lines[:-1]:
        ledger.append(record_root, line.kind, {**line.body, "track": "attack"} if line.seq == 0 else line.body)
    assert ledger.verify_chain(record_root) == []
    site = web_server.Site(record_root, web_entries.board())
    watch = site.app.state.watch
    for _ in range(2):  # a worker brings the database up to the new one in between
        assert any("is not the one that this database knew" in f.text for f in watch.look().faults)
        rebuild.refresh(site.store, record_root)
    assert rebuild.accept(site.store) and not rebuild.accept(site.store)
    assert watch.look().faults == [] or all("knew" not in f.text for f in watch.look().faults)
    site.store.close()


def test_lines_cut_off_at_the_end_are_told(record_root):
    path = ledger.path(record_root)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    site = web_server.Site(record_root, web_entries.board())
    assert any("is not the one that this database knew" in f.text for f in site.app.state.watch.look().faults)
    site.store.close()


def test_a_record_that_grows_is_whole(record_root):
    site = web_server.Site(record_root, web_entries.board())
    entry, rows = web_entries.few()[0]
    for i in range(3):
        record.write_entry(record_root, msgspec.structs.replace(entry, name=f"later-{i}"), rows)
        assert site.app.state.watch.look().faults == []
    site.store.close()


@pytest.mark.parametrize("key", ["commitment", "opened", "panel", "board_hash"])
def test_no_start_makes_a_changed_card_of_a_public_phase_true(tmp_path, key):
    from advgym.leaderboards.service.serve import open_public

    board = web_entries.board()
    open_public({board.name: board}, tmp_path)
    assert record.faults(tmp_path, whole=True) == []
    path = tmp_path / "phases" / board.name / "dev.json"
    card, now = msgspec.json.decode(path.read_bytes()), ["noise"] if key == "panel" else "ab" * 32
    path.write_bytes(canonical({**card, key: now}))
    before = path.read_bytes()
    opened = open_public({board.name: board}, tmp_path)
    if key == "board_hash":  # a card of another board is made anew, and both are in the ledger
        assert opened and path.read_bytes() != before and record.faults(tmp_path, whole=True) == []
    else:
        assert not opened and [f.where for f in record.faults(tmp_path, whole=True)] == [
            f"phases/{board.name}/dev.json"
        ]
    open_public({board.name: board}, tmp_path)


def test_a_board_that_changed_and_changed_back_is_no_damage(tmp_path, monkeypatch):
    """Its public phase is opened a third time, under the first commitment."""
    from advgym.leaderboards.service.serve import open_public

    one = web_entries.board()
    two = msgspec.structs.replace(one, probes=False)
    for day, board in enumerate((one, two, one), 1):
        monkeypatch.setattr(opening, "_now", lambda day=day: f"2026-11-0{day}T00:00:00+00:00")
        assert open_public({board.name: board}, tmp_path) == ["showcase/dev"]
        assert record.faults(tmp_path, whole=True) == []
