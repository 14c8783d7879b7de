"""`advgym serve` from a fresh database: until it answers, and until the first example submission is scored.

The example is what `advgym new agent` writes, handed in to the board `image` as soon as the server answers; nothing is
trained. CPU seconds are the whole process tree's, sandboxes and all, until then. Goals: 3 s and 60 s.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx

from advgym.leaderboards.entries import card as cards
from advgym.leaderboards.store.db import open_store
from advgym.leaderboards.store.tokens import new_token
from benchmarks._common import arguments, table

TICK = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 300.0
MOMENTS = (
    "the server answers",
    "handed in",
    "a worker has it",
    "its first shard is over",
    "scored",
    "its page is shown",
)


def tree_cpu(root: int) -> float:
    """CPU seconds of a process, everything below it that lives, and what those have collected."""
    parents, used = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid], used[pid] = int(fields[1]), sum(map(int, fields[11:15])) / TICK
    mine = {root}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sum(used.get(pid, 0.0) for pid in mine)


def once(folder: Path, archive: bytes, board: str) -> list[tuple[float, float]]:
    """(wall seconds, CPU seconds) from the start to each of `MOMENTS`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, url = folder / "data", f"http://127.0.0.1:{port}"
    env = {**os.environ, "ADVGYM_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-m", "advgym", "serve", "--data", str(data), "--port", str(port)]
    started = time.monotonic()
    server = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)
    seen: list[tuple[float, float]] = []

    def now() -> None:
        seen.append((time.monotonic() - started, tree_cpu(server.pid)))

    try:
        with httpx.Client(timeout=30) as client:
            while not answers(client, url):
                if server.poll() is not None or time.monotonic() - started > PATIENCE_S:
                    raise SystemExit("advgym serve does not answer")
                time.sleep(0.02)
            now()
            store = open_store(data / "db.sqlite3")
            client.headers["authorization"] = f"Bearer {new_token(store, 'participant', 'first')}"
            store.close()
            answer = client.post(f"{url}/api/submissions", data={"board": board}, files={"archive": ("a", archive)})
            found = answer.raise_for_status().json()
            now()
            for over in (
                lambda s: s["state"] != "queued", lambda s: s["done"] > 0 or s["finished"], lambda s: s["finished"],
            ):  # fmt: skip
                while not over(found):
                    if time.monotonic() - started > PATIENCE_S:
                        raise SystemExit(f"not scored in time: {found}")
                    time.sleep(0.1)
                    found = client.get(f"{url}/api/submissions/{found['id']}").json()
                now()
            if found["state"] != "scored":
                raise SystemExit(f"the example failed: {found['reason']}: {found['text']}")
            client.get(f"{url}/entries/{found['entry']}").raise_for_status()
            now()
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
    return seen


def answers(client: httpx.Client, url: str) -> bool:
    """Whether the first page is there."""
    try:
        return client.get(url).status_code == 200
    except httpx.TransportError:
        return False


def main() -> None:
    args = arguments(__doc__ or "", board="image")
    runs = []
    for _ in range(args.repeat):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            new = [sys.executable, "-m", "advgym", "new", "agent", str(folder / "example")]
            subprocess.run(new, check=True, stdout=subprocess.DEVNULL)
            runs.append(once(folder, cards.pack(folder / "example"), args.board))
    rows: list[list[object]] = []
    before = [(0.0, 0.0)] * len(runs)
    for n, moment in enumerate(MOMENTS):
        wall, cpu = ([run[n][k] for run in runs] for k in (0, 1))
        step = [run[n][0] - b[0] for run, b in zip(runs, before, strict=True)]
        rows.append([moment, *map(statistics.median, (wall, step, cpu)), min(wall)])
        before = [run[n] for run in runs]
    load = "/".join(f"{x:.1f}" for x in os.getloadavg())
    title = f"seconds from `advgym serve` on, board {args.board}, {args.repeat} runs, load {load}; goals 3 s and 60 s"
    table(title, ["until", "median", "of it this step", "CPU", "least"], rows, args.json)


if __name__ == "__main__":
    main()
