"""Kill what a sandbox without a process namespace left behind, when its zygote no longer can."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from advgym.leaderboards.sandbox import lockdown, watchdog


def kill_below(root: int, deadline: float) -> bool:
    """Kill everybody below `root`, then `root`. It is stopped meanwhile, so that orphans still come to it.

    Args:
        root: a child of this process, and the reaper of its descendants.
        deadline: of time.monotonic().

    Returns:
        Whether everybody is dead.
    """
    _signal(root, signal.SIGSTOP)

    def alive() -> set[int]:
        return {p.pid for p in watchdog.below(watchdog.everybody(), root)[1:] if p.state not in "ZX"}

    done = _kill_all(alive, deadline)
    _signal(root, signal.SIGKILL)
    return done


def kill_user(uid: int, deadline: float) -> bool:
    """Kill everybody who runs under a sandbox's own user id; whether they are dead."""
    return _kill_all(lambda: {pid for pid in watchdog.pids() if user(pid) == uid}, deadline)


def kill_strays(known: set[int], deadline: float) -> bool:
    """Kill children of this process that came to it as orphans of a sandbox: they carry more filters than it does.

    Args:
        known: zygotes that are alive and well.
        deadline: of time.monotonic().
    """
    mine = filters(os.getpid())

    def strays() -> set[int]:
        children = {p.pid for p in watchdog.everybody().values() if p.parent == os.getpid() and p.state not in "ZX"}
        return {pid for pid in children - known if filters(pid) > mine}

    found = strays()
    dead = _kill_all(strays, deadline)
    for pid in found:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return dead


def adopt() -> None:
    """Make orphans of this process's descendants its children, so that `kill_strays` finds them."""
    lockdown.prctl(lockdown.SUBREAPER, 1)


def user(pid: int) -> int:
    """The real user id of a process; -1 when there is none, or when it is dead and not yet collected."""
    text = _status(pid)
    return -1 if not text or b"\nState:\tZ" in text else int(_field(text, b"Uid:"))


def data_mb(pid: int) -> float:
    """What RLIMIT_DATA counts of a process, MB."""
    return int(_field(_status(pid), b"VmData:")) / 1024


def filters(pid: int) -> int:
    """How many seccomp filters a process carries (0 where the kernel does not tell)."""
    return int(_field(_status(pid), b"Seccomp_filters:"))


def tasks_of(uid: int) -> int:
    """Processes and threads that count against a user's limit."""
    return sum(p.threads for p in watchdog.everybody().values() if user(p.pid) == uid)


def _status(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _field(text: bytes, name: bytes) -> bytes:
    _, found, rest = text.partition(b"\n" + name)
    return rest.split()[0] if found else b"0"


def _kill_all(alive: Callable[[], set[int]], deadline: float) -> bool:
    """Stop first, so that nobody forks while others are killed."""
    stopped: set[int] = set()
    while (new := alive() - stopped) and time.monotonic() < deadline:
        for pid in new:
            _signal(pid, signal.SIGSTOP)
        stopped |= new
    if not stopped:
        return True
    while left := alive():
        if time.monotonic() > deadline:
            return False
        for pid in left:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.002)
    return True


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
