"""A phase made ready in one process: its tasks on their device, loaded once and kept warm for all submissions."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from advgym import registry
from advgym.core.clean import Clean
from advgym.core.victim import resolve_device
from advgym.leaderboards.rules.board import phase_of
from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.rules.commitments import derive, run_seeds
from advgym.leaderboards.rules.phase_cards import phase_card, phase_secret
from advgym.leaderboards.rules.phases import PhaseTask, phase_tasks
from advgym.leaderboards.runs.facts import measure
from advgym.leaderboards.scoring.outcome import Facts

TRANSFER = "transfer"  # the agent that attacks a defense through the victim that it wraps


class Stage:
    """A board's phase, ready to be played.

    Args:
        root: the server's data folder; None for public phases.
        device: of the victims.
    """

    def __init__(self, board: Board, phase: str, root: Path | None = None, device: Any = "cpu") -> None:
        self.board, self.phase, self.root = board, phase, root
        self.device: torch.device = resolve_device(device)
        phase_of(board, phase)

    @cached_property
    def tasks(self) -> list[PhaseTask]:
        """In the board's order."""
        return phase_tasks(self.board, self.phase, self.root, self.device)

    @cached_property
    def kinds(self) -> list[str]:
        """Of each task: what it takes."""
        return [t.task.samples(t.split, t.ids[:1]).kind for t in self.tasks]

    @cached_property
    def panel(self) -> list[str]:
        """The attacks that every defense meets here: the phase's, and always one through the undefended victim."""
        named = phase_card(self.board, self.phase, self.root).panel
        return [*named, *([] if TRANSFER in named else [TRANSFER])]

    @cached_property
    def clean(self) -> list[Clean]:
        """Of each task: the undefended victim's answers to clean samples, which shards are dealt."""
        return [Clean(t.task, t.split, self.device, t.task.victim.on(self.device)) for t in self.tasks]

    @cached_property
    def facts(self) -> list[Facts]:
        """Of each task undefended; the control row is drawn by the phase, so it is the same for every submission."""
        seeds = run_seeds(phase_secret(self.board, self.phase, self.root), "control", 1)
        return [
            measure(t.task, t.split, t.ids, seeds, device=self.device, clean=clean)
            for t, clean in zip(self.tasks, self.clean, strict=True)
        ]

    def seeds(self, submission: str) -> list[int]:
        """Of the K runs of a submission (its SHA-256)."""
        secret = phase_secret(self.board, self.phase, self.root)
        return run_seeds(secret, submission, phase_of(self.board, self.phase).seeds)

    def hidden_seed(self, *labels: str | int) -> int:
        """A seed for what the evaluator draws by itself: it follows from the phase's secret."""
        return derive(phase_secret(self.board, self.phase, self.root), *labels)

    def covered(self, kinds: tuple[str, ...], knowledge: str) -> list[bool]:
        """Of each task: whether an attack plays it, which takes its kind and no more knowledge than it gives."""
        order = registry.KNOWLEDGE.index

        def enough(given: str) -> bool:
            return given == "transfer" or order(knowledge) <= order(given)

        return [
            kind in kinds and enough(t.task.threat.knowledge) for kind, t in zip(self.kinds, self.tasks, strict=True)
        ]
