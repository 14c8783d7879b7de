"""Taking a submission or a dispute in: checked whole before anything is kept, then queued."""

from __future__ import annotations

import msgspec

from advgym.errors import AdvgymError
from advgym.judge.results import FORMAT, Result
from advgym.leaderboards.entries import card as cards
from advgym.leaderboards.rules.board_tables import Board, Quota
from advgym.leaderboards.rules.reasons import Refused
from advgym.leaderboards.sandbox.workfolder import WorkFolder
from advgym.leaderboards.service.shelf import Shelf, is_open
from advgym.leaderboards.store import artefacts
from advgym.leaderboards.store.db import Store
from advgym.leaderboards.store.submissions import submit
from advgym.leaderboards.store.unpack import unpack

DISPUTE = "dispute"  # the track of a job that judges perturbations; its card says "against"
DISPUTES = Quota(per_day=20, total=500)  # of a team, beside its quota of submissions
RESULT_MB = 20


def check_phase(shelf: Shelf, board: Board, phase: str) -> None:
    """Refuse what is not open.

    Raises:
        Refused: "phase-closed".
    """
    if not is_open(board):
        raise Refused("phase-closed", f"{board.name} is open from {board.opens:%Y-%m-%d} to {board.closes:%Y-%m-%d}")
    if phase not in board.phases:
        raise Refused("phase-closed", f"{board.name} has no phase {phase!r}; it has {', '.join(board.phases)}")
    book = shelf.book(board.name)
    found = book.cards.get(phase)
    if found is None and f"phases/{board.name}/{phase}.json" in book.damaged:
        raise Refused("phase-closed", f"the card of {phase} is damaged; its organiser has to restore it")
    if found is None:
        raise Refused("phase-closed", f"{phase} is not open yet")
    if found.closed:
        raise Refused("phase-closed", f"{phase} was closed on {found.closed[:10]}")


def take(store: Store, shelf: Shelf, team: str, name: str, phase: str, data: bytes, key: str = "") -> str:
    """Queue an uploaded archive.

    Args:
        team: the token's: a team is a name on a token, whatever the card says.
        name: of the board. phase: "" for the board's first.
        data: a tar, tar.gz or zip.
        key: the client's own id of the request, so that sending it twice takes the quota once.

    Returns:
        The submission's id.

    Raises:
        Refused: with the reason.
        AdvgymError: there is no such board.
    """
    board = shelf.boards.get(name[:100])
    if board is None:
        raise AdvgymError(f"there is no board {name[:60]!r} here; there are: {', '.join(sorted(shelf.boards))}")
    phase = phase or next(iter(board.phases))
    check_phase(shelf, board, phase)
    with WorkFolder("intake") as scratch:
        folder = scratch / "submission"
        unpack(data, folder, size_mb=board.limits.size_mb)
        card = cards.read_card(folder)
        cards.check_folder(folder, board, card)
        packed = cards.pack(folder)
    sha = artefacts.put(shelf.root, packed)
    said = msgspec.to_builtins(card)
    return submit(
        store, team, board.name, phase, card.track, sha, said, board.quota, hidden=board.phases[phase].hidden, key=key
    )  # fmt: skip


def take_dispute(store: Store, shelf: Shelf, team: str, against: str, data: bytes) -> str:
    """Queue perturbations against a defense, for a worker to judge.

    The job's track is `DISPUTE`, its phase "PHASE:dispute" (so that it takes nothing from the quota of the phase), its
    blob the result file, its card {"name", "against": entry id, "task"}.

    Returns:
        The id, as of a submission.

    Raises:
        Refused: not-disputable (no such entry, or none that it could lower), phase-closed or bad-result.
    """
    found = shelf.find(against)
    if found is None:
        raise Refused("not-disputable", f"there is no entry {against[:40]!r}")
    book, entry = found
    if entry.track != "defense":
        raise Refused("not-disputable", "perturbations lower a defense; `advgym verify` judges an attack's own again")
    if against in book.lowered:
        raise Refused("not-disputable", f"entry {against} was superseded by {book.lowered[against]}")
    if not book.published(entry.phase):
        raise Refused("phase-closed", "the samples of a hidden phase can be disputed once it is closed")
    try:
        result = msgspec.json.decode(data, type=Result)
    except msgspec.DecodeError as error:
        raise Refused("bad-result", f"this is not a result file of advgym: {str(error)[:200]}") from None
    if result.format != FORMAT:
        raise Refused("bad-result", f"it has format {result.format[:40]!r}; this server reads {FORMAT!r}")
    if result.task not in {s.task for s in entry.tasks}:
        raise Refused("not-disputable", f"the result is on {result.task[:60]!r}; the entry was scored on other tasks")
    sha = artefacts.put(shelf.root, data)
    card = {"name": f"against {entry.name}", "against": against, "task": result.task}
    return submit(store, team, entry.board, f"{entry.phase}:{DISPUTE}", DISPUTE, sha, card, DISPUTES)
