"""Real processes in tests: started as from a terminal, waited for, and everything that they left found."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 300.0  # for a machine that does much else; what is waited for ends a wait at once


def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
    """A process that Ctrl-C reaches, also where the tests run in the background of a shell, which ignores it."""
    return subprocess.Popen(
        command, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options
    )


def until(seen: Callable[[], Any], what: str, every: float = 0.02, patience_s: float = PATIENCE_S) -> Any:
    """What `seen` gives, as soon as it is something; `what` was waited for in vain otherwise."""
    end = time.monotonic() + patience_s
    while not (found := seen()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(every)
    return found


def born(pid: int) -> tuple[int, int, int] | None:
    """(pid, parent, start) of a process that is alive."""
    rest = proc(pid, "stat").decode(errors="replace").rpartition(")")[2].split()
    return None if not rest or rest[0] in "ZX" else (pid, int(rest[1]), int(rest[19]))


def family(root: int) -> set[tuple[int, int]]:
    """(pid, start) of a process and of every descendant."""
    found = [b for p in Path("/proc").iterdir() if p.name.isdigit() and (b := born(int(p.name)))]
    inside, more = {root}, True
    while more:
        more = {pid for pid, parent, _ in found if parent in inside} - inside
        inside |= more
    return {(pid, start) for pid, _, start in found if pid in inside}


def alive(seen: set[tuple[int, int]]) -> list[int]:
    """Those of them that still run."""
    return [pid for pid, start in seen if (b := born(pid)) and b[2] == start]


def all_gone(seen: set[tuple[int, int]]) -> bool:
    """Waits for their end."""
    return bool(until(lambda: not alive(seen), f"the end of {alive(seen)}", patience_s=60))


def sleepers(seen: set[tuple[int, int]]) -> list[int]:
    """The submission's own processes: those of a sandbox that sleep by the clock."""
    return [pid for pid in alive(seen) if b"zygote" in proc(pid, "cmdline") and b"nanosleep" in proc(pid, "wchan")]


def proc(pid: int, file: str) -> bytes:
    """A file of /proc/PID, empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""
