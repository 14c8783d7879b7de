"""What the API and the export say of a board, as JSON data and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec

from advgym.leaderboards.entries.entry import TaskScore
from advgym.leaderboards.rules.board import board_hash, public_data
from advgym.leaderboards.service.shelf import Book, Placed, Shelf
from advgym.leaderboards.service.told import SENTENCE


def board_summary(book: Book) -> dict[str, Any]:
    """One board in a list."""
    b = book.board
    return {
        "name": b.name, "title": b.title, "summary": b.summary, "opens": b.opens.isoformat(),
        "closes": b.closes.isoformat(), "tracks": b.tracks, "phases": list(b.phases),
        "tasks": [t.id for t in b.tasks], "entries": len(book.entries),
    }  # fmt: skip


def board_data(shelf: Shelf, book: Book) -> dict[str, Any]:
    """Everything that a board's pages are made of."""
    b = book.board
    return {
        **board_summary(book),
        "board": msgspec.to_builtins(b),
        "board_hash": board_hash(b),
        "ledger": shelf.head(),
        "phase_cards": {
            name: {"public_data": public_data(b, name), **msgspec.to_builtins(card)}
            for name, card in book.cards.items()
        },
        "tables": {
            phase: {track: [placed_data(p) for p in book.tables[phase, track]] for track in b.tracks}
            for phase in b.phases
        },
        "damaged": book.damaged,
        "withheld": {phase: SENTENCE for phase in b.phases if not book.published(phase)},
    }


def placed_data(p: Placed) -> dict[str, Any]:
    """One line of a ranking."""
    e = p.entry
    return {
        "rank": p.rank, "tied": p.tied, "entry": p.id, "name": e.name, "team": e.team, "origin": e.origin,
        "headline": msgspec.to_builtins(e.headline), "columns": e.columns, "created": e.created, "sandbox": e.sandbox,
        "eligible": e.eligible, "external": e.external, "unreliable": e.unreliable, "unranked": p.why,
        "footnote": e.footnote, "supersedes": e.supersedes, "cause": e.cause, "flags": e.flags,
        "tasks": {_key(s): s.success.value if s.status == "scored" else None for s in e.tasks},
        "measured": {_key(s): msgspec.to_builtins(s.columns) for s in e.tasks if s.columns},
    }  # fmt: skip


def _key(score: TaskScore) -> str:
    return f"{score.task}|{score.attack}" if score.attack else score.task


def safe_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula.

    >>> safe_cell("=1+1"), safe_cell("plain"), safe_cell(-0.5)
    ("'=1+1", 'plain', -0.5)
    """
    text = (isinstance(value, str) and value.lstrip().startswith(("=", "+", "-", "@"))) or (
        isinstance(value, str) and value.startswith(("\t", "\r", "\n"))
    )
    return f"'{value}" if text else value


def table_csv(table: Sequence[Placed]) -> str:
    """A ranking as CSV; behind the entry's columns the valid success on each task that has a bar."""
    columns = sorted({name for p in table for name in p.entry.columns})
    barred = sorted({_key(s) for p in table for s in p.entry.tasks if s.valid_success})
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    head = ["rank", "entry", "name", "team", "low", "value", "high", *columns]
    write.writerow([*head, *(f"valid {name}" for name in barred), "not ranked", "footnote"])
    for p in table:
        e, h = p.entry, p.entry.headline
        cells = ["" if p.rank is None else p.rank, p.id, e.name, e.team, h.low, h.value, h.high]
        cells += [e.columns.get(name, "") for name in columns]
        valid = {_key(s): s.valid_success.value for s in e.tasks if s.valid_success}
        cells += [valid.get(name, "") for name in barred]
        write.writerow([safe_cell(c) for c in [*cells, p.why, e.footnote]])
    return out.getvalue()
