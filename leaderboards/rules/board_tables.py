"""The tables of a board's file, as they are once read: tasks, budgets, phases and limits."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

PHASES = ("dev", "test", "final")
TRACKS = ("attack", "defense")
WIDEN = 2.0  # times the constraint, within which proposals are evaluated


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one shard's process tree may use. Time that the victim takes is free.

    Attributes:
        size_mb: of the submission's files.
        job_s: wall seconds of a whole submission, the victim's time too: after them it ends, whatever is left to do.
    """

    cpu_s: float = 60.0
    wall_s: float = 120.0
    memory_mb: int = 2048
    processes: int = 32
    size_mb: int = 50
    job_s: float = 7200.0


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Submissions of a team: per day, and in all, for each phase."""

    per_day: int = 10
    total: int = 200


class Shards(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shard plan: `lanes` samples to a shard; order "listed" or "shuffled" (by the phase's secret)."""

    lanes: int = 64
    order: str = "listed"


class BoardTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task of a board: what an attacker may know and spend.

    Attributes:
        constraint: overrides the task's own.
        widen: beyond this many times the constraint nothing is evaluated. More than 2, which a task that tells
            decisions alone or wants the least distortion may need, lets the budgets of samples pool.
    """

    id: str
    knowledge: str
    queries: int
    gradients: int = 0
    goal: str = "untargeted"
    constraint: dict[str, Any] = {}
    widen: float = WIDEN


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a phase is scored.

    Attributes:
        samples: of each task.
        source: "split:NAME" (public data), "generator" (drawn under the phase's secret seed) or "path:DIR" (files on
            the server).
        seeds: K, runs of each sample; they feed only the agent's and the environment's draws.
    """

    samples: int
    source: str
    seeds: int = 1

    @property
    def hidden(self) -> bool:
        """Whether participants cannot know the samples."""
        return not self.source.startswith("split:")


class Defended(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The defense track.

    Attributes:
        panel: the baseline agents.
        floor: under clean accuracy, a share of the victim's.
        device: where a defense computes: "cpu", or "cuda", the worker's GPU (a worker without one cannot run it).
    """

    panel: list[str] = []
    floor: float = 0.95
    device: str = "cpu"


class Board(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A leaderboard, as its TOML says; `name` is the file's."""

    title: str
    opens: dt.datetime
    closes: dt.datetime
    tasks: list[BoardTask]
    phases: dict[str, Phase]
    name: str = ""
    summary: str = ""
    tracks: list[str] = msgspec.field(default_factory=lambda: list(TRACKS))
    weights: bool = False  # whether participants are handed the weights of the victims
    probes: bool = True
    shards: Shards = Shards()
    limits: Limits = Limits()
    quota: Quota = Quota()
    defense: Defended = Defended()
