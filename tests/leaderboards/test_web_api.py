"""The API and what guards it: tokens, scopes, reasons, quota, sizes, rates, headers."""

import gzip

import msgspec
import pytest
import web_entries
import web_server
from fastapi.testclient import TestClient

from advgym.judge.run import attack
from advgym.leaderboards.rules.board_tables import Limits, Quota
from advgym.leaderboards.service import guard
from advgym.leaderboards.store import artefacts, jobs
from advgym.leaderboards.store.submissions import status
from advgym.leaderboards.store.tokens import new_token


@pytest.fixture
def site(tmp_path):
    found = web_server.few(tmp_path)
    yield found
    found.store.close()


@pytest.fixture
def client(site):
    with TestClient(site.app, raise_server_exceptions=False) as found:
        yield found


def key(token):
    return {"authorization": f"Bearer {token}"}


def send(client, token, files=None, raw=None, **form):
    data = web_server.archive(files) if raw is None else raw
    form = {"board": "showcase", "phase": "dev", **form}
    return client.post("/api/submissions", headers=key(token), data=form, files={"archive": ("a.tar", data)})


def test_hand_in_then_follow_then_cancel(site, client):
    answer = send(client, site.team)
    assert answer.status_code == 201, answer.text
    got = answer.json()
    assert (got["state"], got["position"], got["team"], got["name"]) == ("queued", 1, "Kestrel", "tiny")
    assert client.get(f"/api/submissions/{got['id']}", headers=key(site.team)).json() == got
    job = jobs.claim(site.store, "w", 60)
    assert job.id == got["id"]
    assert job.card["kind"] == "field"
    packed = artefacts.get(site.root, job.blob)
    assert b"agent.py" in packed
    assert client.get(got["url"]).status_code == 200
    over = client.delete(f"/api/submissions/{got['id']}", headers=key(site.team))
    assert over.json()["state"] == "cancelled"
    assert client.delete(f"/api/submissions/{got['id']}", headers=key(site.team)).status_code == 409


def test_the_same_folder_is_one_blob_however_it_is_packed(site, client):
    files = {"card.toml": web_server.CARD, "agent.py": web_server.AGENT}
    first = send(client, site.team, files).json()
    packed = gzip.compress(web_server.archive(dict(reversed(files.items()))))
    assert send(client, site.team, raw=packed).json()["blob"] == first["blob"]


def test_sending_twice_takes_the_quota_once(site, client):
    first, second = (send(client, site.team, key="once").json() for _ in range(2))
    assert first["id"] == second["id"]


@pytest.mark.parametrize(
    ("files", "reason", "say"),
    [
        ({}, "empty-submission", "card.toml"),
        ({"agent.py": "x"}, "bad-card", "advgym new"),
        ({"card.toml": "name = 3", "agent.py": "x"}, "bad-card", "name"),
        ({"card.toml": web_server.CARD}, "no-entry-point", "agent.py"),
        ({"card.toml": web_server.CARD + "proposal = 2\n", "agent.py": "x"}, "bad-card", "proposal"),
    ],
)
def test_refusals_say_what_to_do(site, client, files, reason, say):
    answer = send(client, site.team, files)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["reason"], error["blame"]) == (reason, "participant")
    assert say in error["text"]
    assert not list((site.root / "blobs").glob("*/*"))


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04 no zip", b"\x1f\x8b no gzip", b"\0" * 2000])
def test_no_archive(site, client, raw):
    answer = send(client, site.team, raw=raw)
    assert answer.status_code == 400
    assert answer.json()["error"]["reason"] in ("bad-archive", "empty-submission")


def test_phase_and_board_have_to_be_open(site, client):
    closed = send(client, site.team, phase="final").json()["error"]
    assert closed["reason"] == "phase-closed"
    assert "not open yet" in closed["text"]
    assert send(client, site.team, phase="nope").status_code == 409
    assert "showcase" in send(client, site.team, board="nope").json()["error"]["text"]


def test_quota(tmp_path):
    site = web_server.Site(tmp_path, msgspec.structs.replace(web_entries.board(), quota=Quota(per_day=1, total=5)))
    client = TestClient(site.app)
    assert send(client, site.team).status_code == 201
    spent = send(client, site.team)
    assert spent.status_code == 429
    assert spent.json()["error"]["reason"] == "over-quota"
    assert send(client, site.other).status_code == 201


def test_tokens_are_asked_for(site, client):
    worker = new_token(site.store, "worker", "")
    reader = new_token(site.store, "participant", "Kestrel", scopes=["read"])
    id = send(client, site.team).json()["id"]
    assert client.post("/api/submissions").status_code in (401, 422)
    for token, code in (("", 401), ("advgym_wrong", 401), (worker, 403), (reader, 403)):
        answer = send(client, token)
        assert answer.status_code == code
        assert answer.json()["error"]["text"]
    assert client.get(f"/api/submissions/{id}", headers=key(site.other)).status_code == 404
    assert client.delete(f"/api/submissions/{id}", headers=key(site.other)).status_code == 404
    assert client.delete(f"/api/submissions/{id}", headers=key(reader)).status_code == 403
    assert client.get(f"/api/submissions/{id}", headers=key(site.boss)).status_code == 200
    assert client.get(f"/api/submissions/{id}").status_code == 401
    client.cookies.set(guard.COOKIE, site.team)
    assert client.get(f"/api/submissions/{id}").status_code == 401


def test_hidden_logs_are_the_organisers(site, client):
    id = site.hand_in("secretive", hidden=True)
    job = jobs.claim(site.store, "w", 60)
    jobs.fail(site.store, job, "w", "crashed", "ValueError (line 3)", "sample 17 is a nine")
    site.store.clock = web_server.later  # the minutes in which it ended are over
    mine = client.get(f"/api/submissions/{id}", headers=key(site.team)).json()
    assert mine["log"] == ""
    assert "ValueError" in mine["text"]
    assert "nine" in client.get(f"/api/submissions/{id}", headers=key(site.boss)).json()["log"]
    client.cookies.set(guard.COOKIE, site.team)
    page = client.get(f"/submissions/{id}").text
    assert "nine" not in page
    assert "shown when it closes" in page


def test_strangers_see_the_state_and_nothing_else(site, client):
    ids = site.busy()
    page = client.get(f"/submissions/{ids['failed']}").text
    assert ">failed<" in page
    for secret in ("NameError", "Traceback", "abab", "crashed"):
        assert secret not in page
    other = client.get(f"/submissions/{ids['failed']}", headers={"cookie": f"{guard.COOKIE}={site.other}"}).text
    assert "Traceback" not in other
    mine = client.get(f"/submissions/{ids['failed']}", headers={"cookie": f"{guard.COOKIE}={site.team}"}).text
    assert "Traceback" in mine
    assert "&lt;b&gt;torch&lt;/b&gt;" in mine


def test_bodies_are_refused_before_they_are_read(site, client):
    def body():
        yield b'--x\r\ncontent-disposition: form-data; name="archive"; filename="a"\r\n\r\n'
        for _ in range(60):
            yield b"x" * (1 << 20)

    assert client.post("/login", content=b"token=" + b"x" * guard.FORM_BYTES).status_code == 413
    largest = 52 * (1 << 20)
    big = client.post("/api/submissions", headers={**key(site.team), "content-length": str(largest + 1)}, content=b"")
    assert big.status_code == 413
    assert big.json()["error"]["reason"] == "too-large"
    kind = "multipart/form-data; boundary=x"
    streamed = client.post("/api/submissions", headers={**key(site.team), "content-type": kind}, content=body())
    assert streamed.status_code == 413
    assert "content-security-policy" in streamed.headers


def test_large_archives_have_a_reason(tmp_path):
    small = msgspec.structs.replace(web_entries.board(), limits=Limits(size_mb=1))
    site = web_server.Site(tmp_path, small)
    files = {"card.toml": web_server.CARD, "agent.py": web_server.AGENT, "w.bin": "x" * (2 << 20)}
    answer = send(TestClient(site.app), site.team, raw=gzip.compress(web_server.archive(files)))
    assert answer.json()["error"]["reason"] in ("too-large", "bad-archive")


def test_rates(site, client):
    for _ in range(20):
        assert client.post("/login", data={"token": "advgym_no"}).status_code == 401
    slow = client.post("/login", data={"token": site.team})
    assert slow.status_code == 429
    assert slow.headers["retry-after"]


def test_disputes_are_queued_for_a_worker(site, client):
    entries = {e.name: e for e, _ in web_entries.few()}
    result = attack("image/digits-linf", "genetic", episodes=4, queries=20, knowledge="score", defenses="bit-depth")
    raw = msgspec.json.encode(result)

    def send(against, body=raw, token=site.other):
        files = {"result": ("r.json", body)}
        return client.post("/api/disputes", headers=key(token), data={"against": against}, files=files)

    good = send(entries["quantised"].id)
    assert good.status_code == 201, good.text
    job = jobs.claim(site.store, "w", 60)
    assert (job.track, job.card["against"], job.phase) == ("dispute", entries["quantised"].id, "dev:dispute")
    assert artefacts.get(site.root, job.blob) == raw
    assert status(site.store, good.json()["id"]).state == "running"
    for against, body, code, say in (
        (entries["evolve"].id, raw, "not-disputable", "defense"),
        ("0" * 16, raw, "not-disputable", "no entry"),
        (entries["quantised"].id, b"{}", "bad-result", "not a result file"),
        (entries["quantised"].id, raw.replace(b"image/digits-linf", b"image/no"), "not-disputable", "other tasks"),
    ):
        answer = send(against, body)
        assert answer.status_code == 400
        assert answer.json()["error"]["reason"] == code and say in answer.json()["error"]["text"]
    assert send(entries["quantised"].id, token="").status_code == 401


def test_events_stream_ends_with_the_submission(site, client):
    ids = site.busy()
    with client.stream("GET", f"/api/submissions/{ids['failed']}/events") as stream:
        lines = [line for line in stream.iter_lines() if line]
    event = msgspec.json.decode(lines[0].removeprefix("data: "))
    assert event == {"state": "failed", "line": "it was not scored", "done": 0, "total": 0, "over": True}
    assert client.get("/api/submissions/none/events").status_code == 404
