"""The database: SQLite in one file, or PostgreSQL by URL, under the same code."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from advgym.errors import AdvgymError
from advgym.leaderboards.store import tables

BUSY_S = 30  # how long a writer waits for its turn
BROKEN = ("SQLITE_CORRUPT", "SQLITE_NOTADB")  # what SQLite calls a file that is not what it wrote
Clock = Callable[[], float]


class Corrupt(AdvgymError):
    """The database's file is damaged; the record is not in it, so it may be deleted."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"the database {path} is damaged: {why}. Stop the server, delete the file together with {path}-wal and "
            f"{path}-shm, and start again. Kept: the entries, the ledger, phases and the archives that were handed in; "
            f"what was scored is read back from them. Lost: tokens (make new ones), what waited in the queue, what "
            f"failed submissions took from the quotas, and the logs"
        )


class Store:
    """An open database and the clock that every time is taken from. Threads may share one; forked processes may not.

    Attributes:
        clock: gives epoch seconds.
    """

    def __init__(self, engine: sa.Engine, clock: Clock) -> None:
        self.engine = engine
        self.clock = clock
        self.dialect = engine.dialect.name
        self._writer = engine.execution_options(write=True)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that sees one state of the database and changes nothing."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, lock: str = "", durable: bool = True) -> Iterator[sa.Connection]:
        """A transaction: all of it or nothing.

        Args:
            lock: transactions with the same one never overlap.
            durable: False does not wait for PostgreSQL's disk; should its machine fall, the last of them are undone.
        """
        with self._writer.begin() as connection:
            if not durable and self.dialect == "postgresql":
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            if lock and self.dialect == "postgresql":  # SQLite has one writer at a time anyway
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(lock, 0))))
            yield connection

    def insert(self, table: sa.Table) -> Any:
        """An INSERT of this database's dialect, which knows `on_conflict_do_...`."""
        return (postgresql if self.dialect == "postgresql" else sqlite).insert(table)

    def close(self) -> None:
        """Give every connection back."""
        self.engine.dispose()


def open_store(url_or_path: str | Path, clock: Clock = time.time) -> Store:
    """Open a database, and make its tables where there are none.

    Args:
        url_or_path: a file for SQLite, or `postgresql+psycopg://user@host/name`.
        clock: epoch seconds.

    Raises:
        AdvgymError: it cannot be reached, or another version of advgym made it.
        Corrupt: an SQLite file that is not one any more.
    """
    url = _url(url_or_path)
    shown = url.render_as_string(hide_password=True)
    try:
        engine = sa.create_engine(url, pool_pre_ping=url.get_backend_name() == "postgresql")
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", _tune)
            sa.event.listen(engine, "begin", _begin)
            sa.event.listen(engine, "handle_error", _say_corrupt)
            _to_wal(engine)
        store = Store(engine, clock)
        _make_tables(store, shown)
    except (DBAPIError, sqlite3.Error, ModuleNotFoundError, NoSuchModuleError) as error:
        if _broken(getattr(error, "orig", error)):
            raise Corrupt(str(url.database), str(getattr(error, "orig", error))) from None
        why = str(getattr(error, "orig", error)).strip().partition("\n")[0]
        raise AdvgymError(f"cannot open the database {shown}: {why}") from None
    return store


def quick_check(store: Store) -> None:
    """Read every page of an SQLite file once, as a server does when it starts.

    Raises:
        Corrupt: a page is torn, or is missing.
    """
    if store.dialect != "sqlite":
        return
    with store.read() as connection:
        said = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA quick_check(3)")]
    if said != ["ok"]:
        raise Corrupt(str(store.engine.url.database), "; ".join(" ".join(line.split()) for line in said)[:300])


def _broken(error: Any) -> bool:
    return str(getattr(error, "sqlite_errorname", "")).startswith(BROKEN)


def _say_corrupt(context: sa.engine.ExceptionContext) -> None:
    """Wherever a damaged page is met, in words."""
    if _broken(context.original_exception) and context.engine is not None:
        raise Corrupt(str(context.engine.url.database), str(context.original_exception)) from None


def _url(given: str | Path) -> sa.URL:
    text = str(given)
    if "://" not in text:
        try:
            Path(text).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AdvgymError(f"cannot make the folder of {text}: {error.strerror}") from None
        return sa.URL.create("sqlite", database=text)
    try:
        url = sa.make_url(text)
    except ArgumentError:  # its message would show the password
        raise AdvgymError("not a database URL; write postgresql+psycopg://user@host/name, or a file's path") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise AdvgymError(f"no database {url.drivername!r}; use a file's path, or postgresql+psycopg://user@host/name")
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _tune(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours: the driver's own starts a write too late
    connection.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000}")
    connection.execute("PRAGMA synchronous = NORMAL")  # with WAL: safe against kill -9, and against a torn file
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    # A deferred transaction that turns to writing fails at once when another wrote meanwhile; this one waits.
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _to_wal(engine: sa.Engine) -> None:
    """Turn the write-ahead log on; SQLite does not wait for its turn here, so several openers try again."""
    until = time.monotonic() + BUSY_S
    while True:
        raw = engine.raw_connection()
        try:
            raw.driver_connection.execute("PRAGMA journal_mode = WAL")  # type: ignore[union-attr]
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)
        finally:
            raw.close()


def _make_tables(store: Store, shown: str) -> None:
    with store.write(lock="tables") as connection:
        if not sa.inspect(connection).has_table(tables.meta.name):
            tables.metadata.create_all(connection)
        row = {"key": "version", "value": str(tables.VERSION)}
        connection.execute(store.insert(tables.meta).values(row).on_conflict_do_nothing())
        found = connection.scalar(sa.select(tables.meta.c.value).where(tables.meta.c.key == "version"))
    if found != str(tables.VERSION):
        raise AdvgymError(
            f"the database {shown} has schema {found}; this version of advgym reads {tables.VERSION}. "
            f"Name a new one: what was scored is rebuilt from the ledger and the entries."
        )
