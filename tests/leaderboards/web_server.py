"""A server for the pages' tests: a data folder, a store with submissions in every state, the application on a port."""

from __future__ import annotations

import atexit
import hashlib
import io
import shutil
import socket
import tarfile
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import uvicorn
import web_entries

from advgym.leaderboards.entries.entry import canonical
from advgym.leaderboards.service.app import create_app
from advgym.leaderboards.service.serve import server_config
from advgym.leaderboards.store import jobs, ledger
from advgym.leaderboards.store.db import open_store
from advgym.leaderboards.store.record import write_entry
from advgym.leaderboards.store.submissions import submit
from advgym.leaderboards.store.tokens import new_token

CARD = 'name = "tiny"\ntrack = "attack"\nkind = "field"\nknowledge = "score"\nlicence = "MIT"\n'
AGENT = "def attack(env, *, seed):\n    env.reset(seed=seed)\n"


def archive(files: dict[str, str] | None = None) -> bytes:
    """A tar of a submission's folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in (files if files is not None else {"card.toml": CARD, "agent.py": AGENT}).items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def write_card(root: Path, board: str, phase: str, **said: str) -> Path:
    """A phase's card, and the line of the ledger that names it."""
    card = {"board": board, "phase": phase, "commitment": "ab" * 32, **said}
    path = root / "phases" / board / f"{phase}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(canonical(card))
    digest = hashlib.sha256(canonical(card)).hexdigest()
    body = {"board": board, "phase": phase, "commitment": "ab" * 32, "card": digest}
    ledger.append(root, "close" if "closed" in said else "open", body)
    return path


def later() -> float:
    """A clock of which no entry of an open hidden phase is too young to be told."""
    return time.time() + 3600


class Site:
    """A store, a folder and an application over them."""

    def __init__(self, root: Path, board, clock=time.time) -> None:
        self.root, self.board = root, board
        self.store = open_store(root / "db.sqlite3", clock)
        self.app = create_app(self.store, root, {board.name: board})
        self.boss = new_token(self.store, "organiser", "")
        self.team = new_token(self.store, "participant", "Kestrel")
        self.other = new_token(self.store, "participant", "Fjord")

    def hand_in(self, name: str, team: str = "Kestrel", hidden: bool = False) -> str:
        return submit(
            self.store, team, self.board.name, "dev", "attack", "ab" * 32, {"name": name}, self.board.quota,
            hidden=hidden,
        )  # fmt: skip

    def busy(self) -> dict[str, str]:
        """One submission in every state, by state."""
        out = {"scored": self.hand_in("evolve"), "failed": self.hand_in("hasty")}
        out |= {"platform": self.hand_in("unlucky"), "running": self.hand_in("patience")}
        scored, failed, platform, running = (jobs.claim(self.store, f"worker-{i}", 60) for i in range(4))
        entry = next((self.root / "entries" / self.board.name).glob("*.rows.json")).name[:16]
        jobs.finish(self.store, scored, "worker-0", entry, "played 8 samples\n")
        log = 'Traceback (most recent call last):\n  File "agent.py", line 3, in attack\nNameError: <b>torch</b>\n'
        jobs.fail(self.store, failed, "worker-1", "crashed", "NameError: name 'torch' is not defined (line 3)", log)
        jobs.fail(self.store, platform, "worker-2", "victim-error", "no weights")
        jobs.heartbeat(self.store, running, "worker-3", 60, 7, 20)
        out["queued"] = self.hand_in("yes-or-no", "Fjord")
        return out


@contextmanager
def listening(app, proxy: bool = False):
    """The application on a port of its own, as `advgym serve` runs it; gives its URL."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(app, "127.0.0.1", 0, proxy=proxy))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    until = time.monotonic() + 300
    while not server.started:
        assert time.monotonic() < until, "the server did not start"
        time.sleep(0.02)
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    thread.join(60)
    sock.close()


def few(root: Path) -> Site:
    """A site of two tasks and four entries, scored for real."""
    shutil.copytree(_record(), root, dirs_exist_ok=True)
    return Site(root, web_entries.board())


@lru_cache(maxsize=1)
def _record() -> Path:
    """The record of that site; written once for all tests of a process."""
    root = Path(tempfile.mkdtemp(prefix="advgym-web-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for entry, rows in web_entries.few():
        write_entry(root, entry, rows)
    return root
