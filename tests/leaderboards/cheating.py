"""Hostile submissions: real folders, evaluated as a server would, in one warm sandbox of each level."""

from __future__ import annotations

import atexit
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import warm
from sandbox_play import need

from advgym.leaderboards.entries.card import check_folder, read_card
from advgym.leaderboards.entries.entry import Entry, Rows
from advgym.leaderboards.rules.board import load
from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.runs.evaluate import Failure, evaluate
from advgym.leaderboards.runs.shards import Runner, ShardRun
from advgym.leaderboards.runs.stage import Stage

LEVELS = ("bwrap", "landlock")
QUERIES, SAMPLES, LANES = 12, 6, 3  # two shards a run
BOARD = """
title = "Cheats"
opens = 2026-01-01T00:00:00Z
closes = 2100-01-01T00:00:00Z
[[tasks]]
id = "image/digits-linf"
knowledge = "{knowledge}"
queries = 12
{more}
[phases.dev]
samples = 6
source = "split:test"
[phases.test]
samples = 6
source = "generator"
seeds = 2
[shards]
lanes = 3
[limits]
cpu_s = 20
wall_s = 300
memory_mb = 1024
processes = 16
[defense]
panel = ["noise", "square", "pgd"]
floor = 0.9
"""
# A radius of a thousandth of a grey level, in which no decision of the victim changes: every success is a lie.
HONEYPOT = BOARD.format(knowledge="score", more="constraint = { eps = 1e-4, lattice = 0 }")
SOFT = BOARD.format(knowledge="score", more='constraint = { eps = "6/16" }')
WHITE = BOARD.format(knowledge="white-box", more="gradients = 4\nconstraint = { eps = 1e-4, lattice = 0 }")
OPEN = BOARD.format(knowledge="white-box", more='gradients = 12\nconstraint = { eps = "6/16" }')
# What every hostile file begins with: `tell` leaves a line in the log, which the tests read.
PREAMBLE = """
import json, os, sys
import torch
def tell(**said):
    print("SAID " + json.dumps(said), flush=True)
"""
NOISE = """
def attack(env, *, seed):
    env.reset(seed=seed)
    for i in range(20):
        if env.done:
            break
        env.step(env.threat.random(seed + i))
"""


@dataclass
class Outing:
    """What came of a submission."""

    entry: Entry | None
    rows: Rows | None
    runs: list[ShardRun]
    failure: Failure | None
    said: list[dict[str, Any]] = field(default_factory=list)

    @property
    def log(self) -> str:
        """All that was written."""
        parts = [r.first + r.last for r in self.runs]
        parts += [self.failure.first + self.failure.last] if self.failure else []
        return b"\n".join(parts).decode(errors="replace")

    @property
    def samples(self) -> list[Any]:
        """The judged rows."""
        return [] if self.rows is None else [s for rs in self.rows.sets for s in rs.samples]

    @property
    def gain(self) -> float:
        """Success rate that it was given: 0 for one that was not scored."""
        return 0.0 if self.entry is None else self.entry.tasks[0].success.value


class Place:
    """A level's warm sandbox, with secrets planted all around it."""

    def __init__(self, level: str) -> None:
        self.level = level
        self.canary = warm.CANARY
        self.folder = Path(tempfile.mkdtemp(prefix="advgym-cheats-"))
        self.folder.chmod(0o755)  # so that it is the sandbox that stands in the way, not the modes of files
        self.planted = [self.folder / name for name in ("labels.csv", "data/secrets/own-test.json", "data/db.sqlite3")]
        for path in self.planted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.canary)
            path.chmod(0o644)
            path.parent.chmod(0o755)
        self.swapped = warm.swapped(level)
        self.count = 0

    def write(self, code: str, track: str = "attack", **files: str | bytes) -> Path:
        """A submission's folder."""
        self.count += 1
        folder = self.folder / f"submission-{self.count}"
        folder.mkdir()
        card = {"attack": 'name = "c"\ntrack = "attack"\nknowledge = "decision"\n',
                "defense": 'name = "c"\ntrack = "defense"\n'}[track]  # fmt: skip
        every = {"card.toml": card, {"attack": "agent.py", "defense": "defense.py"}[track]: PREAMBLE + code, **files}
        for name, data in every.items():
            (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return folder

    def play(self, code: str | Path, text: str = HONEYPOT, *, phase: str = "dev", root: Path | None = None,
             track: str = "attack", **limits: Any) -> Outing:  # fmt: skip
        """Evaluate a submission at this level, as a worker does after it has unpacked it."""
        folder = code if isinstance(code, Path) else self.write(code, track)
        stage = stage_of(text, phase, root)
        board = stage.board
        if limits:
            board = msgspec.structs.replace(board, limits=msgspec.structs.replace(board.limits, **limits))
        card = read_card(folder)
        check_folder(folder, board, card)
        runner = Runner(_limited(stage, board), card, folder, lambda: self.swapped)
        runs: list[ShardRun] = []

        def engine(shards: Any, runner: Runner) -> Iterator[ShardRun]:
            for shard in shards:
                runs.append(runner.run(shard))
                yield runs[-1]

        entry = rows = failure = None
        try:
            entry, rows = evaluate(runner, created="2026-06-01T00:00:00Z", engine=engine)
        except Failure as error:
            failure = error
        found = Outing(entry, rows, runs, failure)
        lines = re.findall(r"^SAID (\{.*\})$", found.log, re.MULTILINE)
        found.said = [json.loads(line) for line in dict.fromkeys(lines)] if found.failure else [
            json.loads(line) for r in runs for line in re.findall(r"^SAID (\{.*\})$", _text(r), re.MULTILINE)
        ]  # fmt: skip
        return found

    def close(self) -> None:
        """The plants."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _text(run: ShardRun) -> str:
    return (run.first + run.last).decode(errors="replace")


def _limited(stage: Stage, board: Board) -> Stage:
    """The same warm stage under other limits."""
    if board is stage.board:
        return stage
    other = object.__new__(Stage)
    other.__dict__.update(stage.__dict__, board=board)
    return other


@cache
def board_of(text: str) -> Board:
    """A board from its TOML, named "own"."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "own.toml"
        path.write_text(text)
        return load(path)


@cache
def stage_of(text: str, phase: str = "dev", root: Path | None = None) -> Stage:
    """A phase, warm for all cheats of this process."""
    stage = Stage(board_of(text), phase, root)
    assert stage.tasks and stage.facts
    return stage


@cache
def opened(level: str) -> Place:
    """The one place of a level in this process."""
    place = Place(level)
    atexit.register(place.close)
    return place


@pytest.fixture(params=LEVELS)
def place(request: pytest.FixtureRequest) -> Place:
    """The level's place; one for all tests of this process."""
    need(request.param)
    return opened(request.param)


def each(**cheats: str) -> Callable[[Any], Any]:
    """Parametrise by named code."""
    return pytest.mark.parametrize("code", [pytest.param(c, id=n.replace("_", "-")) for n, c in cheats.items()])
