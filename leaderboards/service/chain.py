"""The ledger as a server tells it: read when its file changed, silent of an entry until its step of time is over."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path

from advgym.errors import DataError
from advgym.leaderboards.rules.board import told_step
from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.store import ledger
from advgym.leaderboards.store.submissions import STEP_S


class Chain:
    """The ledger of a server. Threads may share one.

    Args:
        root: the data folder.
        boards: by name.
        clock: epoch seconds.
    """

    def __init__(self, root: Path, boards: Mapping[str, Board], clock: Callable[[], float]) -> None:
        self.root, self.boards, self.clock = root, boards, clock
        self._known: tuple[tuple[int, ...], list[ledger.Line], list[str]] = (), [], []

    def read(self) -> tuple[list[ledger.Line], list[str]]:
        """The sound lines and the faults (`ledger.sound`), read again when the file has changed."""
        mark, lines, faults = self._known
        now = mark_of(ledger.path(self.root))
        if now != mark or not mark:
            try:
                lines, faults = ledger.sound(self.root)
            except DataError as error:
                lines, faults = [], [str(error)]
            self._known = now, lines, faults
        return lines, faults

    def step(self, board: str) -> int:
        """Seconds between the times that hidden phases of a board tell."""
        return told_step(self.boards[board]) if board in self.boards else STEP_S

    def told(self) -> list[ledger.Line]:
        """The sound lines before the first entry of an open hidden phase whose step of time is not over yet.

        Whoever asks all the time would else see when a submission ended, to the second.
        """
        lines, now = self.read()[0], self.clock()
        longest, end = max([STEP_S, *map(self.step, self.boards)]), len(lines)
        for at in range(len(lines) - 1, -1, -1):
            written = dt.datetime.fromisoformat(lines[at].at).timestamp()
            if now - written > 2 * longest:
                break
            if self._young(lines[at], written, now):
                end = at
        return lines[:end]

    def _young(self, line: ledger.Line, written: float, now: float) -> bool:
        board, phase = str(line.body.get("board")), str(line.body.get("phase"))
        about = self.boards[board].phases.get(phase) if board in self.boards else None
        if line.kind != "entry" or about is None or not about.hidden:
            return False
        step = self.step(board)
        closed = any(
            n.kind == "close" and (n.body.get("board"), n.body.get("phase")) == (board, phase) for n in self.read()[0]
        )
        return not closed and now < written // step * step + step


def mark_of(path: Path) -> tuple[int, ...]:
    """What changes with a file; () where there is none."""
    try:
        info = path.stat()
    except OSError:
        return ()
    # Also the time of the last change of the inode: nobody but the kernel sets that one.
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
