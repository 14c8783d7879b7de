"""`advgym serve`, `advgym token`, and a participant's commands against a real server."""

import contextlib
import json
import os
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import processes
import pytest

BOARD = """
title = "Tiny"
opens = 2026-01-01T00:00:00Z
closes = 2030-01-01T00:00:00Z
tracks = ["attack"]
[[tasks]]
id = "image/digits-linf"
knowledge = "score"
queries = 20
[phases.dev]
samples = 8
source = "split:test"
[phases.test]
samples = 8
source = "generator"
[shards]
lanes = 8
[limits]
cpu_s = 5.0
wall_s = 900.0
memory_mb = 1024
processes = 8
size_mb = 1
"""
CARD = 'name = "mine"\ntrack = "attack"\nkind = "field"\nknowledge = "score"\n'
GOOD = """
def attack(env, *, seed=0):
    env.reset(seed=seed)
    while not env.done:
        env.step(env.threat.random(seed))
"""
SLEEPS = "import time\n\ndef attack(env, *, seed=0):\n    time.sleep(900)\n"


def folder(root: Path, code: str = GOOD, card: str = CARD) -> Path:
    where = root / "mine"
    where.mkdir()
    (where / "card.toml").write_text(card)
    (where / "agent.py").write_text(code)
    return where


class Server:
    """A real `advgym serve` on a port of its own, in a process group of its own."""

    def __init__(self, root: Path, *options: str) -> None:
        (root / "boards").mkdir(exist_ok=True)
        (root / "boards" / "tiny.toml").write_text(BOARD)
        (root / "boards" / "stingy.toml").write_text(BOARD + "[quota]\nper_day = 1\ntotal = 5\n")
        self.root, self.data, self.seen = root, root / "data", set()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "advgym", "serve", "--port", str(self.port), "--data", str(self.data),
                   "--boards", str(root / "boards"), *options]  # fmt: skip
        with (root / "serve.out").open("w") as out, (root / "serve.err").open("w") as err:
            self.process = processes.start(command, stdout=out, stderr=err, start_new_session=True)

    def answers(self) -> bool:
        assert self.process.poll() is None, self.said("err")
        try:
            urllib.request.urlopen(self.url, timeout=60).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def said(self, stream: str = "out") -> str:
        return (self.root / f"serve.{stream}").read_text()

    def look(self) -> set[tuple[int, int]]:
        """Note every process of the tree: (pid, start)."""
        self.seen |= processes.family(self.process.pid)
        return self.seen

    def stop(self, how: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.look()
            self.process.send_signal(how)
        try:
            return self.process.wait(300)
        finally:
            self.process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(root))
        found = Server(root)
    try:
        processes.until(found.answers, "the server", every=0.1)
        yield found
    finally:
        found.stop(signal.SIGKILL)


@pytest.fixture
def token(advgym, server):
    """A new token of a team, by its name."""

    def make(team: str, role: str = "participant") -> str:
        answer = advgym("token", "new", "--role", role, "--team", team, "--data", server.data)
        assert answer.code == 0, answer.err
        return answer.out.strip()

    return make


@pytest.fixture
def as_team(advgym, server, token, monkeypatch):
    """The command line, with the address and a team's token in the environment."""

    def become(team: str):
        monkeypatch.setenv("ADVGYM_SERVER", server.url)
        monkeypatch.setenv("ADVGYM_TOKEN", token(team))
        return advgym

    return become


# -- without a server ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--sandbox", "docker"], "bwrap, landlock, unsandboxed"),
        (["--engine", "dask"], "local, ray"),
        (["--lease", "10", "--heartbeat", "8"], "at most 5 s"),
        (["--workers", "-1"], "--workers"),
        (["--port", "70000"], "--port"),
        (["--boards", "@nowhere"], "not a folder of boards"),
        (["--boards", "@broken"], "did you mean 'samples'"),
        (["--data", "@file"], "cannot be a data folder"),
    ],
    ids=lambda v: v[0] + v[1] if isinstance(v, list) else None,
)
def test_errors_of_the_organiser_exit_2(advgym, tmp_path, args, says):
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "mine.toml").write_text(BOARD.replace("samples = 8", "sampels = 8", 1))
    data = [] if "--data" in args else ["--data", tmp_path / "data"]
    answer = advgym("serve", *data, *[tmp_path / a[1:] if a.startswith("@") else a for a in args])
    assert answer.code == 2, answer.out + answer.err
    assert says in answer.err
    assert "Traceback" not in answer.err
    assert "token" not in answer.out, "no token is made for a server that does not start"


def test_a_port_that_is_taken(advgym, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = advgym("serve", "--port", port, "--data", tmp_path / "data")
    assert answer.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in answer.err
    assert answer.out == ""


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["new", "--role", "admin", "--team", "a"], "participant"),
        (["new"], "team"),
        (["new", "--team", "a", "--days", "0"], "days"),
        (["new", "--team", "x" * 100], "64"),
        (["revoke", "0123"], "advgym token list"),
    ],
    ids=lambda v: " ".join(v)[:30] if isinstance(v, list) else None,
)
def test_errors_about_tokens_exit_2(advgym, tmp_path, args, says):
    answer = advgym("token", *args, "--data", tmp_path / "data")
    assert answer.code == 2, answer.out + answer.err
    assert says in answer.err
    assert answer.out == ""


def test_a_token_is_shown_once_and_ends(advgym, tmp_path):
    data = ("--data", tmp_path / "data")
    text = advgym("token", "new", "--team", "[anna]", *data).out.strip()
    assert re.fullmatch(r"advgym_[\w-]{40,}", text)
    listed = advgym("token", "list", *data).out
    assert "[anna]" in listed
    assert text not in listed
    assert not [p for p in (tmp_path / "data").iterdir() if text.encode() in p.read_bytes()]
    id = listed.split()[0]
    assert advgym("token", "revoke", id, *data).code == 0
    assert "revoked" in advgym("token", "list", *data).out
    assert advgym("token", "revoke", id, *data).code == 2


# -- against a server ----------------------------------------------------------------------------------------
@pytest.mark.slow
def test_it_says_where_it_is_and_the_first_token_once(advgym, server):
    assert server.url in server.said()
    made = re.findall(r"advgym_[\w-]{40,}", server.said())
    assert len(made) == 1
    assert advgym("token", "list", "--data", server.data).out.count("organiser") == 1
    assert "Traceback" not in server.said("err")


@pytest.mark.slow
def test_tokens_that_do_not_hold(advgym, server, token, tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_SERVER", server.url)
    own = folder(tmp_path)
    for text in ("advgym_wrong", "nonsense", token("for a worker", "worker")):
        monkeypatch.setenv("ADVGYM_TOKEN", text)
        for args in (("submit", own, "--board", "tiny"), ("status", "s1"), ("cancel", "s1")):
            answer = advgym(*args)
            assert answer.code == 2, (args, answer)
            assert "token" in answer.err
            assert answer.out == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["submit", "@good", "--board", "tinny"], "there is no board 'tinny' here; there are: "),
        (["submit", "@good", "--board", "tiny", "--phase", "final"], "it has dev, test"),
        (["submit", "@good", "--board", "tiny", "--phase", "test"], "phase-closed"),
        (["submit", "@greedy", "--board", "tiny"], "too-much-knowledge"),
        (["submit", "@defense", "--board", "tiny"], "wrong-track"),
        (["submit", "@huge", "--board", "tiny"], "too-large"),
        (["submit", "@empty", "--board", "tiny"], "card.toml"),
        (["submit", "@good/card.toml", "--against", "0" * 16], "no entry"),
        (["status", "s000000000000"], "no submission"),
        (["cancel", "s000000000000"], "no submission"),
    ],
    ids=lambda v: " ".join(v[:5]).replace("@", "") if isinstance(v, list) else None,
)
def test_what_the_server_refuses(as_team, tmp_path, args, says):
    advgym = as_team("refused")
    for name, card in (
        ("good", CARD), ("greedy", CARD.replace("score", "white-box")), ("huge", CARD),
        ("defense", 'name = "mine"\ntrack = "defense"\n'),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        folder(tmp_path / name, card=card).rename(tmp_path / f"{name}-")
    (tmp_path / "huge-" / "weights.bin").write_bytes(b"\1" * (2 << 20))
    (tmp_path / "empty-").mkdir()
    there = [re.sub(r"^@(\w+)", lambda m: f"{tmp_path / m[1]}-", a) for a in args]
    answer = advgym(*there)
    assert answer.code == 2, answer.out + answer.err
    assert says in answer.err
    assert answer.out == ""


@pytest.mark.slow
def test_a_submission_from_end_to_end(as_team, tmp_path):
    advgym = as_team("anna")
    own = folder(tmp_path)
    answer = advgym("submit", own, "--board", "tiny", "--wait", "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["state"], found["team"], found["phase"]) == (0, "scored", "anna", "dev")
    assert re.fullmatch("[0-9a-f]{16}", found["entry"])
    shown = advgym("status", found["id"])
    assert shown.code == 0
    assert "scored" in shown.out
    assert found["entry"] in shown.out
    late = advgym("cancel", found["id"])
    assert late.code == 2
    assert "over already: scored" in late.err
    other = as_team("ben")("status", found["id"])
    assert other.code == 2
    assert "your team has no submission" in other.err


@pytest.mark.slow
def test_a_failure_says_why_and_what_it_wrote(as_team, tmp_path):
    advgym = as_team("carl")
    code = "def attack(env, *, seed=0):\n    print('as far as here', flush=True)\n    env.stpe(None)\n"
    answer = advgym("submit", folder(tmp_path, code), "--board", "tiny", "--wait")
    assert answer.code == 1
    assert "crashed" in answer.out
    assert "AttributeError" in answer.out
    assert "agent.py, line 3" in answer.out
    id = answer.out.split()[0]
    log = advgym("status", id, "--log")
    assert (log.code, log.out.strip()) == (0, "as far as here")
    assert json.loads(advgym("status", id, "--json").out)["blame"] == "participant"


@pytest.mark.slow
def test_the_team_s_list(as_team, tmp_path):
    advgym = as_team("dora")
    assert "nothing was handed in" in advgym("status").out
    ids = [advgym("submit", folder(tmp_path / str(i)), "--board", "tiny").out.split()[0] for i in made(tmp_path, 2)]
    listed = advgym("status", "--json")
    assert [s["id"] for s in json.loads(listed.out)] == ids[::-1]
    assert all(id in advgym("status").out for id in ids)
    for id in ids:
        advgym("cancel", id)


def made(root: Path, count: int) -> range:
    for i in range(count):
        (root / str(i)).mkdir()
    return range(count)


@pytest.mark.slow
def test_the_quota_is_spent_and_cancelling_gives_it_back(as_team, tmp_path):
    blocker = as_team("emil")
    (tmp_path / "slow").mkdir()
    busy = blocker("submit", folder(tmp_path / "slow", SLEEPS), "--board", "tiny").out.split()[0]
    processes.until(lambda: json.loads(blocker("status", busy, "--json").out)["state"] == "running", busy, every=0.1)
    advgym = as_team("fay")
    own = folder(tmp_path)
    first = advgym("submit", own, "--board", "stingy")
    assert "queued, place 1" in first.out
    again = advgym("submit", own, "--board", "stingy")
    assert again.code == 2
    assert "over-quota" in again.err
    assert "1 of 1 today" in again.err
    taken = advgym("cancel", first.out.split()[0])
    assert taken.code == 0
    assert "The quota was given back" in taken.out
    once_more = advgym("submit", own, "--board", "stingy")
    assert once_more.code == 0
    advgym("cancel", once_more.out.split()[0])
    blocker = as_team("emil")
    running = blocker("cancel", busy)
    assert "cancelled" in running.out
    assert "given back" not in running.out


# -- stopping ------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_stopping_leaves_no_process_and_loses_no_job(as_team, server, tmp_path):
    """The last test of this server. Ctrl-C stops the one of docs/challenge.md."""
    advgym = as_team("gwen")
    id = advgym("submit", folder(tmp_path, SLEEPS), "--board", "tiny").out.split()[0]
    processes.until(lambda: processes.sleepers(server.look()), "the submission", every=0.1)
    code = server.stop(signal.SIGTERM)
    assert code in (0, 130, 143, -signal.SIGTERM)
    assert "Traceback" not in server.said("err")
    assert processes.all_gone(server.seen)
    assert not list(server.root.glob("advgym-*")), "files of a sandbox outlived the server"
    assert state_of(server, id) == ("queued", 0, True)


def state_of(server: Server, id: str) -> tuple[str, int, bool]:
    from advgym.leaderboards.store.db import open_store
    from advgym.leaderboards.store.submissions import status

    store = open_store(str(server.data / "db.sqlite3"))
    try:
        found = status(store, id)
    finally:
        store.close()
    assert found is not None
    return found.state, found.attempts, found.counted


# -- starting on what is damaged -----------------------------------------------------------------------------
def tiny_record(root: Path) -> Path:
    """A data folder whose ledger has a line."""
    from advgym.leaderboards.rules.board import load
    from advgym.leaderboards.service.serve import open_public

    (root / "made").mkdir()
    (root / "made" / "tiny.toml").write_text(BOARD)
    open_public({"tiny": load(root / "made" / "tiny.toml")}, root / "data")
    return root / "data"


def test_a_server_does_not_start_on_a_broken_database_and_says_what_to_do(advgym, tmp_path):
    data = tiny_record(tmp_path)
    for args in (["serve", "--port", "0"], ["token", "new", "--team", "a"], ["board", "record"]):
        (data / "db.sqlite3").write_bytes(b"no database" * 900)
        answer = advgym(*args, "--data", data)
        assert answer.code == 2 and "Traceback" not in answer.err
        for word in ("delete the file", "db.sqlite3-wal", "Kept: the entries", "Lost: tokens"):
            assert word in " ".join(answer.err.split())


def test_board_record_checks_all_of_it(advgym, tmp_path):
    data = tiny_record(tmp_path)
    assert advgym("board", "record", "--data", data).code == 0
    card = data / "phases" / "tiny" / "dev.json"
    card.write_bytes(card.read_bytes().replace(b'"opened"', b'"opaned"'))
    answer = advgym("board", "record", "--data", data)
    assert answer.code == 1
    assert "phases/tiny/dev.json was changed" in " ".join(answer.out.split())
    assert advgym("verify", data).code == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_start_after_kill_9_says_what_is_damaged_and_sweeps(advgym, tmp_path, monkeypatch):
    """The ledger was changed meanwhile; what the killed worker had in its temporary folder goes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    data = tiny_record(tmp_path)
    first = Server(tmp_path)
    processes.until(first.answers, "the server", every=0.1)
    monkeypatch.setenv("ADVGYM_SERVER", first.url)
    team = advgym("token", "new", "--team", "a", "--data", data).out.strip()
    monkeypatch.setenv("ADVGYM_TOKEN", team)
    (tmp_path / "sub").mkdir()
    advgym("submit", folder(tmp_path / "sub", SLEEPS), "--board", "tiny")
    processes.until(lambda: processes.sleepers(first.look()), "the submission", every=0.1)
    left = set(tmp_path.glob("advgym-*"))
    assert {p.name.split("-")[1] for p in left} >= {"job", "box"}
    for pid in processes.alive(first.seen):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    first.process.wait(60)
    ledger = data / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"phase":"dev"', b'"phase":"final"'))
    second = Server(tmp_path, "--workers", "0")
    try:
        processes.until(second.answers, "the server", every=0.1)
        assert not left & set(tmp_path.glob("advgym-*"))
        assert "the record is damaged: ledger line 1 was changed" in " ".join(second.said("err").split())
        with urllib.request.urlopen(f"{second.url}/boards/tiny", timeout=60) as page:
            assert "Part of the record is damaged" in page.read().decode()
    finally:
        second.stop(signal.SIGKILL)
