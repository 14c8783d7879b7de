"""The panel that defenses meet: agents that ship, and attacks that were handed in, from sandboxes of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from advgym import registry
from advgym.leaderboards.entries import card as cards
from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.runs.contestant import Contestant
from advgym.leaderboards.runs.stage import Stage
from advgym.leaderboards.sandbox import Box
from advgym.leaderboards.sandbox.workfolder import WorkFolder
from advgym.leaderboards.store import artefacts
from advgym.leaderboards.store.unpack import unpack

SUBMISSION = "submission:"  # a panel's attack that was handed in, by the SHA-256 of its archive


def unpacked(data: bytes, folder: Path, board: Board) -> cards.Card:
    """Unpack a submission's archive into a new folder and check it; its card."""
    unpack(data, folder, size_mb=board.limits.size_mb)
    card = cards.read_card(folder)
    cards.check_folder(folder, board, card)
    return card


class Rivals:
    """The panel's agents by name; those that were handed in play from sandboxes of their own."""

    def __init__(self, stage: Stage, root: Path, take: Callable[[], Box]) -> None:
        self.stage, self.root, self.take = stage, root, take
        self.boxes: list[Box] = []
        self.found: dict[str, registry.Agent] = {}
        self.scratch: WorkFolder | None = None

    def __enter__(self) -> Rivals:
        return self

    def __exit__(self, *_: object) -> None:
        for box in self.boxes:
            box.close()
        if self.scratch is not None:
            self.scratch.close()

    def __call__(self, name: str) -> registry.Agent:
        """The agent of a panel's name."""
        if not name.startswith(SUBMISSION):
            return registry.agent(name)
        if name not in self.found:
            self.found[name] = self._open(name.removeprefix(SUBMISSION))
        return self.found[name]

    def _open(self, sha: str) -> registry.Agent:
        self.scratch = self.scratch or WorkFolder("rival")
        folder = self.scratch.path / sha[:16]
        card = unpacked(artefacts.get(self.root, sha), folder, self.stage.board)
        box = self.take()
        self.boxes.append(box)
        box.assign(folder)
        player = Contestant(box, self.stage.board.limits, card)
        return registry.Agent(card.name, player.attack, card.kinds, card.knowledge, card.proposals)
