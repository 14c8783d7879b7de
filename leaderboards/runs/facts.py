"""Taking the facts of a task before it is attacked: what is assigned, what the victim has right, the control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from advgym.core.clean import CHUNK, Clean
from advgym.core.columns import Meter
from advgym.core.goals import BundleGoal, Goal
from advgym.core.task import Task
from advgym.judge.play import clean_pass, control_rate
from advgym.judge.verdict import victim_card
from advgym.leaderboards.scoring.outcome import Facts, samples_hash


def measure(
    task: Task, split: str, ids: Sequence[int], seeds: Sequence[int], *, device: Any = "cpu", attack: str = "",
    knowledge: str = "", undefended: float = 0.0, victim: str = "", flags: Sequence[str] = (),
    clean: Clean | None = None,
) -> Facts:  # fmt: skip
    """The facts of a task for `score_task`.

    A clean sample that a detector rejects is not right: rejecting everything would hold against everything.

    Args:
        task: with the victim as it is attacked, behind its defense on the defense track.
        ids: the samples assigned; seeds: of the K runs (the first one draws the random control).
        attack, knowledge: on the defense track, the panel's attack and what it may know; else the task's.
        undefended: on the defense track, clean accuracy without the defense.
        victim: SHA-256 of the weights; taken from the victim's own module where that is empty.
        clean: keeps the clean answers.
    """
    clean = clean or Clean(task, split, torch.device(device), task.victim.on(device))
    right, found = clean_right(task, split, device, clean)
    mine = [i for i in ids if right[i]]
    labels = task.samples(split, list(ids), device).labels.tolist()
    return Facts(
        task=task.name, attack=attack, knowledge=knowledge or task.threat.knowledge, split=split,
        queries=task.threat.queries, gradients=task.threat.gradients, assigned=list(ids), right=mine, seeds=list(seeds),
        clean_accuracy=accuracy(task.goal, right)[0], clean_undefended=undefended,
        control_rate=control_rate(task, split, mine, device, seeds[0], clean=clean),
        victim=victim or str(victim_card(task).get("weights", "")),
        samples=samples_hash(split, ids, labels), flags=[*found, *flags],
        members=task.goal.members if isinstance(task.goal, BundleGoal) else 1,
        bars={} if task.columns is None else dict(task.columns.bars), columns_about=Meter(task).about,
    )  # fmt: skip


def accuracy(goal: Goal, right: np.ndarray) -> tuple[float, int]:
    """(clean accuracy, what it is counted over): samples, or all candidates where members are those that are right."""
    if isinstance(goal, BundleGoal) and goal.right_of_all is not None:
        return goal.right_of_all, round(goal.members / goal.right_of_all)
    return float(right.mean()), len(right)


@torch.no_grad()
def clean_right(
    task: Task, split: str, device: Any = "cpu", clean: Clean | None = None
) -> tuple[np.ndarray, list[str]]:
    """(which samples of the whole split are right and pass the detector: bool (size,), flags about the victim)."""
    _, right, flags = clean_pass(task, split, device, clean=clean)
    victim = task.victim.on(device)
    if victim.risk is None:
        return right, flags
    for start in range(0, len(right), CHUNK):
        ids = list(range(start, min(start + CHUNK, len(right))))
        batch = task.samples(split, ids, device)
        risk = torch.as_tensor(victim.risk(batch.inputs(batch.look(batch.null()).form)))
        right[ids] &= (risk < victim.threshold).cpu().numpy()
    return right, flags
