"""One child of a box: its socket, its clock, its limits, its end."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from advgym.leaderboards.rules.board_tables import Limits
from advgym.leaderboards.sandbox import watchdog
from advgym.leaderboards.sandbox.ended import OUTPUT_MB, Ended, Output, cpu_said, verdict

TICK = 0.1  # seconds between looks at what the tree uses
GRACE = 30.0  # seconds that the zygote has for clearing up, before the whole box is killed


class Turn:
    """A child at work. `sock` is the host's end of a stream to it; the rest is watched by a thread.

    Args:
        sock: the host's end.
        output: the read end of the pipe that carries the child's stdout and stderr.
        root: process id of the zygote, as the host sees it.
        limits: of the board.
        talk: sends a message to the zygote. hear: takes whole messages from it, without waiting.
        control: the descriptor that becomes readable when the zygote speaks.
        scratch: says what is wrong with the scratch folder ("" for nothing).
        kill: kills the whole box, for a zygote that does not answer. over: told once how it ended, and whether the box
            is fit for another turn.
    """

    def __init__(
        self,
        *,
        sock: socket.socket,
        output: int,
        root: int,
        limits: Limits,
        talk: Callable[[dict[str, Any]], None],
        hear: Callable[[], list[dict[str, Any]]],
        control: int,
        scratch: Callable[[], str],
        kill: Callable[[], None],
        over: Callable[[bool], None],
    ) -> None:
        self.sock = sock
        self._output_fd, self._root, self._limits = output, root, limits
        self._talk, self._hear, self._control = talk, hear, control
        self._scratch, self._kill, self._over = scratch, kill, over
        self._base = watchdog.read(root)
        self._output = Output()
        self._ended = Ended()
        self._report: dict[str, Any] | None = None
        self._wall, self._since = 0.0, None  # type: tuple[float, float | None]
        self._asked = threading.Event()
        self._why: tuple[str, str] = ("", "")
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="sandbox-turn", daemon=True)
        watchdog.SCANNER.watch(root)
        self._thread.start()

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        """Wall time counts in here alone: the host waits for the child."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._wall, self._since = self._walled(), None

    def allow(self, limits: Limits) -> None:
        """Go by other limits from now on; the kernel's own stay those that it was started with."""
        self._limits = limits

    def charge(self, seconds: float) -> None:
        """Put work that the host did for nothing on this clock."""
        self._wall += seconds

    def end(self) -> Ended:
        """Kill whatever is left of the child and of all that it started, and collect what is known of it."""
        self._ask("", "")
        self._thread.join()
        with self._lock:
            if not self._closed:
                self._closed = True
                self.sock.close()
        return self._ended

    def _walled(self) -> float:
        since = self._since
        return self._wall + (time.monotonic() - since if since is not None else 0.0)

    def _ask(self, reason: str, detail: str) -> None:
        """Have the zygote end it; the first reason counts."""
        with self._lock:
            if self._asked.is_set() or self._report is not None:
                return
            self._why = (reason, detail)
            self._asked.set()
        self._talk({"end": True, "gone": self._hung_up()})

    def _hung_up(self) -> bool:
        """Whether the child's end of the socket is closed."""
        poll = select.poll()
        poll.register(self.sock, 0)  # a hang-up is always told
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def _watch(self) -> None:
        """The thread: drain the output, look at the limits, wait for the report."""
        fit = False
        try:
            try:
                self._look_after()
            finally:
                if self._report is None:
                    self._kill()
            fit = self._report is not None and bool(self._report["clean"])
            self._drain()
        finally:
            watchdog.SCANNER.forget(self._root)
            os.close(self._output_fd)
            self._ended = self._collect()
            self._over(fit)

    def _look_after(self) -> None:
        looked = patience = 0.0
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._output_fd, select.POLLIN)
        while self._report is None:
            for fd, event in poll.poll(TICK * 1000):
                if fd == self._output_fd and not self._read() and event & select.POLLHUP:
                    poll.unregister(self._output_fd)
                elif fd == self._control:
                    for message in self._hear():
                        if "over" in message:
                            with self._lock:
                                self._report = message
                        elif "gone" in message:  # the zygote itself is dead
                            return
            now = time.monotonic()
            if self._asked.is_set():
                patience = patience or now + GRACE
                if now > patience:
                    return
            elif now - looked >= TICK:
                looked = now
                if found := self._broken():
                    self._ask(*found)

    def _broken(self) -> tuple[str, str] | None:
        """The limit that is broken now, if one is."""
        limits = self._limits
        tree = watchdog.SCANNER.tree(self._root)
        used = watchdog.usage(tree, self._base)
        self._ended.peak_mb = max(self._ended.peak_mb, used.memory_mb)
        self._ended.cpu_s = max(self._ended.cpu_s, used.cpu_s)
        if self._output.size > OUTPUT_MB << 20:
            return "output-limit", f"more than {OUTPUT_MB} MB of output"
        if used.cpu_s > limits.cpu_s:
            return "cpu-limit", cpu_said(used.cpu_s, limits)
        if used.tasks > limits.processes:
            return "process-limit", f"{used.tasks} processes and threads, {limits.processes} allowed"
        if used.memory_mb > limits.memory_mb:  # twice: who dies meanwhile leaves his share to others
            real = min(watchdog.proportional_mb(tree) for _ in range(2))
            if real > limits.memory_mb:
                return "memory-limit", f"{real:.0f} MB used, {limits.memory_mb} MB allowed"
        if (walled := self._walled()) > limits.wall_s:
            return "wall-limit", f"{walled:.1f} s waited, {limits.wall_s:g} s allowed"
        if full := self._scratch():
            return "output-limit", full
        return None

    def _read(self) -> bool:
        """Take what there is of the output; False when there is nothing."""
        try:
            data = os.read(self._output_fd, 1 << 20)
        except BlockingIOError:
            return False
        self._output.add(data)
        return bool(data)

    def _drain(self) -> None:
        """The rest; everybody who could write is dead, and a pipe holds 64 KB."""
        for _ in range(64):
            if not self._read():
                return

    def _collect(self) -> Ended:
        reason, detail = self._why
        report = self._report or {"own": True, "status": None, "cpu": 0.0, "peak_kb": 0, "full": ""}
        cpu = max(self._ended.cpu_s, report["cpu"])
        left: int | None = None
        if not reason and report["full"]:
            reason, detail = "output-limit", report["full"]
        elif not reason and self._report is None and not self._asked.is_set():
            reason, detail = "exited", "the sandbox died with it"
        elif not reason:
            status = report["status"]
            ours = not report["own"] and os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9
            reason, detail, left = verdict(None if ours else status, self._limits, cpu)
        return Ended(
            reason=reason,
            detail=detail,
            cpu_s=cpu,
            wall_s=self._walled(),
            peak_mb=max(self._ended.peak_mb, report["peak_kb"] / 1024),
            exit=left,
            stderr_first=self._output.first,
            stderr_last=self._output.last,
        )
