"""What a claim costs with many submissions queued, alone and with several workers at once; none is given twice.

--url postgresql+psycopg://... takes another database than a new SQLite file. Goal: less than 1 ms a claim.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

from advgym.leaderboards.rules.board_tables import Quota
from advgym.leaderboards.store import jobs, submissions
from advgym.leaderboards.store.db import Store, open_store
from benchmarks._common import arguments, table

CARD = {"name": "queued", "track": "attack", "kind": ["field"], "knowledge": "score"}


def fill(store: Store, count: int, round_: str) -> None:
    """Queue `count` submissions of fifty teams."""
    everything = Quota(per_day=10**9, total=10**9)
    for i in range(count):
        team = f"team {i % 50}"
        submissions.submit(store, team, "bench", round_, "attack", "0" * 64, CARD, everything)


def drain(store: Store, name: str) -> tuple[list[float], list[str]]:
    """Claim until the queue is empty; milliseconds of each claim, and the ids."""
    times, ids = [], []
    while True:
        started = time.perf_counter()
        job = jobs.claim(store, name, 600)
        if job is None:
            return times, ids
        times.append((time.perf_counter() - started) * 1e3)
        ids.append(job.id)


def work(url: str, name: str, start: multiprocessing.Barrier, out: multiprocessing.Queue) -> None:  # type: ignore[valid-type]
    """One of several worker processes."""
    store = open_store(url)
    jobs.claim(store, name, 600)  # warm: connections, compiled statements
    start.wait()
    out.put(drain(store, name))


def row(label: str, times: list[float], wall: float) -> list[object]:
    """Median, 95th percentile and maximum in ms, and claims a second."""
    ordered = sorted(times)
    return [label, len(times), statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))], ordered[-1],
            len(times) / wall]  # fmt: skip


def main() -> None:
    args = arguments(__doc__ or "", url="", jobs=1000, workers=4)
    with tempfile.TemporaryDirectory() as folder:
        url = args.url or str(Path(folder) / "db.sqlite3")
        store = open_store(url)
        fill(store, 20, "warm")
        drain(store, "warm")
        fill(store, args.jobs, "one")
        started = time.perf_counter()
        times, _ = drain(store, "one")
        rows = [row("one worker", times, time.perf_counter() - started)]

        fill(store, args.jobs + args.workers, "many")
        store.close()
        context = multiprocessing.get_context("spawn")
        start, out = context.Barrier(args.workers + 1), context.Queue()
        crowd = [context.Process(target=work, args=(url, f"w{i}", start, out)) for i in range(args.workers)]
        for process in crowd:
            process.start()
        start.wait()
        started = time.perf_counter()
        found = [out.get() for _ in crowd]
        wall = time.perf_counter() - started
        for process in crowd:
            process.join()
        ids = [id for _, some in found for id in some]
        if len(set(ids)) != len(ids) or len(ids) != args.jobs:
            raise SystemExit(f"{len(ids)} claims of {args.jobs} jobs, {len(set(ids))} of them different")
        rows.append(row(f"{args.workers} workers", [t for some, _ in found for t in some], wall))
    head = ["claims with the queue full", "jobs", "median ms", "p95 ms", "max ms", "claims/s"]
    table("queue_claim", head, rows, args.json)


if __name__ == "__main__":
    main()
