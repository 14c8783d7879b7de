"""What the routes answer: headers, kept pages, the record as data, paths that are none, damage without a traceback."""

import hashlib

import msgspec
import pytest
import web_entries
import web_server
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advgym.leaderboards.rules.board_tables import Phase
from advgym.leaderboards.service import app as application
from advgym.leaderboards.service import show
from advgym.leaderboards.store import ledger


@pytest.fixture
def site(tmp_path):
    found = web_server.few(tmp_path)
    yield found
    found.store.close()


@pytest.fixture
def client(site):
    with TestClient(site.app, raise_server_exceptions=False) as found:
        yield found


def test_every_answer_has_the_headers(site, client):
    name = next(iter((site.root / "entries" / "showcase").glob("*.rows.json"))).name[:16]
    for path in ("/", "/about", "/boards/showcase", f"/entries/{name}", "/api/boards", "/nothing", "/static/style.css"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"].split("style-src-attr")[0]
        assert headers["x-frame-options"] == "DENY"


def test_pages_are_kept_by_the_ledgers_head(site, client):
    first = client.get("/boards/showcase")
    tag = {"if-none-match": first.headers["etag"]}
    assert client.get("/boards/showcase", headers=tag).status_code == 304
    entry, rows = web_entries.few()[0]
    web_server.write_entry(site.root, msgspec.structs.replace(entry, name="later"), rows)
    changed = client.get("/boards/showcase", headers=tag)
    assert changed.status_code == 200
    assert "later" in changed.text


def test_kept_pages_are_bounded():
    from starlette.requests import Request

    kept = application.Kept(most=1000)
    request = Request({"type": "http", "headers": []})
    for i in range(50):
        answer = kept.answer(request, (str(i),), lambda: "x" * 100)
        assert answer.body == b"x" * 100
    assert kept.size <= 1000


def test_record_over_the_api(site, client):
    boards = client.get("/api/boards").json()
    assert [b["name"] for b in boards] == ["showcase"]
    board = client.get("/api/boards/showcase").json()
    table = board["tables"]["dev"]["attack"]
    assert [t["rank"] for t in table] == sorted(t["rank"] for t in table)
    assert board["ledger"] == ledger.read(site.root)[-1].hash
    assert "secret" not in board["phase_cards"].get("final", {})
    name = table[0]["entry"]
    raw = client.get(f"/api/entries/{name}").content
    assert raw == (site.root / "entries" / "showcase" / f"{name}.json").read_bytes()
    rows = client.get(f"/api/entries/{name}.rows").content
    assert hashlib.sha256(rows).hexdigest() == msgspec.json.decode(raw)["rows"]
    lines = client.get("/api/ledger").json()["lines"]
    assert [line["seq"] for line in lines] == list(range(4))
    assert [line["seq"] for line in client.get("/api/ledger?start=2").json()["lines"]] == [2, 3]
    assert client.get("/api/ledger/head").json()["head"] == lines[-1]
    assert client.get("/api/ledger?start=-1").status_code == 422


def test_rows_of_a_hidden_phase_are_not_served(tmp_path):
    for entry, rows in web_entries.few():
        web_server.write_entry(tmp_path, entry, rows)
    hidden = msgspec.structs.replace(web_entries.board(), phases={"dev": Phase(samples=8, source="generator", seeds=2)})
    client = TestClient(web_server.Site(tmp_path, hidden, web_server.later).app)
    name = web_entries.few()[0][0].id
    assert client.get(f"/api/entries/{name}").status_code == 200
    assert client.get(f"/api/entries/{name}.rows").status_code == 404


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["/boards/", "/entries/", "/api/boards/", "/api/entries/", "/static/", "/submissions/"]),
       st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))  # fmt: skip
def test_no_path_reaches_the_disk(client, where, text):
    from urllib.parse import quote

    answer = client.get(where + quote(text, safe=""), follow_redirects=False)
    assert answer.status_code in (200, 404, 307, 405, 422) and answer.status_code != 200
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/%2e%2e%2fapp.py", "/entries/..%2f..%2fdb.sqlite3", "/boards/../../etc/passwd",
        "/api/entries/%00", "/boards/showcase/dev/attack/0", "/boards/showcase/dev/attack/99",
        "/boards/showcase/dev/nope", "/boards/showcase/dev/attack/x",
    ],
)  # fmt: skip
def test_paths_that_are_none(client, path):
    assert client.get(path).status_code in (404, 422)


def test_a_damaged_ledger_is_said_and_names_no_folder(site, client):
    ledger.path(site.root).write_bytes(b"not a line\n")
    for path in ("/", "/boards/showcase", "/api/ledger", "/api/ledger/head", "/api/boards/showcase"):
        answer = client.get(path)
        assert answer.status_code == (500 if "ledger" in path else 200)
        assert str(site.root) not in answer.text
    assert "ledger.jsonl" in client.get("/boards/showcase").text


def test_a_changed_entry_is_not_served(site, client):
    name = web_entries.few()[0][0].id
    assert client.get(f"/api/entries/{name}").status_code == 200
    path = site.root / "entries" / "showcase" / f"{name}.json"
    path.write_bytes(path.read_bytes().replace(b'"success"', b'"failure"'))
    answer = client.get(f"/api/entries/{name}")
    assert answer.status_code == 500
    assert str(site.root) not in answer.text


def test_an_entry_that_cannot_be_drawn_is_still_shown(site, client, monkeypatch):
    monkeypatch.setattr(show, "draw_published", lambda *_: 1 / 0)
    answer = client.get(f"/entries/{web_entries.few()[0][0].id}")
    assert answer.status_code == 200
    assert "There are none to show" in answer.text


def test_failures_of_the_server_say_nothing_of_its_inside(site, client, monkeypatch):
    def explode(*_):
        raise RuntimeError("/very/secret/path")

    monkeypatch.setattr(application.pages, "about_page", explode)
    answer = client.get("/about")
    assert answer.status_code == 500
    assert "secret" not in answer.text
