"""A phase of a board made ready: which samples of which tasks, against which victims.

A public phase ("split:NAME") needs nothing but the board. A hidden one is opened on a server's data folder
(`open_phase`): its samples and victims follow from a secret whose hash is published then, and the secret at
close, so that anyone can make a closed phase again.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from advgym.errors import AdvgymError, DataError
from advgym.leaderboards.rules import commitments
from advgym.leaderboards.rules.board import Board, BoardTask, board_hash, phase_of
from advgym.lib.drawn import SPLIT

if TYPE_CHECKING:
    from advgym.core.task import Task

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


@dataclass(frozen=True)
class PhaseTask:
    """One task of a phase, ready to be played.

    Attributes:
        row: the board's.
        task: made, with the phase's own data and victim, on the device that was asked for.
        split: of the samples; ids: those assigned to every submission, in the order of the shard plan.
        options: what `make_task` was told, without anything secret; `own` marks what cannot be made again from it.
    """

    row: BoardTask
    task: Task
    split: str
    ids: list[int]
    options: dict[str, Any]


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


def task_options(board: Board, row: BoardTask) -> dict[str, Any]:
    """What `make_task` is told for a row of a board."""
    budget = {"queries": row.queries, **({"gradients": row.gradients} if row.gradients else {})}
    return {"knowledge": row.knowledge, "goal": row.goal, **budget, "probes": board.probes,
            "widen": row.widen, **row.constraint}  # fmt: skip


def phase_tasks(board: Board, phase: str, root: str | Path | None = None, device: Any = "cpu") -> list[PhaseTask]:
    """The tasks of a phase with their assigned samples, victims on `device`.

    Args:
        root: the server's data folder; public phases do without.

    Raises:
        AdvgymError: for a phase that is not open, data that is missing, weights that are not those published.
    """
    from advgym.core.clean import assigned
    from advgym.core.task import make_task
    from advgym.leaderboards.rules.hidden import hidden_task

    about = phase_of(board, phase)
    card, secret = phase_card(board, phase, root), phase_secret(board, phase, root)
    out = []
    for row in board.tasks:
        options = task_options(board, row)
        if about.hidden:
            assert root is not None
            task, split = hidden_task(board, card, row, Path(root), secret)
            options = {**options, "own": True}
        else:
            task, split = make_task(row.id, **options), about.source.removeprefix("split:")
        size = task.sizes[task.check_split(split)]
        if about.samples > size:
            raise AdvgymError(
                f"phase {phase!r} of {board.name} wants {about.samples} samples; split {split!r} of {row.id} has {size}"
            )
        ids = list(range(about.samples)) if split == SPLIT else assigned(size, about.samples)
        if board.shards.order == "shuffled":
            rng = np.random.default_rng(commitments.derive(secret, "order", row.id))
            ids = [ids[i] for i in rng.permutation(len(ids))]
        victim, surrogate = task.victim.on(device), task.surrogate
        task = replace(task, victim=victim, surrogate=None if surrogate is None else surrogate.on(device))
        out.append(PhaseTask(row, task, split, ids, options))
    return out
