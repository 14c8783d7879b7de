"""Temporary folders of jobs: locked while their owner lives, swept by whoever starts next when it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from advgym.leaderboards.sandbox.wipe import wipe

KINDS = ("audit", "baseline", "box", "intake", "job", "ray", "rival", "test")
HELD = ".held"  # the file in a folder that its owner keeps locked; the kernel lets go of it when the owner dies
YOUNG_S = 60.0  # a folder that is being made has no lock yet
PATIENCE_S = 30.0  # for one folder, whatever a stranger put into it


class WorkFolder:
    """A temporary folder `advgym-KIND-...`, until `close` or the end of this process.

    Args:
        kind: one of `KINDS`.

    Attributes:
        path: of it.
    """

    def __init__(self, kind: str) -> None:
        assert kind in KINDS
        made = Path(tempfile.mkdtemp(prefix=".advgym-new-"))
        self._fd = os.open(made / HELD, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = made.with_name(made.name.replace(".advgym-new-", f"advgym-{kind}-"))
        made.rename(self.path)  # it gets its name when the lock is held: no sweeper sees it without

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def close(self) -> None:
        """Remove it and what is in it; idempotent."""
        if self._fd < 0:
            return
        _remove(self.path)
        os.close(self._fd)
        self._fd = -1


def sweep() -> list[Path]:
    """Remove the folders of this user whose owners are dead; returns them. Those of a server that lives are left."""
    swept = []
    base = Path(tempfile.gettempdir())
    for path in sorted([*base.glob("advgym-*"), *base.glob(".advgym-new-*")]):
        if path.name.split("-")[1] not in (*KINDS, "new"):
            continue
        with contextlib.suppress(OSError):  # its owner has just removed it, or another sweeper is faster
            info = path.lstat()
            if stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and _abandoned(path, info.st_mtime):
                swept.append(path)
    return swept


def _abandoned(path: Path, made: float) -> bool:
    """Take a folder away whose lock nobody holds; whether it was one."""
    try:
        fd = os.open(path / HELD, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        if not path.name.startswith(".") or time.time() - made < YOUNG_S:
            return False
        return _remove(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _remove(path)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def _remove(path: Path) -> bool:
    """Whether all of it is gone; folders that a stranger closed or nested deep are taken apart first."""
    for inner in path.iterdir() if path.is_dir() else ():
        if inner.is_dir() and not inner.is_symlink():
            with contextlib.suppress(OSError):
                inner.chmod(0o700)
            wipe(str(inner), time.monotonic() + PATIENCE_S)
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()
