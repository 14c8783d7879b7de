"""How many inputs a victim is asked about, counted where the model is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PHASES = ("making", "clean", "attack", "verdict", "control", "flags")


class Tally:
    """Inputs asked, by what they were asked for. Victims made from one another share it; the innermost counts."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.phase, self._calls = PHASES[0], 0

    def add(self, rows: int) -> None:
        """Count a call of the model."""
        self._calls += 1
        if rows:
            self.rows[self.phase] = self.rows.get(self.phase, 0) + rows

    @contextmanager
    def asking(self, rows: int) -> Iterator[None]:
        """Count what is asked within, unless somebody beneath does."""
        calls = self._calls
        try:
            yield
        finally:
            if self._calls == calls:
                self.add(rows)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Within it, inputs are asked for this."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def since(self, before: dict[str, int], more: dict[str, int] | None = None) -> dict[str, int]:
        """What has been asked beyond an earlier `rows`, and `more`."""
        found = {k: self.rows.get(k, 0) - before.get(k, 0) + (more or {}).get(k, 0) for k in PHASES}
        return {k: v for k, v in found.items() if v}
