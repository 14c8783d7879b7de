"""Rows, facts and scores made by hand, for the tests of scoring."""

from types import SimpleNamespace

from advgym.judge.contract import CONTRACT
from advgym.judge.results import Sample
from advgym.leaderboards.entries.entry import Entry, Interval, RowSet, TaskScore
from advgym.leaderboards.scoring.outcome import Facts


def sample(i, wins, **over):
    base = {
        "id": i, "label": 0, "before": 0, "after": int(wins), "success": wins, "valid": True,
        "objective": 1.0 if wins else -1.0, "queries": 10, "queries_distinct": 10,
        "first_success": 5 if wins else -1, "gradients": 0, "distance": 0.1,
        "reason": "success" if wins else "queries", "perturbation": None,
    }  # fmt: skip
    return Sample(**{**base, **over})


def rowset(wins, *, task="a", attack="", seed=0):
    """wins: {sample id: success}, or a list of samples."""
    rows = [sample(i, w) for i, w in wins.items()] if isinstance(wins, dict) else wins
    return RowSet(task=task, attack=attack, seed=seed, split="test", options={}, samples=rows)


def facts(n=10, *, right=None, seeds=(0,), **over):
    base = {
        "task": "a", "knowledge": "score", "split": "test", "queries": 20, "gradients": 0, "assigned": list(range(n)),
        "right": list(range(n)) if right is None else right, "seeds": list(seeds), "clean_accuracy": 0.9,
        "clean_undefended": 0.95, "victim": "v",
    }  # fmt: skip
    return Facts(**{**base, **over})


def board(*names, floor=0.9):
    return SimpleNamespace(
        name="b", tasks=[SimpleNamespace(id=n) for n in names], defense=SimpleNamespace(floor=floor, panel=[])
    )


def task_score(task, value, low=None, high=None, **over):
    interval = Interval(value, value if low is None else low, value if high is None else high)
    return TaskScore(task=task, status="scored", knowledge="score", success=interval, **over)


def entry(low, high=None, *, name="x", value=None, created="2026-01-01", **over):
    high = low if high is None else high
    base = {
        "board": "b", "phase": "dev", "track": "attack", "team": "t", "board_hash": "h", "scorer": "s", "tasks": [],
        "rows": "r", "transcript": "t", "sandbox": "bwrap", "device": "cpu", "versions": {}, "contract": CONTRACT,
    }  # fmt: skip
    mid = (low + high) / 2 if value is None else value
    return Entry(name=name, created=created, headline=Interval(mid, low, high), **{**base, **over})
