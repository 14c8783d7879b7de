"""What a process tree uses, from /proc: one scan serves every turn of this worker."""

from __future__ import annotations

import os
import threading
import time

import msgspec

PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
HERTZ = os.sysconf("SC_CLK_TCK")
FRESH = 0.03  # seconds a scan is used for
STRANGERS = 20  # scans after which processes outside every tree are looked at again


class Process(msgspec.Struct, frozen=True):
    """One line of /proc: ids, CPU seconds of its own and of its dead children, threads, resident MB."""

    pid: int
    parent: int
    state: str
    own_s: float
    children_s: float
    threads: int
    resident_mb: float


class Usage(msgspec.Struct, frozen=True):
    """What a tree uses: CPU seconds, MB, and processes with their threads."""

    cpu_s: float = 0.0
    memory_mb: float = 0.0
    tasks: int = 0


def read(pid: int) -> Process | None:
    """One process; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read()
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()  # from the state on; the name before may hold anything
    return Process(
        pid=pid,
        parent=int(fields[1]),
        state=fields[0].decode(),
        own_s=(int(fields[11]) + int(fields[12])) / HERTZ,
        children_s=(int(fields[13]) + int(fields[14])) / HERTZ,
        threads=int(fields[17]),
        resident_mb=int(fields[21]) * PAGE_MB,
    )


def pids() -> list[int]:
    """All process ids."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def everybody() -> dict[int, Process]:
    """All processes by id, read now."""
    return {pid: found for pid in pids() if (found := read(pid)) is not None}


class Scanner:
    """All processes by id. Those known to be nobody's business are read again only now and then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = -1.0
        self._table: dict[int, Process] = {}
        self._roots: dict[int, int] = {}
        self._count = 0

    def watch(self, root: int) -> None:
        """From now on the tree below `root` is somebody's business."""
        with self._lock:
            self._roots[root] = self._roots.get(root, 0) + 1
            self._at, self._count = -1.0, 0

    def forget(self, root: int) -> None:
        """The opposite of `watch`."""
        with self._lock:
            self._roots[root] = self._roots.get(root, 0) - 1
            if self._roots[root] <= 0:
                del self._roots[root]

    def tree(self, root: int) -> list[Process]:
        """`root`, then everybody below, parents before their children: CPU time is never counted twice."""
        with self._lock:
            if time.monotonic() - self._at > FRESH:
                self._scan()
            return below(self._table, root)

    def _scan(self) -> None:
        """Parents are read before their children wherever ids grow, and trees are read again, from the root."""
        old = self._table
        if self._count % STRANGERS == 0:
            old = {}
        self._count += 1
        ours = {p.pid for root in self._roots for p in below(old, root)}
        table: dict[int, Process] = {}
        for pid in sorted(pids()):
            known = old.get(pid)
            found = known if known is not None and pid not in ours else read(pid)
            if found is not None:
                table[pid] = found
        self._table, self._at = table, time.monotonic()


def below(table: dict[int, Process], root: int) -> list[Process]:
    """The tree under `root`, breadth first, `root` included where it is in the table."""
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    order = [root] if root in table else []
    for pid in order:
        order += [c for c in children.get(pid, ()) if c != root]
    return [table[pid] for pid in order]


SCANNER = Scanner()


def usage(tree: list[Process], base: Process | None) -> Usage:
    """What everybody below the first of `tree` uses, and what its dead children used since `base`."""
    if not tree or base is None:
        return Usage()
    root, *rest = tree
    alive = [p for p in rest if p.state not in "ZX"]
    cpu = root.children_s - base.children_s + sum(p.own_s + p.children_s for p in rest)
    return Usage(cpu, sum(p.resident_mb for p in alive), sum(p.threads for p in alive))


def proportional_mb(tree: list[Process]) -> float:
    """Memory of everybody below the first of `tree`, with shared pages shared out (14 ms for 9 processes).

    Resident memory counts the imported runtime once for every fork.
    """
    total = 0.0
    for process in tree[1:]:
        try:
            with open(f"/proc/{process.pid}/smaps_rollup", "rb") as file:
                line = next(line for line in file if line.startswith(b"Pss:"))
            total += int(line.split()[1]) / 1024
        except PermissionError:
            total += process.resident_mb
        except (OSError, StopIteration):  # it is gone
            continue
    return total
