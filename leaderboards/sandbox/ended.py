"""How a turn went, and the limits that the kernel itself enforces on it."""

from __future__ import annotations

import math
import os
import signal

import msgspec

from advgym.leaderboards.rules.board_tables import Limits

KEPT = 4096  # bytes of output kept from its beginning, and as many from its end
OUTPUT_MB = 64  # more output than that ends the turn
FILE_MB = 64  # of one file
OPEN_FILES = 256


class Ended(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How a turn ended.

    Attributes:
        reason: "" when the child finished with exit 0 or was healthy when it was ended; else a code of reasons.toml.
        detail: fills the reason's sentence.
        cpu_s: of the whole process tree, dead ones included. wall_s: spent inside `Turn.clock`.
        peak_mb: the largest resident memory of the tree that was seen.
        exit: exit status, negative for a signal; None when it was ended by us.
        stderr_first, stderr_last: of its output (stdout and stderr together), at most 4 KB each, never overlapping.
    """

    reason: str = ""
    detail: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_mb: float = 0.0
    exit: int | None = None
    stderr_first: bytes = b""
    stderr_last: bytes = b""


class Output:
    """The first and the last bytes of a stream, and how long it was."""

    def __init__(self) -> None:
        self.first, self.last, self.size = b"", b"", 0

    def add(self, data: bytes) -> None:
        """Take what was read."""
        self.size += len(data)
        room = KEPT - len(self.first)
        self.first += data[:room]
        self.last = (self.last + data[room:])[-KEPT:] if room < len(data) else self.last


def rlimits(limits: Limits, *, base_mb: float, base_tasks: int, file_mb: int = FILE_MB) -> dict[str, int]:
    """The kernel's own limits, looser than the watchdog's, which gives the reason.

    Args:
        limits: of the board.
        base_mb: of data that the forked runtime has already.
        base_tasks: that count for the same user already.
        file_mb: largest file.
    """
    return {
        "RLIMIT_CPU": math.ceil(limits.cpu_s) + 1,  # of each process
        "RLIMIT_DATA": int(limits.memory_mb + base_mb) << 20,  # of each process; shared libraries are not counted
        "RLIMIT_NPROC": base_tasks + 2 * limits.processes + 8,
        "RLIMIT_FSIZE": file_mb << 20,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 1 << 26,
        "RLIMIT_MSGQUEUE": 0,
    }


def verdict(status: int | None, limits: Limits, cpu_s: float) -> tuple[str, str, int | None]:
    """Reason, detail and exit of a child that no limit of the watchdog ended; `status` is wait's (None: not known)."""
    if status is None:
        return "", "", None
    if os.WIFEXITED(status):
        code = os.WEXITSTATUS(status)
        if code == 0 and cpu_s <= limits.cpu_s + 0.5:
            return "", "", 0
        if code != 0 and cpu_s <= limits.cpu_s:
            return "exited", f"exit status {code}", code
        return "cpu-limit", cpu_said(cpu_s, limits), code
    number = os.WTERMSIG(status)
    if number == signal.SIGXCPU or cpu_s > limits.cpu_s:
        return "cpu-limit", cpu_said(cpu_s, limits), -number
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = str(number)
    return "exited", f"killed by signal {name}", -number


def cpu_said(cpu_s: float, limits: Limits) -> str:
    """The detail of a cpu-limit."""
    return f"{cpu_s:.1f} s used, {limits.cpu_s:g} s allowed"
