"""Users of their own for sandboxes, where the host is root: one each, so that limits by user count that box alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from pathlib import Path

from advgym.leaderboards.sandbox.ladder import SandboxError

FIRST, COUNT = 61000, 1000


def folder() -> Path:
    """Where the locks lie: the system's run folder, or the temporary one."""
    base = Path("/run") if os.access("/run", os.W_OK) else Path(tempfile.gettempdir())
    path = base / "advgym-sandboxes"
    path.mkdir(mode=0o700, exist_ok=True)
    info = path.lstat()
    if info.st_uid != os.geteuid() or path.is_symlink():
        raise SandboxError(f"{path} belongs to somebody else; remove it")
    return path


def leftovers(uid: int, parent: Path) -> list[Path]:
    """Folders of boxes that a killed host left under an id, which is taken again now: nobody else's."""
    found = []
    for path in parent.glob("advgym-box-*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just closed its box
            info = path.lstat()
            if stat.S_ISDIR(info.st_mode) and (info.st_uid, info.st_gid) == (os.geteuid(), uid):
                found.append(path)
    return found


class Slot:
    """A user id that no other sandbox on this machine has, until `release` or the end of this process."""

    def __init__(self) -> None:
        base = folder()
        for uid in range(FIRST, FIRST + COUNT):
            fd = os.open(base / str(uid), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                continue
            self.uid, self._fd = uid, fd
            return
        raise SandboxError(f"all {COUNT} user ids from {FIRST} are taken by other sandboxes; close some")

    def release(self) -> None:
        """Give the id back; nothing may run under it any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
