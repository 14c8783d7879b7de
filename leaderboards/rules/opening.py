"""Opening and closing a phase: the organiser's two acts. A commitment at the first, the secret at the second."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

from advgym.errors import AdvgymError
from advgym.leaderboards.entries.entry import Entry, canonical
from advgym.leaderboards.rules import commitments
from advgym.leaderboards.rules.board import board_hash, phase_of
from advgym.leaderboards.rules.board_tables import PHASES, Board
from advgym.leaderboards.rules.phase_cards import (
    HiddenVictim,
    PhaseCard,
    card_path,
    phase_card,
    phase_secret,
    secret_path,
    weights_folder,
)
from advgym.leaderboards.scoring.intervals import rate_interval
from advgym.leaderboards.scoring.ranking import rank
from advgym.leaderboards.store import ledger
from advgym.lib import machine
from advgym.lib.files import write_atomic

WORSE = 0.8  # of its recipe's public accuracy: a hidden victim that is surely below that share is not worth attacking


def open_phase(board: Board, phase: str, root: str | Path, device: Any = "cpu") -> PhaseCard:
    """Open a phase: draw its secret, train its hidden victims, freeze its panel, publish the card.

    Args:
        root: the server's data folder.
        device: where victims are asked about their clean samples (they are trained on the CPU, for the same weights).

    Raises:
        AdvgymError: when the phase was opened before, or a victim did not learn.
    """
    root = Path(root)
    path = card_path(root, board.name, phase)
    if path.is_file():
        record_opening(root, phase_card(board, phase, root))  # if a kill came between
        raise AdvgymError(f"phase {phase!r} of {board.name} was opened before; its card is {path}")
    public = not phase_of(board, phase).hidden
    secret = commitments.public_secret(board.name, phase, board_hash(board)) if public else commitments.draw()
    card = PhaseCard(
        board=board.name, phase=phase, board_hash=board_hash(board), commitment=commitments.commit(secret),
        public_data=public, opened=_now(), secret=secret.hex() if public else "", panel=panel(board, phase, root),
        versions=machine.versions(),
    )  # fmt: skip
    if not public:
        card.victims = _victims(board, phase, root, secret, device)
        _write_secret(secret_path(root, board.name, phase), secret)
    write_atomic(path, _pretty(card))
    _record(root, "open", card)
    return card


def _victims(board: Board, phase: str, root: Path, secret: bytes, device: Any) -> dict[str, HiddenVictim]:
    from advgym.core.task import make_task
    from advgym.judge.play import clean_pass
    from advgym.leaderboards.rules import hidden
    from advgym.leaderboards.runs.facts import accuracy as clean_accuracy
    from advgym.lib.weights import save_weights, weights_hash

    found = {}
    for row in board.tasks:
        if not hidden.needs_victim(row):
            continue
        dataset, split = hidden.hidden_dataset(board, phase, row.id, secret)
        victim = hidden.train_victim(row, root, secret, dataset)
        task = make_task(row.id, dataset=dataset, victim=victim.on(device), knowledge="decision")
        accuracy, many = clean_accuracy(task.goal, clean_pass(task, hidden.split_of(task, split), device)[1])
        usual = float(victim.card.get("clean_accuracy", 0.0))
        if not rate_interval(accuracy, many).high >= WORSE * usual:  # a few samples prove nothing
            raise AdvgymError(
                f"the hidden victim of {row.id} has {accuracy:.2f} of its {many} samples right, where its recipe "
                f"has {usual:.2f} in public: open the phase again, for another secret"
            )
        card = hidden.public_card(victim.card, (hidden.victim_seed(row, secret),))
        weights = "" if victim.module is None else weights_hash(victim.module)
        file = ""
        if board.weights and victim.module is not None:
            file = f"{phase}-{row.id.replace('/', '-')}.safetensors"
            save_weights(weights_folder(root, board.name) / file, victim.module, card)
        found[row.id] = HiddenVictim(
            name=victim.name, recipe=card.get("recipe", {}), clean_accuracy=accuracy, weights=weights, file=file
        )
    return found


def close_phase(board: Board, phase: str, root: str | Path) -> PhaseCard:
    """Close a phase: publish its secret, the whole recipes and the weights of its victims.

    Raises:
        AdvgymError: when it is not open, or closed already.
    """
    root = Path(root)
    if not card_path(root, board.name, phase).is_file():
        raise AdvgymError(f"phase {phase!r} of {board.name} was never opened in {root}: there is nothing to close")
    card = phase_card(board, phase, root)
    if card.closed:
        _record(root, "close", card, once="commitment")  # if a kill came between
        raise AdvgymError(f"phase {phase!r} of {board.name} was closed at {card.closed}")
    secret = phase_secret(board, phase, root)
    for row in board.tasks:
        if row.id in card.victims:
            card.victims[row.id] = _publish(board, phase, row.id, root, secret, card.victims[row.id])
    card.secret, card.closed = secret.hex(), _now()
    write_atomic(card_path(root, board.name, phase), _pretty(card))
    secret_path(root, board.name, phase).unlink(missing_ok=True)
    _record(root, "close", card)
    return card


def _publish(board: Board, phase: str, task: str, root: Path, secret: bytes, said: HiddenVictim) -> HiddenVictim:
    from advgym.leaderboards.rules import hidden
    from advgym.lib.weights import save_weights

    row = next(r for r in board.tasks if r.id == task)
    victim = hidden.train_victim(row, root, secret, hidden.hidden_dataset(board, phase, task, secret)[0])
    file = hidden.weights_file(victim)
    if file and victim.module is not None:
        save_weights(weights_folder(root, board.name) / file, victim.module, victim.card)
    return msgspec.structs.replace(said, recipe=victim.card.get("recipe", {}), file=file)


def panel(board: Board, phase: str, root: Path) -> list[str]:
    """The agents that attack defenses in a phase: the board's baselines, then the best attack of the phase before.

    That one reads "submission:SHA256", the SHA-256 of its archive.
    """
    if "defense" not in board.tracks:
        return []
    before = [p for p in PHASES[: PHASES.index(phase)] if p in board.phases]
    entries = []
    for path in sorted((root / "entries" / board.name).glob("*.json")) if before else ():
        if path.name.endswith(".rows.json"):
            continue
        entry = msgspec.json.decode(path.read_bytes(), type=Entry)
        if entry.phase == before[-1] and entry.track == "attack" and entry.board_hash == board_hash(board):
            entries.append(entry)
    best = [
        f"submission:{e.submission}" for place, e in rank(entries) if place is not None and e.origin == "submission"
    ]
    return [*board.defense.panel, *best[:1]]


def record_opening(root: Path, card: PhaseCard) -> None:
    """The ledger's line of an opening that a kill may have left out; a card that has one already gets no other."""
    _record(root, "open", card, once="commitment")


def _record(root: Path, kind: str, card: PhaseCard, once: str = "card") -> None:
    """The ledger's line of an opening or a close: the commitment, and the hash of the card as it was then."""
    digest = hashlib.sha256(canonical(card)).hexdigest()
    body: ledger.Body = {"board": card.board, "phase": card.phase, "commitment": card.commitment, "card": digest}
    ledger.append(root, kind, body, once=(once,))


def _write_secret(path: Path, secret: bytes) -> None:
    """A file that only the server's user may read, from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.encode({"secret": secret.hex()}))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _pretty(card: PhaseCard) -> bytes:
    return msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n"


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
