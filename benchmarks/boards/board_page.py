"""A board's page with a thousand entries, over HTTP: kept, after each new entry, and read again from the disk."""

from __future__ import annotations

import hashlib
import random
import socket
import tempfile
import threading
import time
from pathlib import Path

import httpx
import uvicorn

from advgym.leaderboards.entries.entry import Entry, Interval, Rows, TaskScore, canonical
from advgym.leaderboards.rules import board as boards
from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.scoring.scorer import scorer_hash
from advgym.leaderboards.service.app import create_app
from advgym.leaderboards.service.shelf import Shelf
from advgym.leaderboards.store import ledger
from advgym.leaderboards.store.db import open_store
from advgym.leaderboards.store.record import write_entry
from benchmarks._common import arguments, table

GOAL_MS = 100.0


def entry(board: Board, rng: random.Random, number: int) -> Entry:
    """An entry with the size of a real one; the figures are drawn at random."""
    scores = []
    for task in board.tasks:
        rate = rng.random()
        ci = Interval(rate, max(0.0, rate - 0.06), min(1.0, rate + 0.06))
        curve = [(q, rate * (i + 1) / 8) for i, q in enumerate((1, 2, 5, 10, 20, 50, 100, task.queries))]
        scores.append(
            TaskScore(
                task=task.id, status="scored", knowledge=task.knowledge, success=ci, attacked=60, assigned=64,
                seeds=[rate, rate], queries_mean=40.0, queries_median=30.0, distance_median=0.125, area=rate / 2,
                control_rate=0.02, reasons={"success": 60, "queries": 60}, curve=curve, clean_accuracy=0.97,
                samples="ab" * 32,
            )
        )  # fmt: skip
    mean = sum(s.success.value for s in scores) / len(scores)
    sha = hashlib.sha256(str(number).encode()).hexdigest()
    return Entry(
        board=board.name, phase="dev", track="attack", name=f"agent-{number}", team=f"Team {number % 40}",
        licence="MIT", kind=["field"], knowledge="score", submission=sha, code=sha, board_hash=boards.board_hash(board),
        scorer=scorer_hash(board), created=f"2026-03-01T00:00:{number % 60:02d}Z",
        headline=Interval(mean, max(0.0, mean - 0.04), min(1.0, mean + 0.04)),
        columns={"area": mean / 2, "attempted": 1.0, "queries_mean": 40.0, "invalid_rate": 0.0}, tasks=scores,
        rows=hashlib.sha256(canonical(Rows(sets=[]))).hexdigest(), transcript=sha, sandbox="bwrap", device="cpu",
        versions={"advgym": "0"}, run_seeds=[1, 2],
    )  # fmt: skip


def put_all(root: Path, entries: list[Entry]) -> None:
    """Many entries at once: as `write_entry`, with one lock and no search through the ledger."""
    folder = root / "entries" / entries[0].board
    folder.mkdir(parents=True)
    rows = canonical(Rows(sets=[]))
    prev, lines = ledger.ZERO, []
    for seq, e in enumerate(entries):
        (folder / f"{e.id}.json").write_bytes(canonical(e))
        (folder / f"{e.id}.rows.json").write_bytes(rows)
        body = {"entry": e.id, "sha": hashlib.sha256(canonical(e)).hexdigest(), "rows": e.rows, "board": e.board}
        line = ledger.seal(seq, prev, "2026-03-01T00:00:00+00:00", "entry", body)
        prev = line.hash
        lines.append(canonical(line) + b"\n")
    ledger.path(root).write_bytes(b"".join(lines))
    assert ledger.verify_chain(root) == []


def quantiles(times: list[tuple[float, float]]) -> list[float]:
    """Of the wall times median, p95 and the longest, of the CPU times p95; ms."""
    wall, cpu = (sorted(column) for column in zip(*times, strict=True))
    at = int(0.95 * len(times))
    return [1000 * v for v in (wall[len(wall) // 2], wall[at], wall[-1], cpu[at])]


def main() -> None:
    args = arguments(__doc__, entries=1000, requests=200, news=20)
    board, rng = boards.load("image"), random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        put_all(root, [entry(board, rng, i) for i in range(args.entries)])
        app = create_app(open_store(root / "db.sqlite3"), root, {board.name: board})
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True).start()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/boards/image/dev/attack"
        while not server.started:
            time.sleep(0.01)
        with httpx.Client() as client:

            def ask() -> tuple[float, float]:
                started, spent = time.perf_counter(), time.process_time()
                assert "agent-" in client.get(url).text
                return time.perf_counter() - started, time.process_time() - spent

            first = [ask()]
            kept = [ask() for _ in range(args.requests)]
            fresh = []
            for i in range(args.news):
                write_entry(root, entry(board, rng, args.entries + i), Rows(sets=[]))
                fresh.append(ask())
            # As visitors see it while a submission is scored every ten requests.
            mixed = []
            for i in range(args.requests):
                if i % 10 == 0:
                    write_entry(root, entry(board, rng, 10**6 + i), Rows(sets=[]))
                mixed.append(ask())
            size = len(client.get(url).content)
        read = []
        for _ in range(args.repeat):
            started, spent = time.perf_counter(), time.process_time()
            Shelf(root, {board.name: board}).book(board.name)
            read.append((time.perf_counter() - started, time.process_time() - spent))
        server.should_exit = True
    rows = [
        ["the first request of all", *quantiles(first)],
        ["kept", *quantiles(kept)],
        ["the first after a new entry", *quantiles(fresh)],
        ["a new entry every 10 requests", *quantiles(mixed)],
        ["reading the record from the disk alone", *quantiles(read)],
    ]
    title = f"board page, {args.entries} entries, {size / 1000:.0f} KB; goal p95 <= {GOAL_MS:.0f} ms"
    table(title, ["request", "median ms", "p95 ms", "longest ms", "p95 CPU ms"], rows, args.json)


if __name__ == "__main__":
    main()
