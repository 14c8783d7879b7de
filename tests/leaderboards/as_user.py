"""Run a command as an ordinary user although we are root and Python lies where he may not look."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

UID = 61234


def prefix(*folders: Path) -> list[str]:
    """What to put before a command: the same machine, seen by user 61234, for whom /root is empty but for Python.

    Args:
        folders: that he shall see too, although they lie in /root.
    """
    found = [shutil.which(name) for name in ("bwrap", "setpriv")]
    if None in found:
        raise RuntimeError("bwrap and setpriv are needed (apt-get install bubblewrap util-linux)")
    bwrap, setpriv = (str(f) for f in found)
    wanted = dict.fromkeys([Path(sys.base_prefix), Path(sys.prefix), *folders])
    seen = [p for p in wanted if p.is_relative_to("/root")]
    options = ["--dev-bind", "/", "/", "--perms", "0755", "--tmpfs", "/root"]
    for path in seen:
        for parent in [p for p in reversed(path.parents) if p.is_relative_to("/root") and p != Path("/root")]:
            options += ["--perms", "0755", "--dir", str(parent)]
        options += ["--ro-bind", str(path), str(path)]
    caps = ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return [bwrap, *options, *caps, setpriv, "--reuid", str(UID), "--regid", str(UID), "--clear-groups"]


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of that user's; pytest's own are closed to him, and opened ones are closed again by other runs."""
    folder = Path(tempfile.mkdtemp(prefix="advgym-user-"))
    os.chown(folder, UID, UID)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
