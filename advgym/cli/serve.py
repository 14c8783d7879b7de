"""`advgym serve` and `advgym token`: an organiser's side of the leaderboards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from advgym.cli.shared.command import Device, Json, Typer
from advgym.cli.shared.tables import emit

Data = Annotated[Path, typer.Option("--data", help="The server's data folder.", metavar="DIR")]
Db = Annotated[
    str | None,
    typer.Option("--db", help="postgresql+psycopg://..., or a file; DIR/db.sqlite3 without it.", metavar="URL"),
]
HERE = Path("advgym-data")

token = Typer(help="Who may hand in, and who organises.", no_args_is_help=True, rich_markup_mode="rich")


def database(data: Path, db: str | None) -> str:
    """The database that a command means."""
    return db or str(data / "db.sqlite3")


def make_folder(data: Path) -> None:
    """The data folder, which may exist."""
    from advgym.errors import DataError

    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{data} cannot be a data folder: {error.strerror}; name another with --data") from None


def check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, before anything starts."""
    import socket

    from advgym.errors import AdvgymError

    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise AdvgymError(f"cannot listen on {host}:{port}: {error.strerror}; name another --port or --host") from None


def serve(
    host: Annotated[str, typer.Option(help="Where to listen.", metavar="HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port.", min=0, max=65535, metavar="PORT")] = 8000,
    data: Data = HERE,
    db: Db = None,
    boards: Annotated[
        Path | None, typer.Option(help="A folder of boards beside those that ship.", metavar="DIR")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes that score; 0 for the pages alone.", min=0, max=1024, metavar="N")
    ] = 1,
    device: Device = "cpu",
    sandbox: Annotated[
        str | None, typer.Option(help="bwrap or landlock; the best there is without it.", metavar="LEVEL")
    ] = None,
    lease: Annotated[
        float, typer.Option(help="Seconds that a job is held for without a word.", min=1, max=86400)
    ] = 60.0,
    heartbeat: Annotated[float, typer.Option(help="Seconds between a worker's words.", min=0.1, max=86400)] = 10.0,
    engine: Annotated[str, typer.Option(help="local, or ray.", metavar="E")] = "local",
    proxy: Annotated[
        bool, typer.Option("--proxy", help="Believe X-Forwarded-For of a reverse proxy on this machine.")
    ] = False,
) -> int:
    """Host leaderboards: pages, API, queue and workers in one process tree. Ctrl-C stops all of it."""
    from advgym.cli.printing import err, escape, out
    from advgym.errors import AdvgymError
    from advgym.lib.extras import need

    for module in ("fastapi", "uvicorn", "sqlalchemy", "jinja2", "multipart"):
        need(module, "serve")
    from advgym.leaderboards.runs.engines import ENGINES
    from advgym.leaderboards.sandbox import LEVELS, best_level
    from advgym.leaderboards.service.plan import Plan, boards_of
    from advgym.leaderboards.service.serve import serve as run

    if sandbox is not None and sandbox not in LEVELS:
        raise AdvgymError(f"a sandbox is one of {', '.join(LEVELS)}, not {sandbox!r}")
    if engine not in ENGINES:
        raise AdvgymError(f"an engine is one of {', '.join(ENGINES)}, not {engine!r}")
    if heartbeat * 2 > lease:
        raise AdvgymError(f"a lease of {lease:g} s wants a heartbeat of at most {lease / 2:g} s, not {heartbeat:g}")
    plan = Plan(
        root=str(data), db=database(data, db), boards=None if boards is None else str(boards), workers=workers,
        device=device, level=sandbox, lease_s=lease, beat_s=heartbeat, engine=engine,
    )  # fmt: skip
    check_address(host, port)
    boards_of(plan)  # a board that cannot be read is said before a token is made
    made = first_token(plan.db, data)
    if made:
        out().print(f"organiser's token, shown once:  [bold]{made}[/]", soft_wrap=True, highlight=False)
    level = sandbox or best_level()
    out().print(f"advgym serves [cyan]http://{escape(host)}:{port}[/]  sandbox {level}, {workers} workers, data in "
                f"{escape(data)}", soft_wrap=True)  # fmt: skip
    if level == LEVELS[-1]:
        err().print("[bold red]unsandboxed[/]: whoever may hand in can do here whatever you can", soft_wrap=True)
    sys.stdout.flush()
    run(plan, host, port, proxy=proxy)
    return 0


def first_token(db: str, data: Path) -> str:
    """An organiser's token where there is none yet, else nothing."""
    from advgym.leaderboards.store.db import open_store, quick_check
    from advgym.leaderboards.store.tokens import list_tokens, new_token

    make_folder(data)
    store = open_store(db)
    try:
        quick_check(store)
        if any(t.role == "organiser" and not t.revoked for t in list_tokens(store)):
            return ""
        return new_token(store, "organiser", "")
    finally:
        store.close()


@token.command("new")
def new_token_(
    role: Annotated[str, typer.Option(help="participant, organiser or worker.", metavar="R")] = "participant",
    team: Annotated[str, typer.Option(help="A team is a name on a token.", metavar="NAME")] = "",
    days: Annotated[float, typer.Option(help="Until it ends.", min=0, max=36500, metavar="N")] = 365,
    data: Data = HERE,
    db: Db = None,
    as_json: Json = False,
) -> int:
    """Make a token and print it, once: only its hash is kept."""
    from advgym.leaderboards.store.db import open_store
    from advgym.leaderboards.store.tokens import new_token

    make_folder(data)
    made = new_token(open_store(database(data, db)), role, team, days)
    if as_json:
        emit({"token": made, "role": role, "team": team, "days": days})
    else:
        sys.stdout.write(made + "\n")
    return 0


@token.command("list")
def list_tokens_(data: Data = HERE, db: Db = None, as_json: Json = False) -> int:
    """Tokens by id: role, team, whether they hold."""
    import datetime as dt

    from advgym.cli.printing import escape, out
    from advgym.leaderboards.store.db import open_store
    from advgym.leaderboards.store.tokens import list_tokens

    found = list_tokens(open_store(database(data, db)))
    if as_json:
        emit([{"id": t.id, "role": t.role, "team": t.team, "revoked": bool(t.revoked), "expires": t.expires}
              for t in found])  # fmt: skip
        return 0
    for t in found:
        until = dt.datetime.fromtimestamp(t.expires, dt.UTC).date()
        state = "[red]revoked[/]" if t.revoked else f"until {until}"
        out().print(f"{t.id}  {t.role:<12} {escape(t.team or '–'):<24} {state}", soft_wrap=True, highlight=False)
    return 0


@token.command("revoke")
def revoke(id: Annotated[str, typer.Argument(metavar="ID")], data: Data = HERE, db: Db = None) -> int:
    """End a token, by the id that `advgym token list` shows."""
    from advgym.cli.printing import escape, out
    from advgym.errors import AdvgymError
    from advgym.leaderboards.store.db import open_store
    from advgym.leaderboards.store.tokens import revoke_token

    if not revoke_token(open_store(database(data, db)), id):
        raise AdvgymError(f"there is no token {id!r} that holds; `advgym token list` shows them")
    out().print(f"revoked {escape(id)}", soft_wrap=True)
    return 0
