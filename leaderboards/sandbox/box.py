"""A sandbox: started and warmed ahead of time, given to one submission, asked for one child after the other."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advgym.leaderboards.rules.board_tables import Limits
from advgym.leaderboards.sandbox import bwrap, inmates, launch, paths, scratch, watchdog, wipe
from advgym.leaderboards.sandbox.ended import rlimits
from advgym.leaderboards.sandbox.ladder import SandboxError, usable
from advgym.leaderboards.sandbox.slots import Slot, leftovers
from advgym.leaderboards.sandbox.turn import Turn
from advgym.leaderboards.sandbox.workfolder import WorkFolder

ENTRY = "advgym.leaderboards.boundary.inside:enter"
ZYGOTE = Path(__file__).with_name("zygote.py")
_OPEN: weakref.WeakSet[Box] = weakref.WeakSet()


class Box:
    """One sandbox, for one submission. It starts at once; importing the runtime goes on in the background.

    Args:
        level: of isolation; the best of this machine by default.
        binds: more paths that the inside may read.
        gpu: let it have the first NVIDIA device (defenses, where the board allows it).
        entry: what a child calls, "module:function" or "/path/file.py:function", with (socket, folder, role).

    Raises:
        SandboxError: when the level is missing here, or the sandbox does not start.
    """

    _warm: bool
    _stale: bool
    _root: int
    _control: socket.socket

    def __init__(
        self, level: str | None = None, *, binds: Sequence[Path] = (), gpu: bool = False, entry: str = ENTRY
    ) -> None:
        self.level = usable(level)
        self._binds, self._gpu, self._entry = tuple(Path(b).absolute() for b in binds), gpu, entry
        self._assigned = self._closed = False
        self._preparation: dict[str, Any] | None = None
        self._turn: Turn | None = None
        confined = self.level != "unsandboxed"
        self._slot = Slot() if confined and os.geteuid() == 0 else None
        self._work = WorkFolder("box")
        self._home = self._work.path
        self._folder, self._scratch = self._home / "submission", self._home / "scratch"
        self._folder.mkdir()
        self._folder.chmod(0o755)
        self._scratch.mkdir(mode=0o700)
        if self._slot is not None:  # that user, and nobody else, gets through
            os.chown(self._home, 0, self._slot.uid)
            self._home.chmod(0o750)
            os.chown(self._scratch, self._slot.uid, self._slot.uid)
            inmates.kill_user(self._slot.uid, time.monotonic() + 5)  # left by a host that was killed
            for left in set(leftovers(self._slot.uid, self._home.parent)) - {self._home}:
                wipe.wipe(str(left), time.monotonic() + 5)
                shutil.rmtree(left, ignore_errors=True)
        elif self.level == "landlock":
            inmates.adopt()
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        _OPEN.add(self)

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    # -- what the host does with it ----------------------------------------------------------------------------
    def wait(self, timeout: float = 300) -> None:
        """Until it is warm.

        Raises:
            SandboxError: with what was wrong, when it fails or takes longer than `timeout` seconds.
        """
        until = time.monotonic() + timeout
        while not self._warm:
            self.threads = self._await("ready", until)["threads"]
            self._warm = True
            if self._preparation is not None:
                self._talk(self._preparation)
                self._await("prepared", until)

    def prepare(self, call: str, *arguments: Any, timeout: float = 600) -> None:
        """Let the first process do some of our own work once, which every child then finds done.

        Args:
            call: "module:function"; arguments: JSON values.

        Raises:
            SandboxError: when it fails.
        """
        self.wait(timeout)
        self._preparation = {"prepare": call, "with": arguments}
        self._talk(self._preparation)
        self._await("prepared", time.monotonic() + timeout)

    def _await(self, word: str, until: float) -> dict[str, Any]:
        """The first process's next message, which must have this word."""
        left = until - time.monotonic()
        if left <= 0 or not select.select([self._control], [], [], left)[0]:
            raise SandboxError(f"the {self.level} sandbox was not {word} in time. {self._said()}")
        messages = self._hear()
        for message in messages:
            if word in message:
                return message
        if messages:
            raise SandboxError(f"the {self.level} sandbox failed: {messages[0].get('failed', '')}{self._said()}")
        return self._await(word, until)

    def assign(self, folder: Path) -> None:
        """Copy the submission's regular files to where the inside reads them. Once.

        Raises:
            RuntimeError: on a second call: a sandbox that one submission used is never given to another.
        """
        if self._assigned or self._closed:
            raise RuntimeError("this sandbox was used already; take a new one for every submission")
        self._assigned = True
        launch.copy(Path(folder), self._folder)

    def turn(self, limits: Limits, *, role: str) -> Turn:
        """Start a child with fresh memory and empty scratch folders.

        Args:
            limits: of the board.
            role: "agent" or "defense"; handed to the entry function.

        Raises:
            RuntimeError: when there is no submission yet, or when the last turn is not over.
            SandboxError: when it cannot be started.
        """
        if not self._assigned or self._closed:
            raise RuntimeError("assign a submission to this sandbox first; a closed one takes none")
        if self._turn is not None:
            raise RuntimeError("the last turn of this sandbox is not over; call its end()")
        if self._stale:
            self._stop()
            self._start()
        self.wait()
        ours, theirs = launch.pair()
        read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read, False)
        order = json.dumps({"role": role, "rlimits": self._rlimits(limits)}).encode() + b"\n"
        try:
            socket.send_fds(self._control, [order], [theirs.fileno(), write])
            self._turn = Turn(
                sock=ours,
                output=read,
                root=self._root,
                limits=limits,
                talk=self._talk,
                hear=self._hear,
                control=self._control.fileno(),
                scratch=self._overfull,
                kill=self._kill,
                over=self._over,
            )
        except OSError as error:
            self._stale = True
            ours.close()
            os.close(read)
            raise SandboxError(f"the {self.level} sandbox is dead: {error}. {self._said()}") from None
        finally:
            theirs.close()
            os.close(write)
        return self._turn

    def close(self) -> None:
        """Kill everything in it and remove its files; idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._turn is not None:
            self._turn.end()
        if hasattr(self, "_process"):
            self._stop()
        if self._slot is not None:
            self._slot.release()
        wipe.wipe(str(self._scratch), time.monotonic() + 30)
        self._work.close()

    # -- starting and stopping ---------------------------------------------------------------------------------
    def _start(self) -> None:
        """The process, and the first message to it. Its files have been made."""
        self._warm = self._stale = False
        self._buffer, self._look_again = b"", 0.0
        self._control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed in _stop)
        command = [sys.executable, "-s", "-P", "-B", str(ZYGOTE), str(inner.fileno())]
        try:
            if self.level == "bwrap":
                self._start_bwrap(command, inner.fileno())
            else:
                self._process = subprocess.Popen(
                    command,
                    env=paths.environment(str(self._scratch)),
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    pass_fds=[inner.fileno()],
                    start_new_session=True,
                )
                self._root = self._process.pid
        except OSError as error:
            raise SandboxError(f"the {self.level} sandbox cannot be started: {error}") from None
        finally:
            inner.close()
        self._talk(
            launch.settings(
                self.level,
                uid=self._slot.uid if self._slot else None,
                search=self._search(),
                submission=self._folder,
                scratch=self._scratch,
                binds=self._binds,
                gpu=self._gpu,
                entry=self._entry,
            )
        )

    def _start_bwrap(self, command: list[str], fd: int) -> None:
        read, write = os.pipe()
        try:
            root = bwrap.root_options(self._binds, self._folder, self._gpu)
            options = bwrap.options([*root, "--info-fd", str(write)], keep_search=self._search())
            self._process = bwrap.start(options, command, [fd, write], stderr=self._stderr.fileno())
        finally:
            os.close(write)
        with os.fdopen(read, "rb") as file:
            said = file.read()
        try:
            self._root = int(json.loads(said)["child-pid"])
        except (ValueError, KeyError):
            self._process.wait()
            raise SandboxError(f"bubblewrap did not start. {self._said()}") from None

    def _search(self) -> bool:
        """Whether the sandbox's own user could not read the runtime: it then keeps the right to read any path."""
        if self._slot is None:
            return False
        return not paths.others_can_read([*paths.runtime(), *self._binds], parents=self.level == "landlock")

    def _stop(self) -> None:
        """End the processes and collect them."""
        self._control.close()  # the zygote leaves by itself, unless it cannot
        self._kill()
        self._stderr.close()

    def _kill(self) -> None:
        """Kill everything in it, whatever state it is in."""
        self._stale = True
        until = time.monotonic() + 10
        if self.level == "bwrap":  # the first process of a namespace takes all others with it
            if self._process.poll() is None:  # while bubblewrap waits for it, its id is nobody else's
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._root, signal.SIGKILL)
        elif self._process.poll() is None:
            inmates.kill_below(self._root, until)
        elif self.level == "landlock" and self._slot is None:
            inmates.kill_strays({b._root for b in _OPEN if b is not self}, until)
        if self._slot is not None:
            inmates.kill_user(self._slot.uid, until)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _over(self, fit: bool) -> None:
        """A turn is over: clear what it left on the host's disk."""
        if self.level != "bwrap" and not wipe.wipe(str(self._scratch), time.monotonic() + 20):
            fit = False
        self._stale = self._stale or not fit
        self._turn = None

    # -- talking -----------------------------------------------------------------------------------------------
    def _talk(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a dead zygote is noticed by whoever listens
            self._control.sendall(json.dumps(message).encode() + b"\n")

    def _hear(self) -> list[dict[str, Any]]:
        """Whole messages that are there; {"gone": True} at the end."""
        try:
            data = self._control.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [*map(json.loads, lines), *([] if data else [{"gone": True}])]

    def _said(self) -> str:
        """What was written to stderr before the first child."""
        self._stderr.seek(0)
        return self._stderr.read(4096).decode(errors="replace").strip()

    def _rlimits(self, limits: Limits) -> dict[str, int]:
        alone = self._slot is not None or (self.level == "bwrap" and launch.kernel() >= (5, 14))
        tasks = 1 if alone else inmates.tasks_of(os.getuid()) + 64
        return rlimits(limits, base_mb=inmates.data_mb(self._root), base_tasks=tasks)

    def _overfull(self) -> str:
        if self.level == "bwrap":
            return ""  # the zygote looks after its file systems
        started = time.monotonic()
        if started < self._look_again:
            return ""
        found = scratch.overfull(self._scratch, [p.pid for p in watchdog.SCANNER.tree(self._root)[1:]])
        self._look_again = time.monotonic() + 5 * (time.monotonic() - started)  # a sixth of the time at most
        return found
