"""Both databases for the tests of the store: a file, and a PostgreSQL server of our own, on a socket alone."""

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest
import sqlalchemy as sa

from advgym.leaderboards.store.db import open_store

BACKENDS = ("sqlite", "postgresql")
_schemas = iter(range(10**9))


class Clock:
    """Epoch seconds that move when told."""

    def __init__(self, now=1_800_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


@lru_cache(maxsize=1)
def server():
    """The URL of a running PostgreSQL server, or why there is none. It stops when the tests end."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3])) or [
        Path(p) for p in (shutil.which("initdb"),) if p
    ]
    if not found:
        return "", "no initdb; on Debian: apt-get install postgresql"
    binaries = found[-1].parent
    home = Path(tempfile.mkdtemp(prefix="advgym-pg-", dir="/tmp"))  # a socket's path has at most 107 bytes
    home.chmod(0o755)
    data = home / "data"
    data.mkdir()
    prefix = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = "postgres" if subprocess.run(["id", "postgres"], capture_output=True).returncode == 0 else "nobody"
        shutil.chown(data, user)
        prefix = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]
    log = home / "log"

    def run(program, *arguments):
        with log.open("ab") as out:  # a pipe would stay open in the server
            command = [*prefix, binaries / program, "-D", data, *arguments]
            return subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=500)

    options = f"-c listen_addresses='' -c unix_socket_directories={data} -c fsync=off -c max_connections=50"
    for step in (
        ("initdb", "-U", "advgym", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"),
        ("pg_ctl", "-w", "-t", "400", "-o", options, "start"),
    ):
        if run(*step).returncode:
            return "", f"{step[0]} failed: {log.read_text()[-500:]}"

    def stop():
        run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(home, ignore_errors=True)

    atexit.register(stop)
    return f"postgresql+psycopg://advgym@/postgres?host={data}", ""


def fresh(backend, folder):
    """The URL of an empty database."""
    if backend == "sqlite":
        return str(folder / "db.sqlite3")
    url, why = server()
    if not url:
        pytest.skip(f"postgresql missing: {why}")
    schema = f"t{next(_schemas)}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    engine.dispose()
    return f"{url}&options=-csearch_path%3D{schema}"


@pytest.fixture(params=BACKENDS)
def url(request, tmp_path):
    return fresh(request.param, tmp_path)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(url, clock):
    opened = open_store(url, clock)
    yield opened
    opened.close()
