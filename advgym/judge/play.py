"""One batch of episodes, the clean pass before it, and the random control beside it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advgym import registry
from advgym.core.clean import CHUNK, Clean, assigned, unanswered
from advgym.core.clean import right as is_right
from advgym.core.columns import Meter, Said
from advgym.core.env import AttackEnv
from advgym.core.goals import BundleGoal
from advgym.core.meters import REASONS
from advgym.core.offers import check_fit
from advgym.core.task import Task
from advgym.errors import AdvgymError, BudgetExhausted, Malformed
from advgym.judge import results
from advgym.judge.aims import Aims
from advgym.judge.checks import flag
from advgym.judge.evaluator import evaluator
from advgym.judge.flags import chance_flags, victim_flags
from advgym.judge.results import Sample
from advgym.judge.verdict import judge


def play(
    task: Task, entry: registry.Agent, ids: list[int], device: Any, seed: int, split: str, settings: dict[str, Any],
    meter: Meter | None = None, aims: Aims | None = None, clean: Clean | None = None,
) -> tuple[list[Sample], str]:  # fmt: skip
    """One batch of episodes, one row each, and the agent's error if it crashed."""
    env = AttackEnv(task, proposals=entry.proposals, split=split, device=device, assigned=ids, clean=clean)
    ours = evaluator(env)
    env.reset(seed=seed)  # the evaluator's, so that targets are not the agent's choice
    if aims:
        ours.deal(ids, [aims[i] for i in ids], seed)
    check_fit(entry, task, ours.batch, settings)
    error = ""
    try:
        ours.hand_in(entry.attack(env, seed=seed, **settings))
    except BudgetExhausted:
        pass
    except Exception as failure:
        if isinstance(failure, AdvgymError) and not isinstance(failure, Malformed):
            raise  # the task's or the victim's, not the agent's
        frame = inspect.trace()[-1]
        error = f"{type(failure).__name__}: {failure} ({Path(frame.filename).name}, line {frame.lineno})"
    book, targets = ours.book, ours.targets
    stored = ours.stored()  # an appended choice means something in its own table only
    tally = task.victim.tally
    with tally.during("flags" if tally.phase == "flags" else "verdict"):
        found = judge(task, split, ids, stored, device=device, seed=seed, targets=targets, clean=ours.clean)
    distinct, won_at = book.queries_distinct(), book.first_success
    measured: list[dict[str, float]] = [{}] * len(ids)
    if meter:
        target = None if targets is None else torch.stack([task.goal.parse_target(t) for t in targets]).to(device)
        on = torch.device(device)
        said = Said(found.labels.to(on), found.before.to(on), found.after.to(on), target)
        # What was appended means something in its own table only; members that nobody was asked about have another.
        batch = ours.batch if task.unseen is None else task.judged(split, ids, device)
        measured = meter.rows(batch, ours.form(), said)
    rows = []
    for i, sample in enumerate(ids):
        success = bool(found.success[i]) and bool(found.right[i])
        first = int(won_at[i])
        used = int(book.used[i])
        reason = REASONS[int(book.reason[i])] or ("crashed" if error else "stopped")
        reason = results.SILENT if bool(found.silent[i]) else reason
        rows.append(
            Sample(
                id=sample, label=found.labels[i].tolist(),
                before=found.before[i].tolist(), after=found.after[i].tolist(),
                success=success, valid=bool(found.valid[i]), objective=float(found.objective[i]), queries=used,
                queries_distinct=int(distinct[i]), first_success=(first if first >= 0 else used) if success else -1,
                gradients=task.threat.gradients - int(book.gradients_left[i]), distance=float(found.distance[i]),
                reason=reason, perturbation=stored[i], target=None if targets is None else targets[i],
                columns=measured[i],
            )
        )  # fmt: skip
    return rows, error


@torch.no_grad()
def clean_pass(
    task: Task, split: str, device: Any, some: list[int] | None = None, clean: Clean | None = None
) -> tuple[float, np.ndarray, list[str]]:
    """(clean accuracy, which samples are right, flags about the victim).

    Args:
        some: the samples that are asked; None for the whole split. All others count as not right.
        clean: keeps the answers.
    """
    victim, size = task.victim.on(device), task.sizes[split]
    clean = clean or Clean(task, split, device, victim)
    right = np.zeros(size, dtype=np.bool_)
    flags: list[str] = []
    silent, labels = 0, []
    every = list(range(size)) if some is None else sorted(some)
    for start in range(0, len(every), CHUNK):
        ids = every[start : start + CHUNK]
        batch = task.samples(split, ids, device)
        with victim.tally.during("clean"):
            scores = clean.of(ids)[0]
        right[ids] = is_right(task.goal, scores, batch.labels).cpu().numpy()
        silent += int(unanswered(scores).sum())
        labels.append(batch.labels.cpu())
        if start == 0:
            flags = victim_flags(task, victim, batch, scores)
    if silent:
        flags.append(flag("clean-unanswered", many=silent, size=len(every), why=victim.why))
    found = right[every]
    return float(found.mean()), right, [*flags, *chance_flags(task.goal, torch.cat(labels), found)]


def clean_ids(size: int, clean: int | None, episodes: int) -> list[int] | None:
    """The samples that clean accuracy is over: `clean` of the split in the order of assignment; None for all."""
    if clean is None or clean >= size:
        return None
    if clean < episodes:
        raise AdvgymError(f"clean accuracy is over the {episodes} assigned samples at least, not over {clean}")
    return assigned(size, clean)


def control_rate(
    task: Task, split: str, ids: list[int], device: Any, seed: int, aims: Aims | None = None, clean: Clean | None = None
) -> float:
    """Success of one random valid perturbation per sample: the control row beside every attack."""
    clean = clean or Clean(task, split, device, task.victim.on(device))
    with task.victim.tally.during("control"):
        return _control_rate(task, split, ids, device, seed, aims, clean)


def _control_rate(
    task: Task, split: str, ids: list[int], device: Any, seed: int, aims: Aims | None, clean: Clean
) -> float:
    wins = 0.0
    for part in chunks(ids, CHUNK):
        batch = task.samples(split, part, device)
        targets = None
        if aims:
            targets = [task.goal.parse_target(aims[i]) for i in part]
        elif task.goal.needs_target:
            scores = clean.of(part)[0]
            targets = list(task.goal.aimed(seed, batch.ids, task.goal.output(scores), scores).cpu())
        found = judge(task, split, part, batch.random(seed), device=device, seed=seed, targets=targets, clean=clean)
        if isinstance(task.goal, BundleGoal):  # success counts members
            aim = torch.stack([task.goal.parse_target(t) for t in targets]) if targets else None
            met = task.goal.members_met(found.after, found.before, aim)
            wins += float(met.double().mean(1).sum())
        else:
            wins += float(found.success.sum())
    return wins / len(ids) if ids else 0.0


def chunks(items: list[int], size: int) -> list[list[int]]:
    """Consecutive parts of at most `size`."""
    return [items[i : i + size] for i in range(0, len(items), size)]
