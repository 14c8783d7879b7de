"""A phase of a board made ready: which samples of which tasks, against which victims.

A public phase ("split:NAME") needs nothing but the board. A hidden one is opened on a server's data folder
(`open_phase`): its samples and victims follow from a secret whose hash is published then, and the secret at
close, so that anyone can make a closed phase again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from advgym.errors import AdvgymError
from advgym.leaderboards.rules import commitments
from advgym.leaderboards.rules.board import phase_of, task_options
from advgym.leaderboards.rules.board_tables import Board, BoardTask
from advgym.leaderboards.rules.phase_cards import phase_card, phase_secret
from advgym.lib.drawn import SPLIT

if TYPE_CHECKING:
    from advgym.core.task import Task


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
