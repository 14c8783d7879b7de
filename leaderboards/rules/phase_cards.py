"""The public card of a phase, and its secret: where they lie, and what they say."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec

from advgym.errors import AdvgymError, DataError
from advgym.leaderboards.rules import commitments
from advgym.leaderboards.rules.board import board_hash, phase_of
from advgym.leaderboards.rules.board_tables import Board

FORMAT = "advgym-phase/1"


class HiddenVictim(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A victim that the server trained for a phase: what is public of it from the opening on.

    Attributes:
        name: of the registered victim whose recipe it shares.
        recipe: with what follows from the secret left out until the close.
        clean_accuracy: on the phase's samples.
        weights: SHA-256 of the weights.
        file: of the published weights, once they are.
    """

    name: str
    recipe: dict[str, Any] = {}
    clean_accuracy: float = 0.0
    weights: str = ""
    file: str = ""


class PhaseCard(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The public record of a phase.

    Attributes:
        commitment: SHA-256 of the secret (of 32 bytes); secret: hex, once closed (public phases: at once).
        victims: by task id, where the server trained its own.
        panel: agents that attack defenses here: names, or "submission:SHA256" for the best of the phase before.
    """

    format: str = FORMAT
    board: str
    phase: str
    board_hash: str
    commitment: str
    public_data: bool
    opened: str = ""
    closed: str = ""
    secret: str = ""
    victims: dict[str, HiddenVictim] = {}
    panel: list[str] = []
    versions: dict[str, str] = {}


def card_path(root: str | Path, board: str, phase: str) -> Path:
    """Where a phase's public card lies."""
    return Path(root) / "phases" / board / f"{phase}.json"


def secret_path(root: str | Path, board: str, phase: str) -> Path:
    """Where a phase's secret lies until it is closed."""
    return Path(root) / "secrets" / f"{board}-{phase}.json"


def weights_folder(root: str | Path, board: str) -> Path:
    """Where the weights of a board's hidden victims are published."""
    return Path(root) / "phases" / board / "weights"


def phase_card(board: Board, phase: str, root: str | Path | None = None) -> PhaseCard:
    """The public card of a phase.

    Args:
        root: the server's data folder; public phases that were never opened do without.

    Raises:
        AdvgymError: for a hidden phase that is not open, or one that was opened for another version of the board.
    """
    public = not phase_of(board, phase).hidden
    path = None if root is None else card_path(root, board.name, phase)
    now = board_hash(board)
    if path is None or not path.is_file():
        if not public:
            raise AdvgymError(
                f"phase {phase!r} of the board {board.name} is not open"
                + (f" in {root}" if root is not None else "")
                + f": the organiser runs `advgym board open {board.name} --phase {phase}`"
            )
        secret = commitments.public_secret(board.name, phase, now)
        return PhaseCard(
            board=board.name, phase=phase, board_hash=now, commitment=commitments.commit(secret), public_data=True,
            secret=secret.hex(), panel=list(board.defense.panel),
        )  # fmt: skip
    card = _decode(path, PhaseCard)
    if card.board_hash != now:
        raise AdvgymError(
            f"the board {board.name} is not what it was when phase {phase!r} was opened (budgets, tasks or limits "
            f"differ): put it back, or run this phase under another name of board"
        )
    return card


def phase_secret(board: Board, phase: str, root: str | Path | None = None) -> bytes:
    """The secret of a phase: public ones' and closed ones' from the card, else from the server's own file.

    Raises:
        DataError: when it is not here, or is not what the card commits to.
    """
    card = phase_card(board, phase, root)
    text = card.secret
    if not text:
        assert root is not None
        text = _decode(secret_path(root, board.name, phase), dict[str, str]).get("secret", "")
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != commitments.SIZE or commitments.commit(secret) != card.commitment:
        raise DataError(f"the secret of phase {phase!r} of {board.name} is not the one its card commits to")
    return secret


def _decode(path: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise DataError(f"{path} is not what a server writes there: {error}") from None


def refusal(board: Board, phase: str, root: str | Path | None, now: dt.datetime) -> str:
    """Why the board takes no submission to this phase now; "" where it does."""
    phase_of(board, phase)
    if now < board.opens:
        return f"the board opens at {board.opens.isoformat()}"
    if now >= board.closes:
        return f"the board closed at {board.closes.isoformat()}"
    try:
        card = phase_card(board, phase, root)
    except AdvgymError as error:
        return str(error)
    return f"phase {phase!r} was closed at {card.closed}" if card.closed else ""
