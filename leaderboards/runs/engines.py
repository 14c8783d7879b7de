"""Engines place shards: one after the other here, or on a Ray cluster. They decide where, never what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from advgym.errors import unknown

if TYPE_CHECKING:
    from advgym.leaderboards.runs.shards import Runner, Shard, ShardRun

ENGINES = ("local", "ray")


class Engine(Protocol):
    """Runs the shards of a submission and gives what they gave, in the order of the plan."""

    def __call__(self, shards: list[Shard], runner: Runner) -> Iterator[ShardRun]: ...


def local(shards: list[Shard], runner: Runner) -> Iterator[ShardRun]:
    """One after the other, in this process."""
    return map(runner.run, shards)


def make_engine(name: str, plan: Any = None) -> Engine:
    """The engine of a name."""
    table: dict[str, Callable[[], Engine]] = {"local": lambda: local, "ray": lambda: _ray(plan)}
    if name not in table:
        raise unknown("engine", name, ENGINES)
    return table[name]()


def _ray(plan: Any) -> Engine:
    from advgym.leaderboards.runs.engine_ray import RayEngine

    return RayEngine(plan)
