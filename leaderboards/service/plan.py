"""What a server was asked for, as its workers and the nodes of a cluster are told."""

from __future__ import annotations

import msgspec

from advgym.leaderboards.rules.board import known, load
from advgym.leaderboards.rules.board_tables import Board


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a server was asked for; sent to its workers, so nothing in it is a secret but the database's URL."""

    root: str
    db: str
    boards: str | None
    workers: int = 1
    device: str = "cpu"
    level: str | None = None
    lease_s: float = 60.0
    beat_s: float = 10.0
    engine: str = "local"


def boards_of(plan: Plan) -> dict[str, Board]:
    """Every board of the server; a broken file is an error."""
    return {name: load(path) for name, path in known(plan.boards).items()}
