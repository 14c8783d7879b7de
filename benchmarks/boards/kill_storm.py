"""`kill -9` of servers and workers at random points while submissions come in, run in sandboxes and are written down.

A server (`serve`, first by its command, with a worker of its own every third time) and a worker beside it share a data
folder; leases last 3 s. Each kill is drawn from `KINDS`, and whoever died is started again, forked from this process
where that saves the imports. A client hands in all the while, and sends a request that got no answer once more. In the
end everything handed in must be over: scored, failed by its own fault, or given up as "worker-lost" after three deaths
with its quota given back; nothing scored twice, the quota as it should be, the ledger whole, and a database rebuilt
from it the same.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from advgym.core.task import make_task
from advgym.leaderboards.entries import card as cards
from advgym.leaderboards.service.plan import Plan
from advgym.leaderboards.service.serve import run_worker, serve
from advgym.leaderboards.store import ledger, submissions
from advgym.leaderboards.store.db import open_store
from advgym.leaderboards.store.rebuild import rebuild
from advgym.leaderboards.store.record import check_record
from advgym.leaderboards.store.tokens import new_token
from benchmarks._common import arguments, table

KINDS = {  # what is killed, and when -> how often
    "server, at any time": 2, "server, in the middle of a submission": 3, "worker, at any time": 3,
    "worker, after a shard": 6, "worker, while an entry is written": 6,
}  # fmt: skip
TEAM = "storm"
OPEN = 3  # submissions that are queued or running at a time
CRASHES = 5  # every so many-th submission fails by its own fault
PATIENCE_S = 40.0  # for the moment that a kill waits for
CALM_S = 900.0  # for what is left when the storm is over
BOARD = """
title = "Storm"
opens = 2020-01-01T00:00:00Z
closes = 2040-01-01T00:00:00Z
tracks = ["attack"]
phases = { dev = { samples = 8, source = "split:test" } }
shards = { lanes = 2 }
limits = { cpu_s = 30.0, wall_s = 60.0, memory_mb = 1536, processes = 16 }
quota = { per_day = 100000, total = 100000 }
[[tasks]]
id = "image/digits-linf"
knowledge = "score"
queries = 20
"""
GOOD = 'from advgym import registry\n\ndef attack(env, *, seed):\n    registry.agent("square").attack(env, seed=seed)\n'
BAD = "def attack(env, *, seed):\n    raise ValueError('as it was meant to')\n"


def child(run: Callable[[], object], log: Path) -> int:
    """A forked process that has everything imported; what it writes goes to `log`."""
    pid = os.fork()
    if pid:
        return pid
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        run()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)


def below(pid: int) -> list[tuple[int, str]]:
    """(pid, command line) of the living children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state not in "ZX":
                found.append((int(path.name), (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()))
    return found


def reap() -> None:
    """Collect the dead; orphans come to this process, which is their subreaper."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


class Storm:
    """The processes, the client, and what was killed."""

    def __init__(self, root: Path, seed: int) -> None:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        self.dice, self.root, self.log = random.Random(seed), root, root.parent / "storm.log"
        self.boards = root.parent / "boards"
        self.boards.mkdir()
        (self.boards / "storm.toml").write_text(BOARD)
        self.db = root / "db.sqlite3"
        store = open_store(self.db)
        self.token = new_token(store, "participant", TEAM)
        new_token(store, "organiser", "")
        store.close()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.kills: Counter[str] = Counter()
        self.sent: dict[str, str] = {}  # key of a request -> id, "" while nobody answered
        self.bad: set[str] = set()  # ids that are to fail
        self.archives: dict[str, bytes] = {}
        make_task("image/digits-linf")  # imports what every fork would import
        self.starts = 0
        self.server, self.worker = self._serve(), self._work()

    def _plan(self, workers: int = 0) -> Plan:
        where = {"root": str(self.root), "db": str(self.db), "boards": str(self.boards)}
        return Plan(**where, workers=workers, lease_s=3, beat_s=0.5)

    def _serve(self) -> int:
        self.starts += 1
        if self.starts > 1:
            plan = self._plan(int(self.starts % 3 == 0))
            return child(lambda: serve(plan, "127.0.0.1", self.port), self.log)
        argv = [sys.executable, "-m", "advgym", "serve", "--port", str(self.port), "--data", str(self.root), "--boards",
                str(self.boards), "--workers", "1", "--lease", "3", "--heartbeat", "0.5"]  # fmt: skip
        return child(lambda: os.execv(argv[0], argv), self.log)

    def _work(self) -> int:
        return child(lambda: run_worker(self._plan(), 9), self.log)

    # -- the client ------------------------------------------------------------------------------------------
    def _archive(self, number: int) -> bytes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "agent.py").write_text(BAD if number % CRASHES == CRASHES - 1 else GOOD)
            (folder / "card.toml").write_text(
                f'name = "s{number}"\ntrack = "attack"\nkind = ["field"]\nknowledge = "score"\n'
            )
            return cards.pack(folder)

    def hand_in(self) -> bool:
        """The oldest request without an answer again, or a new one; whether it was answered."""
        key = next((k for k, id in self.sent.items() if not id), None)
        if key is None:
            key = f"k{len(self.sent)}"
            self.archives[key] = self._archive(len(self.sent))
            self.sent[key] = ""
        try:
            answer = httpx.post(
                f"http://127.0.0.1:{self.port}/api/submissions", data={"board": "storm", "key": key}, timeout=30,
                files={"archive": ("s.tar", self.archives[key])}, headers={"authorization": f"Bearer {self.token}"},
            )  # fmt: skip
        except httpx.HTTPError:
            return False
        if answer.status_code == 429:  # too many a minute
            time.sleep(1)
            return False
        answer.raise_for_status()
        self.sent[key] = answer.json()["id"]
        if int(key[1:]) % CRASHES == CRASHES - 1:
            self.bad.add(self.sent[key])
        return True

    # -- what is seen of the database ------------------------------------------------------------------------
    def running(self) -> list[tuple[int, int, int]]:
        """(pid of the worker, shards done, of how many) of the jobs that run."""
        query = "select worker, done, total from job where state = 'running'"
        return [(int(w.split("-")[-2]), done, total) for w, done, total in self._ask(query)]

    def open(self) -> int:
        """How many jobs are not over."""
        return int(self._ask("select count(*) from job where state in ('queued', 'running')")[0][0])

    def _ask(self, query: str) -> list[tuple[object, ...]]:
        db = sqlite3.connect(f"file:{self.db}?mode=ro", uri=True, timeout=30)
        try:
            return db.execute(query).fetchall()
        finally:
            db.close()

    # -- the kills -------------------------------------------------------------------------------------------
    def strike(self, kind: str) -> None:
        """Wait for the moment of a kind, kill, start again what is gone."""
        if kind == "server, in the middle of a submission":
            self._until(lambda: self._up())
            pid, delay = self.server, self.dice.uniform(0, 0.06)
            child(lambda: (time.sleep(delay), os.kill(pid, signal.SIGKILL)), self.log)
            self.hand_in()
            self._until(lambda: not Path(f"/proc/{pid}").exists())
        elif kind.startswith("server"):
            time.sleep(self.dice.uniform(0, 3))
            os.kill(self.server, signal.SIGKILL)
        else:
            pid = self._moment(kind)
            time.sleep(self.dice.uniform(0, 2) if "any" in kind else self.dice.uniform(0, 0.02))
            with suppress(ProcessLookupError):  # a worker of a dead server may have left by itself
                os.kill(pid, signal.SIGKILL)
        self.kills[kind] += 1
        self.tend()

    def _moment(self, kind: str) -> int:
        """The worker to kill, when its moment has come."""
        if "shard" in kind:
            at = self.dice.randrange(5)
            found = self._until(lambda: [p for p, done, total in self.running() if done >= at and total])
        elif "written" in kind:
            folder = self.root / "entries" / "storm"
            before = _changed(folder)
            busy = self._until(lambda: self.running() if _changed(folder) != before else None, every=0.0005)
            most = max((done for _, done, _ in busy or []), default=0)
            found = [p for p, done, _ in busy or [] if done == most]
        else:
            found = None
        workers = [pid for pid, line in below(self.server) if "spawn_main" in line]
        return self.dice.choice(found or [self.worker, *workers])

    def _until(self, seen: Callable[[], object], every: float = 0.01) -> object:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            self.tend()
            if found := seen():
                return found
            time.sleep(every)
        return None

    def _up(self) -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def tend(self) -> None:
        """Start again whoever died by our hand. The server's own worker is the server's to start."""
        reap()
        if not Path(f"/proc/{self.server}").exists():
            self.server = self._serve()
        if not Path(f"/proc/{self.worker}").exists():
            self.worker = self._work()

    def feed(self) -> None:
        """Hand in until enough jobs are open."""
        while self._up() and self.open() < OPEN and self.hand_in():
            pass

    def calm(self) -> None:
        """No more kills: every request gets its answer, every job its end; then everybody stops."""
        until = time.monotonic() + CALM_S
        while time.monotonic() < until and (self.open() or not all(self.sent.values())):
            self.tend()
            if self._up() and not all(self.sent.values()):
                self.hand_in()
            time.sleep(0.1)
        for pid in (self.server, self.worker):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + 300
        while below(os.getpid()) and time.monotonic() < until:
            reap()
            time.sleep(0.1)


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def verdict(storm: Storm) -> dict[str, int]:
    """What came of it; the names under `FAULTS` must be 0."""
    root, store = storm.root, open_store(storm.db)
    ids = set(storm.sent.values())
    found = {id: submissions.status(store, id, full=True) for id in ids if id}
    state = {id: s.state if s else "" for id, s in found.items()}
    gone = {id for id, s in found.items() if s and s.reason == "worker-lost"}
    failed = {id for id in state if state[id] == "failed"} - gone
    listed = {s.id for s in submissions.listing(store, limit=10**6)}
    lines = [str(line.body.get("submission")) for line in ledger.read(root) if line.kind == "entry"]
    scored = {id for id in state if state[id] == "scored"}
    other = open_store(root.parent / "rebuilt.sqlite3")
    again = rebuild(other, root)
    entries = {id: s.entry for id in scored if (s := submissions.status(other, id))}
    counts = {
        "handed in": len(storm.sent), "scored": len(scored), "failed by their own fault": len(failed & storm.bad),
        "given up after three deaths": len(gone),
        "second and third attempts": sum(s.attempts - 1 for s in found.values() if s),
        "lost": len([id for id in ids if state.get(id) not in ("scored", "failed")]),
        "there twice, or never handed in": len(listed - ids) + len(storm.sent) - len(ids),
        "scored twice": len(lines) - len(set(lines)),
        "scored, not in the ledger": len(scored - set(lines)), "in the ledger, not scored": len(set(lines) - scored),
        "failed for no reason": len(failed - storm.bad),
        "quota astray": abs(submissions.spent(store, TEAM, "storm", "dev")[1] - len(ids - gone)),
        "faults of the record": len(check_record(root)) + len(again),
        "other after a rebuild": sum(entries.get(id) != found[id].entry for id in scored),
        "processes left": len(below(os.getpid())),
    }  # fmt: skip
    store.close()
    other.close()
    return counts


FAULTS = (
    "lost", "there twice, or never handed in", "scored twice", "scored, not in the ledger", "in the ledger, not scored",
    "failed for no reason", "quota astray", "faults of the record", "other after a rebuild", "processes left",
)  # fmt: skip


def main() -> int:
    args = arguments(__doc__ or "", kills=200, seed=0)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="advgym-storm-") as name:
        tempfile.tempdir = os.environ["TMPDIR"] = f"{name}/tmp"  # what the killed leave behind goes with the rest
        for folder in ("tmp", "data"):
            (Path(name) / folder).mkdir()
        Path(name).chmod(0o755)
        (Path(name) / "tmp").chmod(0o1777)
        storm = Storm(Path(name) / "data", args.seed)
        kinds = list(KINDS)
        for _ in range(args.kills):
            storm.feed()
            storm.strike(storm.dice.choices(kinds, list(KINDS.values()))[0])
        storm.calm()
        counts = verdict(storm)
        if any(counts[fault] for fault in FAULTS):
            sys.stderr.write("".join(f"left: {pid} {line}\n" for pid, line in below(os.getpid())))
            sys.stderr.write(storm.log.read_text(errors="replace")[-8000:])
    used = [sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = {"wall seconds": round(time.monotonic() - started), "CPU seconds": round(sum(used))}
    if args.json:
        print(json.dumps({"kills": sum(storm.kills.values()), **counts, **seconds, "kinds": storm.kills}))
    else:
        rows: list[list[object]] = [[f"killed: {k}", storm.kills[k]] for k in kinds]
        rows += [[k, v] for k, v in {**counts, **seconds}.items()]
        table(f"kill storm, {args.kills} kills", ["what", "count"], rows)
    return 1 if any(counts[fault] for fault in FAULTS) else 0


if __name__ == "__main__":
    sys.exit(main())
