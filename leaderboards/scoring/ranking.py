"""The order of a board: by the lower bound, ties by overlap of intervals."""

from __future__ import annotations

from collections.abc import Container, Sequence

from advgym.errors import AdvgymError
from advgym.leaderboards.entries.entry import Entry
from advgym.leaderboards.scoring.intervals import sound


def rank(entries: Sequence[Entry], stale: Container[str] = ()) -> list[tuple[int | None, Entry]]:
    """(rank, entry) in the order of the table; entries that another supersedes are left out.

    Sorted by `headline.low`. The best entry opens rank 1 and everything below whose interval reaches up to its lower
    bound shares the rank; the first that does not opens the next rank, which counts all above it (1, 1, 3). Entries
    that cannot be ranked (`unranked`) stand at the end with None.

    Args:
        entries: of one board, phase and track.
        stale: ids of entries that are.
    """
    if len({(e.board, e.phase, e.track) for e in entries}) > 1:
        raise AdvgymError("only entries of one board, phase and track can be ranked together")
    gone = {e.supersedes for e in entries}
    alive = {e.id: e for e in entries}
    left = [(key, e) for key, e in alive.items() if key not in gone]
    good = [(key, e) for key, e in left if not unranked(e, stale, key)]
    bad = [(key, e) for key, e in left if unranked(e, stale, key)]
    good.sort(key=lambda item: (-item[1].headline.low, -item[1].headline.value, item[1].created, item[0]))
    table: list[tuple[int | None, Entry]] = []
    place, floor = 0, 2.0  # above every interval, so that the first entry opens rank 1
    for at, (_, entry) in enumerate(good, start=1):
        if not entry.headline.high >= floor:
            place, floor = at, entry.headline.low
        table.append((place, entry))
    bad.sort(key=lambda item: (item[1].created, item[0]))
    return [*table, *((None, entry) for _, entry in bad)]


def unranked(entry: Entry, stale: Container[str] = (), key: str = "") -> str:
    """Why an entry has no rank: "" where it has one. `key` is its id where that is known (hashing takes a while)."""
    if not sound(entry.headline):
        return "not a number"
    if not entry.eligible:
        return "not eligible"
    if entry.unreliable:
        return "unreliable"
    if entry.external:
        return "not run by this server"
    return "stale" if (key or entry.id) in stale else ""
