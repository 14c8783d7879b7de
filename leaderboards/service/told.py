"""What is told of an entry while its phase is hidden and open: its score, and nothing else that a submission steers.

Whatever a submission decides (queries, distances, curves, reasons, flags, which seed won ...) could carry hidden
samples out, so it waits for the close. Besides the score at most 10 bits leave (docs/cheats.md).
"""

from __future__ import annotations

from advgym.leaderboards.entries.entry import Entry, TaskScore

SENTENCE = (
    "This phase is hidden and open: of an entry its score is told, in all and on each task, minutes after the run. "
    "Queries, distances, curves, seeds, reasons, flags and whatever else a submission could put a hidden sample into "
    "are told when the phase closes."
)


def told(entry: Entry) -> Entry:
    """An entry of an open hidden phase as everybody but the organiser sees it; what is withheld reads as nothing.

    Kept: who made it and what its card says, when (to the minute), the headline, whether it is eligible, for each task
    its status and success (on the defense track: of the strongest attack), and what the server says by itself: the
    hashes of board and scorer, versions, the level of the sandbox, and the organiser's marks.
    """
    return Entry(
        format=entry.format, board=entry.board, phase=entry.phase, track=entry.track, name=entry.name, team=entry.team,
        title=entry.title, licence=entry.licence, kind=entry.kind, knowledge=entry.knowledge, origin=entry.origin,
        board_hash=entry.board_hash, scorer=entry.scorer, created=minute(entry.created), headline=entry.headline,
        eligible=entry.eligible, tasks=_tasks(entry), rows="", transcript="", sandbox=entry.sandbox,
        device=entry.device, versions=entry.versions, external=entry.external, unreliable=entry.unreliable,
        supersedes=entry.supersedes, cause=entry.cause, contract=entry.contract,
    )  # fmt: skip


def _tasks(entry: Entry) -> list[TaskScore]:
    best: dict[str, TaskScore] = {}
    for score in entry.tasks:
        known = best.get(score.task)
        if known is None or (known.status != "scored", -known.success.value) > (
            score.status != "scored",
            -score.success.value,
        ):
            best[score.task] = score
    given = "" if entry.track == "defense" else None  # there it says which of the panel's attacks was the strongest
    return [
        TaskScore(
            task=s.task, status=s.status, knowledge=s.knowledge if given is None else given, success=s.success
        )
        for s in best.values()
    ]  # fmt: skip


def minute(created: str) -> str:
    """A time of an entry, cut to the minute.

    >>> minute("2026-11-03T09:30:59Z")
    '2026-11-03T09:30:00Z'
    """
    return f"{created[:16]}:00Z" if len(created) > 16 else created
