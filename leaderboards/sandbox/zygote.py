"""The first process in a sandbox: gives its rights away, imports the runtime, then forks one child for every turn.

Run by path (`python -s -P -B zygote.py FD`), never imported by the host. FD is the control socket: JSON lines from the
host, answers to it. A child never has it. This process runs no code of the submission.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import math
import os
import resource
import runpy
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

TICK = 0.1  # seconds between looks at the scratch folders and at orphans
FILES = 10_000  # more files and folders than that in the scratch folders end the turn
CLEANING = 20.0  # seconds to empty the scratch folders
LEAVING = 3.0  # seconds that a child has between closing its socket and being dead


def sibling(name: str) -> Any:
    """A module beside this file, under no name that the submission could import."""
    spec = importlib.util.spec_from_file_location(f"_sandbox_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Control:
    """The line to the host: whole JSON lines, and the file descriptors that came with them."""

    def __init__(self, fd: int) -> None:
        self.sock = socket.socket(fileno=fd)
        self.buffer = b""
        self.fds: list[int] = []

    def receive(self) -> dict[str, Any] | None:
        """The next message; None when the host is gone."""
        while b"\n" not in self.buffer:
            try:
                data, fds, _, _ = socket.recv_fds(self.sock, 1 << 20, 4)
            except ConnectionError:
                return None
            if not data:
                return None
            self.buffer += data
            self.fds += fds
        line, self.buffer = self.buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def send(self, **message: Any) -> None:
        """Answer; a host that is gone is noticed by the next receive."""
        with contextlib.suppress(OSError):
            self.sock.sendall(json.dumps(message).encode() + b"\n")


def lock(settings: dict[str, Any], kernel: Any) -> None:
    """Give the rights away, in the order in which each step is still allowed."""
    if settings["uid"] is not None:
        kernel.become(settings["uid"], settings["uid"], settings["search"])
    if sys.platform != "linux":
        return
    kernel.prctl(kernel.SUBREAPER, 1)  # orphans come back to this process
    if settings["level"] == "unsandboxed":
        return
    if settings["level"] == "bwrap":
        kernel.prctl(kernel.PARENT_DEATH, signal.SIGKILL)
    kernel.prctl(kernel.NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.SET_DUMPABLE, 0)  # children run under the same user: no look at this process's memory
    if settings["paths"]:
        kernel.landlock(settings["version"], settings["paths"])
    kernel.seccomp(bytes.fromhex(settings["filter"]))


def warm(names: list[str]) -> None:
    """Import the runtime; nearly all of it stays, so looking for garbage meanwhile would be a tenth of the time."""
    gc.disable()
    for name in names:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    gc.enable()


def prepare(control: Control, call: str, arguments: list[Any]) -> None:
    """Do some of the host's own work before children are forked."""
    try:
        entry(call)(*arguments)
        gc.collect()
        gc.freeze()
    except BaseException:
        control.send(failed=traceback.format_exc())
    else:
        control.send(prepared=True)


def seed() -> None:
    """What draws at random starts from the same state in every child (Python's own is drawn anew by a fork)."""
    for name, function in (("random", "seed"), ("numpy.random", "seed"), ("torch", "manual_seed")):
        if name in sys.modules:
            getattr(sys.modules[name], function)(0)


def entry(spec: str) -> Any:
    """The function "module:name" or "/path/file.py:name"."""
    where, _, name = spec.rpartition(":")
    if where.endswith(".py"):
        return runpy.run_path(where, run_name="entry")[name]
    return getattr(importlib.import_module(where), name)


def child(settings: dict[str, Any], kernel: Any, turn: dict[str, Any], fds: list[int], function: Any) -> None:
    """Everything of a turn that happens in the fresh process; does not return."""
    status = 1
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        keep, out = fds
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sock = os.dup2(keep, 3) if keep != 3 else 3
        os.closerange(4, max(fds) + 64)
        for name, fd in (("stdout", 1), ("stderr", 2)):
            setattr(sys, name, os.fdopen(fd, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False))
        os.setpgid(0, 0)
        os.chdir(settings["scratch"])
        if settings["level"] != "unsandboxed":
            kernel.prctl(kernel.SET_DUMPABLE, 1)  # so that the watchdog may look at it
        for name, value in turn["rlimits"].items():
            tighten(getattr(resource, name), value)
        if settings["paths"]:
            own = [(g, p) for g, p in settings["paths"] if p != "/proc"]
            kernel.landlock(settings["version"], [*own, ("read", "/proc/self"), *settings["proc"]])
        if settings["signals"]:
            kernel.seccomp(bytes.fromhex(settings["signals"]))
        seed()
        function(socket.socket(fileno=sock), settings["folder"], turn["role"])
        status = 0
    except SystemExit as leave:
        status = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status & 0xFF)


def tighten(which: int, value: int) -> None:
    """Set a limit for good, never above the one that is in force."""
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


class Turn:
    """One child and everything that it started."""

    def __init__(self, settings: dict[str, Any], control: Control, pid: int, tools: Any) -> None:
        self.settings, self.control, self.pid, self.tools = settings, control, pid, tools
        self.status: int | None = None
        self.cpu = 0.0
        self.peak_kb = 0
        self.full = ""

    def run(self) -> bool:
        """Wait for the child's end or the host's word, then clear everything away; False when the host is gone."""
        present = True
        watch = select.poll()
        watch.register(self.control.sock, select.POLLIN)
        fd = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else -1
        if fd >= 0:
            watch.register(fd, select.POLLIN)
        while self.status is None and not self.full:
            ready = {ready for ready, _ in watch.poll(TICK * 1000)}
            if self.control.sock.fileno() in ready or b"\n" in self.control.buffer:
                word = self.control.receive()
                present = word is not None
                if word is not None and word["gone"]:  # it is dying by itself: let it say how
                    self.dying()
                break
            self.reap(os.WNOHANG)
            self.full = self.scratch()
        if fd >= 0:
            os.close(fd)
        own = self.status is not None
        self.kill()
        self.reap(0)
        until = time.monotonic() + CLEANING
        clean = all([self.tools.wipe(path, until) for path in self.settings["wipe"]])
        self.control.send(
            over=True, own=own, status=self.status, cpu=self.cpu, peak_kb=self.peak_kb, full=self.full, clean=clean
        )
        return present

    def dying(self) -> None:
        """Wait for a child that closed its socket already."""
        until = time.monotonic() + LEAVING
        while self.status is None and time.monotonic() < until:
            self.reap(os.WNOHANG)
            time.sleep(0.001)

    def reap(self, flags: int) -> None:
        """Collect whoever is dead (flags 0: everybody)."""
        while True:
            try:
                pid, status, used = os.wait4(-1, flags)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.cpu += used.ru_utime + used.ru_stime
            self.peak_kb = max(self.peak_kb, used.ru_maxrss)
            if pid == self.pid:
                self.status = status

    def scratch(self) -> str:
        """What is wrong with the scratch file systems ("": nothing); they bound bytes, not the number of files."""
        for path in self.settings["wipe"]:
            info = os.statvfs(path)
            if info.f_files - info.f_ffree > FILES:
                return f"more than {FILES} files in {path}"
        return ""

    def kill(self) -> None:
        """Kill everybody else in the sandbox: at once where the kernel offers it, else stopped first."""
        if self.settings["kill"] == "all":
            signal_quietly(-1, signal.SIGKILL)
            return
        signal_quietly(-self.pid, signal.SIGKILL)  # its group at once; those who left it, below
        seen: set[int] = set()
        while new := descendants() - seen:
            for pid in new:
                signal_quietly(pid, signal.SIGSTOP)
            seen |= new
        while left := descendants():
            for pid in left:
                signal_quietly(pid, signal.SIGKILL)
            self.reap(os.WNOHANG)
            time.sleep(0.001)


def signal_quietly(pid: int, number: int) -> None:
    """Send a signal; somebody who is gone already does not mind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def descendants() -> set[int]:
    """Everybody alive below this process, by /proc (its children alone where there is none)."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit():
            try:
                state, parent = Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()[:2]
            except OSError:
                continue
            if state not in (b"Z", b"X"):
                parents[int(name)] = int(parent)
    found: set[int] = set()
    fresh = {os.getpid()}
    while fresh := {pid for pid, parent in parents.items() if parent in fresh} - found:
        found |= fresh
    return found


def confined() -> bool:
    """Whether a signal to everybody stays in the sandbox: the parent, outside, cannot be reached."""
    if os.getpid() == 1:
        return True
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return os.getuid() != 0
    return False


def main() -> None:
    """Lock, warm, serve."""
    control = Control(int(sys.argv[1]))
    settings = control.receive()
    if settings is None:
        return
    kernel, tools = sibling("lockdown"), sibling("wipe")
    try:
        lock(settings, kernel)
        if settings["kill"] == "all" and not confined():
            settings["kill"] = "tree"
        warm(settings["warm"])
        function = entry(settings["entry"])
    except BaseException:
        control.send(failed=traceback.format_exc())
        return
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else math.nan
    control.send(ready=True, threads=threads, kill=settings["kill"])
    while (turn := control.receive()) is not None:
        if "prepare" in turn:
            prepare(control, turn["prepare"], turn["with"])
            continue
        if "role" not in turn:  # "end", for a turn that was over by itself
            continue
        fds, control.fds = control.fds, []
        pid = os.fork()
        if pid == 0:
            control.sock.detach()
            child(settings, kernel, turn, fds, function)
        for fd in fds:
            os.close(fd)
        control.send(started=pid)
        if not Turn(settings, control, pid, tools).run():
            return


if __name__ == "__main__":
    main()
