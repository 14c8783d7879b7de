"""What an open hidden phase tells of an entry: its score. Every route and the export are walked for a number."""

import datetime as dt
import re
from types import SimpleNamespace

import msgspec
import pytest
import web_entries
import web_server
from fastapi.testclient import TestClient

from advgym.leaderboards.entries.entry import Entry, Interval, Measured
from advgym.leaderboards.rules.board_tables import Phase
from advgym.leaderboards.service.export import export
from advgym.leaderboards.service.told import SENTENCE, told
from advgym.leaderboards.store import jobs, ledger, record

PLANT = 0.7391823
WORD = "planted7391"
COUNT = 73918
TOLD = {"name", "team", "title", "licence", "track", "kind", "knowledge", "created", "headline", "eligible", "tasks"}
OWN = {"format", "board", "phase", "origin", "board_hash", "scorer", "sandbox", "device", "versions", "contract",
       "external", "unreliable", "supersedes", "cause", "rows", "transcript"}  # fmt: skip


def planted(entry: Entry) -> Entry:
    """Every figure, list and word that a submission steers holds the number."""
    one = Interval(PLANT, PLANT, PLANT)
    tasks = [
        msgspec.structs.replace(
            s, attack=f"{s.attack}{WORD}" if s.attack else "", robust=PLANT, clean_accuracy=PLANT,
            clean_undefended=PLANT, attacked=COUNT, assigned=COUNT, seeds=[PLANT], invalid_rate=PLANT,
            queries_mean=PLANT, queries_median=float(COUNT), gradients_mean=PLANT, distance_median=PLANT, area=PLANT,
            control_rate=PLANT, reasons={WORD: COUNT}, curve=[(COUNT, PLANT)], victim=s.victim, samples=WORD,
            flags=[WORD], members=COUNT, columns={WORD: Measured(mean=PLANT, bar=PLANT)}, columns_about={WORD: WORD},
            valid_success=one,
        )
        for s in entry.tasks
    ]  # fmt: skip
    columns = {name: PLANT for name in [*entry.columns, "area", "valid_success", "valid_success_low",
               "valid_success_high", "valid_robust", "valid_robust_low", "valid_robust_high"]}  # fmt: skip
    return msgspec.structs.replace(
        entry, phase="final", tasks=tasks, columns=columns, flags=[WORD], footnote=WORD, transcript=WORD,
        submission=WORD, code=WORD, proposals=COUNT, run_seeds=[COUNT], disputes=COUNT,
        created=entry.created[:17] + "37Z",
    )  # fmt: skip


def leaks(text: str) -> list[str]:
    """Where the number is, however it is written."""
    return re.findall(r".{0,60}(?:\.7391|73\.9|7391|73,918|>74<|74 %|T\d\d:\d\d:37).{0,20}", text)


@pytest.fixture
def site(tmp_path):
    """A server whose phase "final" is hidden and open, with an attack and a defense in it."""
    for entry, rows in web_entries.few():
        record.write_entry(tmp_path, planted(entry), rows)
    web_server.write_card(tmp_path, "showcase", "final", opened="2026-01-01")
    found = web_server.Site(tmp_path, web_entries.board(), web_server.later)
    yield found
    found.store.close()


def paths(site) -> list[str]:
    """Every address that tells of boards and entries."""
    out = [
        "/",
        "/about",
        "/boards/showcase",
        "/api/boards",
        "/api/boards/showcase",
        "/api",
        "/api/openapi.json",
        "/api/ledger",
        "/api/ledger/head",
    ]
    for track in ("attack", "defense"):
        out += [f"/boards/showcase/final/{track}{more}" for more in ("", "/1", ".csv")]
    for line in ledger.read(site.root):
        if line.kind == "entry":
            id = line.body["entry"]
            out += [f"/entries/{id}", f"/api/entries/{id}"]
    return out


def test_no_route_tells_a_planted_number(site):
    client = TestClient(site.app)
    every = {r.path for r in site.app.routes if "GET" in getattr(r, "methods", ())}
    walked = set()
    todo = paths(site)
    for path in todo:  # and the pages of teams that these name
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert leaks(answer.text) == [], path
        todo += sorted(set(re.findall(r'href="(/teams/[^"]+)"', answer.text)) - set(todo))
        walked |= {p for p in every if re.fullmatch(re.sub(r"\{[a-z]+\}", "[^/]+", p), path)}
    rest = every - walked  # of these none shows an entry
    assert rest <= {"/static/{name}", "/login", "/me", "/organise", "/submissions/{id}", "/api/submissions",
                    "/api/submissions/{id}", "/api/submissions/{id}/events", "/api/entries/{id}.rows",
                    "/api/organise/record"}  # fmt: skip
    for line in ledger.read(site.root)[:4]:
        assert client.get(f"/api/entries/{line.body['entry']}.rows").status_code == 404


def test_the_pages_tell_why(site):
    client = TestClient(site.app)
    for path in paths(site):
        if path.startswith(("/entries/", "/boards/showcase")) and not path.endswith(".csv"):
            assert SENTENCE in client.get(path).text
    assert client.get("/api/boards/showcase").json()["withheld"] == {"final": SENTENCE}


def test_the_export_tells_no_planted_number(site, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    old_ledger(site.root)
    export(site.root, {"showcase": site.board}, out)
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert sum(n.startswith("entries/") for n in names) == 4
    for path in out.rglob("*"):
        if path.is_file() and "static" not in path.parts:
            assert leaks(path.read_text()) == [], path


def old_ledger(root):
    """The same lines, written in January."""
    lines = ledger.read(root)
    ledger.path(root).unlink()
    for line in lines:
        ledger.append(root, line.kind, line.body, at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


def test_scores_are_told_and_the_rest_is_nothing(site):
    client = TestClient(site.app)
    for entry, _ in web_entries.few():
        whole = planted(entry)
        given = client.get(f"/api/entries/{whole.id}").json()
        kept = {name for name, value in given.items() if value not in ("", [], {}, None, 0, False)}
        assert kept <= TOLD | OWN
        back = msgspec.convert(given, Entry)
        assert (back.name, back.team, back.headline, back.eligible, back.created) == (
            entry.name, entry.team, entry.headline, entry.eligible, f"{entry.created[:16]}:00Z",
        )  # fmt: skip
        best = {s.task: max(t.success.value for t in whole.tasks if t.task == s.task) for s in whole.tasks}
        assert {s.task: s.success.value for s in back.tasks} == best
        for s in back.tasks:
            alone = msgspec.to_builtins(type(s)(task=s.task, status=s.status, knowledge=s.knowledge, success=s.success))
            assert msgspec.to_builtins(s) == alone
        assert told(whole) == back
    rows = client.get("/api/boards/showcase").json()["tables"]["final"]["attack"]
    assert len(rows) == 3 and all(row["columns"] == {} and row["flags"] == [] for row in rows)


def test_the_organiser_sees_all(site):
    client = TestClient(site.app)
    whole = planted(web_entries.few()[0][0])
    headers = {"authorization": f"Bearer {site.boss}"}
    raw = client.get(f"/api/entries/{whole.id}", headers=headers).content
    assert msgspec.json.decode(raw, type=Entry) == whole
    headers["authorization"] = f"Bearer {site.team}"
    assert leaks(client.get(f"/api/entries/{whole.id}", headers=headers).text) == []
    client.cookies.set("advgym_token", site.team)
    assert leaks(client.get(f"/entries/{whole.id}").text) == []
    client.cookies.set("advgym_token", site.boss)
    page = client.get(f"/entries/{whole.id}")
    assert WORD in page.text and leaks(page.text) and page.headers["cache-control"] == "no-store"
    client.cookies.clear()
    assert leaks(client.get(f"/entries/{whole.id}").text) == []


def test_a_mark_is_made_on_the_whole_entry(site):
    from advgym.leaderboards.service.desk import mark_entry
    from advgym.leaderboards.service.shelf import Shelf

    whole = planted(web_entries.few()[0][0])
    shelf = Shelf(site.root, {"showcase": site.board}, web_server.later)
    new = mark_entry(shelf, whole.id, "watched", True, False)
    kept = record.read_entry(site.root, new)
    assert kept is not None and kept.tasks == whole.tasks and kept.columns == whole.columns


def test_all_is_told_when_the_phase_closes(site):
    web_server.write_card(site.root, "showcase", "final", opened="2026-01-01", closed="2026-11-19")
    whole = planted(web_entries.few()[0][0])
    answer = TestClient(site.app).get(f"/api/entries/{whole.id}")
    assert msgspec.json.decode(answer.content, type=Entry) == whole


# -- when --------------------------------------------------------------------------------------------------------
class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def test_an_entry_is_told_when_its_step_of_time_is_over(tmp_path, monkeypatch):
    """Ledger, head, pages and status change together, at the same moment wherever in the step the job ended."""
    board = web_entries.board()
    board = msgspec.structs.replace(board, phases={**board.phases, "final": Phase(8, "generator", 2)})
    began = 1_800_000_000.0 // 3600 * 3600
    entry, rows = web_entries.few()[0]
    clock = Clock(began)
    monkeypatch.setattr(record, "time", SimpleNamespace(time=clock))
    web_server.write_card(tmp_path, "showcase", "final", opened="2026-01-01")
    site = web_server.Site(tmp_path, board, clock)
    client = TestClient(site.app)
    first = client.get("/api/ledger/head").json()
    for number, second in enumerate((1, 59, 100, 239)):
        start = began + 3600 * number
        clock.now = start
        id = site.hand_in("secret", hidden=True)
        job = jobs.claim(site.store, "w", 9999)
        clock.now = start + second
        made = record.write_entry(
            tmp_path, msgspec.structs.replace(planted(entry), name=f"n{number}"), rows, job.id, step_s=240
        )
        jobs.finish(site.store, job, "w", made)
        for now, seen in ((start + second, False), (start + 239.9, False), (start + 240, True)):
            clock.now = now
            assert (client.get(f"/entries/{made}").status_code == 200) == seen
            assert (client.get(f"/api/entries/{made}").status_code == 200) == seen
            assert (made in client.get("/api/ledger").text) == seen
            assert (client.get("/api/ledger/head").json() != first) == seen
            assert (made in client.get("/boards/showcase/final/attack").text) == seen
            state = client.get(f"/api/submissions/{id}", headers={"authorization": f"Bearer {site.team}"}).json()
            assert (state["state"], bool(state["entry"])) == (("scored", True) if seen else ("running", False))
        first = client.get("/api/ledger/head").json()
        assert first["head"]["at"].endswith(":00+00:00")
    site.store.close()


def test_what_stands_behind_a_young_line_waits_with_it(tmp_path):
    """A chain has no gaps."""
    entry, rows = web_entries.few()[0]
    record.write_entry(tmp_path, entry, rows)
    hidden = record.write_entry(tmp_path, planted(entry), rows)
    public = record.write_entry(tmp_path, msgspec.structs.replace(entry, name="public"), rows)
    site = web_server.Site(tmp_path, web_entries.board())
    text = TestClient(site.app).get("/api/ledger").text
    assert entry.id in text and hidden not in text and public not in text
    site.store.close()
