"""What a sandbox adds to a bare subprocess with the same imports: milliseconds to the child's first byte.

cold: start, imports, submission, child. warm: submission and child, the box being one of the spares; this is what a
submission waits for. Rounds are interleaved; CPU milliseconds (of the host and of all that it started, to the end)
count no neighbours. `--imports numpy` shows what the sandbox itself costs, without the noise of importing torch.
Goal: cold <= bare + 25 ms at level bwrap.
"""

from __future__ import annotations

import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from advgym.leaderboards.rules.board_tables import Limits
from advgym.leaderboards.sandbox import LEVELS, Box, launch, missing, paths
from advgym.leaderboards.sandbox.box import ENTRY
from advgym.leaderboards.sandbox.launch import RUNTIME
from benchmarks._common import arguments, table

FIRST = "def enter(sock, folder, role):\n    sock.sendall(b'x')\n"


def cpu() -> float:
    """CPU seconds of this process and of everything below it that has ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def bare(folder: Path, modules: str) -> float:
    """A subprocess with the same imports and the same environment."""
    ours, theirs = socket.socketpair()
    code = f"import {modules}, socket; socket.socket(fileno={theirs.fileno()}).sendall(b'x')"
    started = time.perf_counter()
    command = [sys.executable, "-s", "-P", "-B", "-c", code]
    env = paths.environment(str(folder))
    with ours, subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], start_new_session=True) as process:
        theirs.close()
        assert ours.recv(1) == b"x"
        taken = time.perf_counter() - started
        process.wait()
    return taken


def boxed(level: str, folder: Path) -> tuple[float, float]:
    """From nothing, and from a warm box, to the first byte of its first child."""
    started = time.perf_counter()
    with Box(level, binds=[folder / "entry.py"], entry=f"{folder / 'entry.py'}:enter") as box:
        box.wait()
        warmed = time.perf_counter()
        box.assign(folder / "submission")
        turn = box.turn(Limits(), role="agent")
        assert turn.sock.recv(1) == b"x"
        now = time.perf_counter()
        turn.end()
    return now - started, now - warmed


def main() -> None:
    args = arguments(__doc__, imports="")
    own = ENTRY.partition(":")[0]
    modules = args.imports or ", ".join([*RUNTIME, own])
    launch.RUNTIME = tuple(args.imports.split(",")) if args.imports else RUNTIME
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "submission").mkdir()
        (folder / "submission" / "agent.py").write_text("# nothing\n")
        (folder / "entry.py").write_text(FIRST if args.imports else f"import {own}\n{FIRST}")
        levels = [level for level in LEVELS if level not in missing()]
        for level, why in missing().items():
            print(f"sandbox level missing: {level}: {why}", file=sys.stderr)
        times: dict[str, list[float]] = {"bare subprocess": []}
        times |= {f"{level}, {state}": [] for state in ("cold", "warm") for level in levels}
        cpus: dict[str, list[float]] = {}
        for turn in range(args.repeat + 1):
            used = cpu()
            once, spent = {"bare subprocess": bare(folder, modules)}, {"bare subprocess": cpu() - used}
            for level in levels:
                used = cpu()
                once[f"{level}, cold"], once[f"{level}, warm"] = boxed(level, folder)
                spent[f"{level}, cold"] = cpu() - used
            for label, seconds in once.items() if turn else ():  # the first round warms the disk's cache
                times[label].append(1000 * seconds)
            for label, seconds in spent.items() if turn else ():
                cpus.setdefault(label, []).append(1000 * seconds)
    bare_wall, bare_cpu = (statistics.median(t["bare subprocess"]) for t in (times, cpus))
    rows: list[list[object]] = []
    for label, values in times.items():
        median = statistics.median(values)
        spent_here = f"{statistics.median(cpus[label]) - bare_cpu:.1f}" if label in cpus else ""
        rows.append([label, median, min(values), median - bare_wall, median / bare_wall, spent_here])
    head = ["what", "median", "least", "added", "ratio", "added CPU"]
    table(f"start to first byte, ms, {args.repeat} rounds, importing {modules}", head, rows, args.json)


if __name__ == "__main__":
    main()
