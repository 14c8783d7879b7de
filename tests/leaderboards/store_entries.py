"""Small entries and rows for the tests of the store."""

import hashlib

from advgym.judge.results import Sample
from advgym.leaderboards.entries.entry import Entry, Interval, Rows, RowSet, TaskScore, canonical


def made(board="image", team="reds", created="2026-11-20T10:00:00Z", blob="0" * 64, success=0.5, **more):
    """An entry and its rows, which hang together."""
    sample = Sample(
        id=3, label=1, before=1, after=2, success=True, valid=True, objective=0.1, queries=5, queries_distinct=5,
        first_success=4, gradients=0, distance=0.2, reason="success", perturbation=[[0, 1]],
    )  # fmt: skip
    rows = Rows(sets=[RowSet(task="digits-linf", seed=7, split="test", options={}, samples=[sample])])
    entry = Entry(
        board=board, phase="dev", track="attack", name="pgd", team=team, submission=blob, board_hash="b" * 64,
        scorer="c" * 64, created=created, headline=Interval(success, success - 0.1, success + 0.1),
        tasks=[TaskScore(task="digits-linf", status="scored", knowledge="score")],
        rows=hashlib.sha256(canonical(rows)).hexdigest(), transcript="d" * 64, sandbox="bwrap", device="cpu",
        versions={"advgym": "0.1.0"}, **more,
    )  # fmt: skip
    return entry, rows
