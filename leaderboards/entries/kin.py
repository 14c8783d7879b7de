"""Entries that belong together: the same code under several teams, the same submission in several phases."""

from __future__ import annotations

from collections.abc import Sequence

from advgym.leaderboards.entries.entry import Entry

LIKE = (("submission", "the same files"), ("code", "the same code"), ("transcript", "the same moves"))


def copies(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """What a reader should know of entries that another team handed in before: id -> sentences. Nobody is banned by it.

    Files are compared by the archive's SHA-256, code without comments, names and layout, moves by the transcript (all
    that was said to the victim, on the same phase and track). Within a team nothing is a copy; ties in time go to the
    smaller id. Newer versions of an entry (disputes, marks) count as handed in when the first one was.
    """
    ids = {e.id: e for e in entries}
    first = {key: _first(key, ids) for key in ids}
    order = sorted(ids, key=lambda key: (ids[first[key]].created, first[key], key))
    out: dict[str, list[str]] = {}
    for at, key in enumerate(order):
        mine = ids[key]
        for name, what in LIKE:
            value = getattr(mine, name)
            same = [
                ids[o] for o in order[:at] if value and getattr(ids[o], name) == value and _near(mine, ids[o], name)
            ]
            other = next((o for o in same if o.team != mine.team), None)
            if other is not None and not any(o.team == mine.team for o in same[: same.index(other)]):
                out[key] = [f"{what} as {other.name!r} of {other.team}, handed in before"]
                break
    return out


def _first(key: str, ids: dict[str, Entry]) -> str:
    """The first version of an entry, as far back as it is here."""
    seen = {key}
    while (older := ids[key].supersedes) in ids and older not in seen:
        seen.add(older)
        key = older
    return key


def _near(one: Entry, two: Entry, name: str) -> bool:
    """Transcripts are alike only within a phase and track, where samples and seeds are."""
    return name != "transcript" or (one.phase, one.track) == (two.phase, two.track)


def gap(entry: Entry, others: Sequence[Entry]) -> float | None:
    """How much better the same submission did on public data: its dev headline minus this one; None where unknown.

    A large gap says that an attack, or a defense, was fitted to samples that everybody has.
    """
    same = [e for e in others if (e.board, e.track, e.submission) == (entry.board, entry.track, entry.submission)]
    dev = [e for e in same if e.phase == "dev" and e.submission]
    if entry.phase == "dev" or not dev:
        return None
    return max(dev, key=lambda e: e.created).headline.value - entry.headline.value
