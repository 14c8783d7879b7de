"""What a sandbox is started with: what its zygote is told, the socket, the submission's files."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advgym.leaderboards.sandbox import bwrap, lockdown, paths, seccomp

RUNTIME = ("torch", "numpy", "msgspec", "gymnasium", "advgym")
BUFFER = 4 << 20  # bytes of the socket's buffers


def settings(
    level: str,
    *,
    uid: int | None,
    search: bool,
    submission: Path,
    scratch: Path,
    binds: Sequence[Path],
    gpu: bool,
    entry: str,
) -> dict[str, Any]:
    """What the zygote needs to know; nothing in here is a secret.

    Args:
        level: of isolation.
        uid: the user to become; None to stay who it is.
        search: keep the right to read any path.
        submission, scratch: folders on the host.
        binds: more paths to read. gpu: and the first NVIDIA device.
        entry: what a child calls.
    """
    inside = level == "bwrap"
    version = lockdown.landlock_version() if level == "landlock" else 0
    confined, scoped = level != "unsandboxed", version >= 6
    return {
        "level": level,
        "uid": uid,
        "search": search,
        "version": version,
        "paths": rules(submission, scratch, binds, gpu) if level == "landlock" else [],
        "proc": [("read", p) for p in paths.PROC],
        "filter": seccomp.build(files=level == "landlock").hex() if confined else "",
        "signals": seccomp.build_signals().hex() if level == "landlock" and not scoped else "",
        # a signal to everybody stays inside: a process namespace, a user of its own, or Landlock's scope
        "kill": "all" if inside or (confined and (uid is not None or scoped)) else "tree",
        "warm": RUNTIME,
        "entry": entry,
        "folder": bwrap.SUBMISSION if inside else str(submission),
        "scratch": bwrap.SCRATCH if inside else str(scratch),
        "wipe": [bwrap.SCRATCH, bwrap.SHARED] if inside else [],
    }


def rules(submission: Path, scratch: Path, binds: Sequence[Path], gpu: bool) -> list[tuple[str, str]]:
    """Landlock's rules: (grant, path)."""
    read = [*paths.SYSTEM, *paths.SINGLE, *paths.runtime(), *binds, submission, "/proc", *(["/sys"] if gpu else [])]
    device = [*paths.DEVICES, *(f"/dev/{name}" for name in paths.NVIDIA if gpu)]
    return [*(("read", str(p)) for p in read), *(("device", p) for p in device), ("scratch", str(scratch))]


def kernel() -> tuple[int, ...]:
    """The kernel's version: limits count by user namespace from 5.14 on."""
    return tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2])


def pair() -> tuple[socket.socket, socket.socket]:
    """A stream to a child, with large buffers where the kernel allows them."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    return ends


def copy(source: Path, target: Path) -> None:
    """Regular files and folders alone; links and everything else stay behind."""
    for entry in sorted(os.scandir(source), key=lambda e: e.name):
        info = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            (target / entry.name).mkdir()
            (target / entry.name).chmod(0o755)
            copy(Path(entry.path), target / entry.name)
        elif stat.S_ISREG(info.st_mode):
            shutil.copyfile(entry.path, target / entry.name, follow_symlinks=False)
            (target / entry.name).chmod(0o644)
