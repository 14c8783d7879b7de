"""Two workers against one where the victim waits, as one on a busy device does: submissions scored per minute.

The victim sleeps in each forward. This file registers it as a plug-in would, so that every process finds it by an entry
point. One worker and two score the same submissions, in a data folder each, in rounds that take turns, from when every
worker has scored one and is idle. Goal: >= 1.8x.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgym import registry
from advgym.core.victim import Victim

TASK = "image/digits-waiting"
WAIT_S = float(os.environ.get("ADVGYM_WAIT_S", "0.25"))
GOAL = 1.8
QUERIES = 32
REST_S = 6.0  # a worker warms its next sandbox, which takes a few CPU seconds
BOARD = f"""
title = "Waiting"
opens = 2020-01-01T00:00:00Z
closes = 2040-01-01T00:00:00Z
tracks = ["attack"]
[[tasks]]
id = "{TASK}"
knowledge = "score"
queries = {QUERIES}
[phases.dev]
samples = 8
source = "split:test"
[shards]
lanes = 8
[quota]
per_day = 1000
total = 1000
"""
AGENT = (
    'from advgym import registry\n\ndef attack(env, *, seed):\n    registry.agent("square").attack(env, seed=seed)\n'
)
CARD = 'name = "s{}"\ntrack = "attack"\nkind = "field"\nknowledge = "score"\n'


class Waiting(torch.nn.Module):
    """A module behind a wait, once for each forward whatever the rows."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Scores (n, classes) of x (n, C, H, W)."""
        time.sleep(WAIT_S)
        return self.inner(x)  # type: ignore[no-any-return]


def waiting(*, name: str, inner: str, **_: Any) -> Victim:
    """The victim `inner` behind a wait."""
    from advgym.core.task import load_victim

    plain = load_victim(inner)
    assert plain.module is not None
    return Victim(Waiting(plain.module), name=name, card=plain.card)


registry.register_victim("digits-waiting", make="two_workers:waiting", inner="digits-cnn")
_row = {
    k: v for k, v in registry.task_row("image/digits-linf")[1].items() if k not in ("generator", "surrogate", "demo")
}
registry.register_task(TASK, **{**_row, "victim": "digits-waiting"})


class Fleet:
    """Some workers on a data folder of their own."""

    def __init__(self, root: Path, boards: Path, workers: int) -> None:
        from advgym.leaderboards.service.plan import Plan
        from advgym.leaderboards.service.serve import prepare, run_worker
        from advgym.leaderboards.store.db import open_store

        root.mkdir()
        plan = Plan(root=str(root), db=str(root / "db.sqlite3"), boards=str(boards))
        prepare(plan)
        self.root, self.store, self.count = root, open_store(plan.db), 0
        context = mp.get_context("spawn")
        self.crowd = [context.Process(target=run_worker, args=(plan, n), daemon=True) for n in range(workers)]
        for process in self.crowd:
            process.start()

    def warm(self) -> None:
        """Until every worker has scored one, and so has loaded the phase; a fast one may take several."""
        known: set[str] = set()
        while len(known) < len(self.crowd):
            known |= {s.worker for s in self._over([self._hand_in() for _ in self.crowd])}

    def score(self, count: int) -> float:
        """Wall seconds of `count` submissions; the sandboxes after them are warm again when this returns."""
        started = time.perf_counter()
        self._over([self._hand_in() for _ in range(count)])
        taken = time.perf_counter() - started
        time.sleep(REST_S)
        return taken

    def stop(self) -> None:
        """End the workers."""
        for process in self.crowd:
            process.terminate()
        for process in self.crowd:
            process.join()
        self.store.close()

    def _hand_in(self) -> str:
        from advgym.leaderboards.entries import card as cards
        from advgym.leaderboards.rules.board_tables import Quota
        from advgym.leaderboards.store import artefacts, submissions

        self.count += 1
        folder = self.root / f"s{self.count}"
        folder.mkdir()
        (folder / "agent.py").write_text(AGENT)
        (folder / "card.toml").write_text(CARD.format(self.count))
        blob = artefacts.put(self.root, cards.pack(folder))
        card = {"name": folder.name, "track": "attack"}
        return submissions.submit(self.store, "team", "waiting", "dev", "attack", blob, card, Quota(10**6, 10**6))

    def _over(self, ids: list[str]) -> list[Any]:
        from advgym.leaderboards.store.submissions import status

        while True:
            found = [s for id in ids if (s := status(self.store, id))]
            for s in found:
                if s.state in ("failed", "cancelled"):
                    raise SystemExit(f"a submission failed: {s.reason}: {s.text}")
            if all(s.state == "scored" for s in found):
                return found
            time.sleep(0.02)


def main() -> None:
    from _common import arguments, table

    args = arguments(__doc__ or "", submissions=4)
    times: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        about = Path(name) / "two_workers-0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: two_workers\nVersion: 0\n")
        (about / "entry_points.txt").write_text("[advgym]\nwaiting = two_workers\n")
        places = [name, str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
        boards = Path(name) / "boards"
        boards.mkdir()
        (boards / "waiting.toml").write_text(BOARD)
        fleets = {n: Fleet(Path(name) / f"data{n}", boards, n) for n in times}
        for fleet in fleets.values():
            fleet.warm()
        time.sleep(REST_S)
        for _ in range(args.repeat):
            for n, fleet in fleets.items():
                times[n].append(fleet.score(args.submissions))
        for fleet in fleets.values():
            fleet.stop()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = sum(fleet.count for fleet in fleets.values())
    middle = {n: statistics.median(values) for n, values in times.items()}
    ratio = statistics.median(one / two for one, two in zip(times[1], times[2], strict=True))
    rows: list[list[object]] = [
        [n, middle[n], 60 * args.submissions / middle[n], min(times[n]), 1.0 if n == 1 else ratio] for n in times
    ]
    head = ["workers", "seconds, median", "a minute", "seconds, least", "times one worker"]
    load = "/".join(f"{x:.1f}" for x in os.getloadavg())
    title = (
        f"{args.repeat} rounds of {args.submissions} submissions, {QUERIES} queries, {WAIT_S} s a forward; "
        f"{(used.ru_utime + used.ru_stime) / done:.1f} CPU s a submission, start included; load {load}; goal {GOAL}x"
    )
    table(title, head, rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
