"""What an interrupted attack has finished: `<out>.partial`."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from advgym.errors import DataError
from advgym.judge.results import Sample
from advgym.lib import files


class Finished(msgspec.Struct, array_like=True):
    """One finished batch: seconds so far, its rows, the agent's error, and what its victim was asked."""

    seconds: float
    rows: list[Sample]
    error: str = ""
    asked: dict[str, int] = {}


class Checkpoint:
    """`<out>.partial`: a header line, then one line of JSON per finished batch; torn last lines are dropped."""

    def __init__(self, out: str | Path | None, key: str) -> None:
        self.path = None if out is None else self.place(out)
        self.rows: list[Sample] = []
        self.crashed: list[str] = []
        self.asked: dict[str, int] = {}  # in earlier runs of this attack
        self.seconds, self._started = 0.0, time.perf_counter()
        if self.path is None:
            return
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.is_file() else []
        if lines and lines[0] == key.encode():
            for line in lines[1:]:
                self._read(line)
            with self.path.open("r+b") as file:
                file.truncate(sum(len(line) + 1 for line in lines))
        else:
            files.write_atomic(self.path, key.encode() + b"\n")

    @staticmethod
    def place(out: str | Path) -> Path:
        """Where what is finished of a result lies until it is whole."""
        return Path(f"{out}.partial")

    def _read(self, line: bytes) -> None:
        try:
            batch = msgspec.json.decode(line, type=Finished)
        except msgspec.DecodeError as failure:
            raise DataError(f"{self.path} is damaged: {failure}; delete it to start over") from None
        self.seconds = batch.seconds
        self.rows += batch.rows
        self.crashed += [batch.error] if batch.error else []
        self.asked = {k: self.asked.get(k, 0) + batch.asked.get(k, 0) for k in {**self.asked, **batch.asked}}

    def add(self, rows: list[Sample], error: str = "", asked: dict[str, int] | None = None) -> None:
        """Append one finished batch, the agent's error if it crashed there, and the inputs that were asked for it."""
        self.crashed += [error] if error else []
        if self.path is not None:
            spent = self.seconds + time.perf_counter() - self._started
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(Finished(spent, rows, error, asked or {})) + b"\n")

    def close(self) -> None:
        """The result is written: the partial file goes."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def finished(path: Path) -> int:
    """Samples that a partial file holds, of whole lines; 0 where there is none."""
    lines = path.read_bytes().split(b"\n")[1:-1] if path.is_file() else []
    return sum(len(msgspec.json.decode(line, type=Finished).rows) for line in lines)
