"""The tables: tokens, what was handed in, its job, a copy of the entries, rates. Times are epoch seconds."""

from __future__ import annotations

import sqlalchemy as sa

VERSION = 1  # of this schema

metadata = sa.MetaData()


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default="")


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default="0")


def _time(name: str, nullable: bool = True) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=nullable)


meta = sa.Table("meta", metadata, sa.Column("key", sa.Text, primary_key=True), _text("value"))

token = sa.Table(
    "token",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # short, for people
    sa.Column("hash", sa.Text, nullable=False, unique=True),  # SHA-256 of the token: the token itself is nowhere
    _text("role"),
    _text("team"),
    _text("scopes"),
    _time("created", nullable=False),
    _time("expires", nullable=False),
    _time("revoked"),
)

submission = sa.Table(
    "submission",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text),  # a client that saw no answer sends the same key again
    _text("board"),
    _text("phase"),
    _text("track"),
    _text("team"),
    _text("name"),
    _text("blob"),
    _text("card"),
    sa.Column("hidden", sa.Boolean, nullable=False),
    sa.Column("counted", sa.Boolean, nullable=False),  # against the quota
    _text("day"),
    _time("created", nullable=False),
    sa.UniqueConstraint("team", "key"),
    sa.Index("submission_quota", "team", "board", "phase", "day"),
)

job = sa.Table(
    "job",
    metadata,
    # Integer on SQLite: only that is its rowid.
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("submission", sa.Text, sa.ForeignKey("submission.id"), nullable=False, unique=True),
    _text("state"),
    _text("worker"),
    _number("attempts"),
    _time("lease"),  # until
    _time("seen"),  # last heartbeat
    _number("done"),
    _number("total"),
    _text("reason"),
    _text("detail"),
    _text("log"),
    _text("entry"),
    _time("started"),
    _time("finished"),
    sa.Index("job_queue", "state", "number"),
)

entry = sa.Table(
    "entry",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("seq", sa.Integer, nullable=False, unique=True),  # of its line in the ledger
    sa.Column("submission", sa.Text),
    _text("board"),
    _text("phase"),
    _text("track"),
    _text("body"),
    sa.Index("entry_board", "board", "seq"),
    sa.Index("entry_submission", "submission"),
)

rate = sa.Table(
    "rate",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("window", sa.BigInteger, primary_key=True),
    _number("count"),
)
