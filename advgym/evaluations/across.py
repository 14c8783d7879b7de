"""Checks across rows: one attack beside another, a wider ball, more budget, another victim, an independent verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from advgym import registry
from advgym.core.batch import Batch
from advgym.core.clean import Clean
from advgym.core.field import FieldBatch
from advgym.core.task import Task, follow
from advgym.evaluations.certify import broken
from advgym.evaluations.plan import Planned
from advgym.judge.checks import flag
from advgym.judge.play import clean_pass, play
from advgym.judge.results import Result
from advgym.judge.verdict import judge, verify

FAILURES = 16  # that are tried again with more budget
HARD = 8  # that are tried without a bound, and samples of an undefended twin
LEAST, SHARE = 2, 0.02  # samples, and share of them, that only a weaker attacker breaks
WEAK = 0.5  # success below which the suite is tried on another victim
LEVELS = 255  # of a stored image


def checks(
    task: Task, name: str, split: str, ids: list[int], played: Mapping[str, Result], rows: list[Planned], device: Any,
    seed: int,
) -> list[str]:  # fmt: skip
    """The flags of the rows together."""
    first, result = rows[0], played[rows[0].name]
    wins = {row: {s.id for s in r.samples if s.success} for row, r in played.items()}
    found: list[str] = []
    if first.knowledge == "white-box":
        others = set().union(*(b for row, b in wins.items() if row in ("score", "decision")))
        found += _more("black-box-wins", others - wins[first.name], result.attacked)
        if "transfer" in wins:
            source = str(registry.task_row(name)[1].get("surrogate", "the surrogate"))
            found += _more("transfer-wins", wins["transfer"] - wins[first.name], result.attacked, source=source)
    found += _certified(task, split, played, device, seed)
    if task.victim.retrains:
        return found + _verified(task, played, rows, device)
    failed = [s.id for s in result.samples if not s.success]
    again = _again(task, first, split, device, seed)
    found += _unbounded(task, failed[:HARD], again)
    if len(failed) >= 4:
        twice = replace(first, queries=2 * first.queries, gradients=2 * first.gradients)
        many = _again(task, twice, split, device, seed)(task, failed[:FAILURES])
        found += [flag("more-budget", many=many, tried=min(len(failed), FAILURES))] if many else []
    found += _twin(task, name, split, ids, result, again)
    found += _rounding(task, result, split, device, seed)
    return found + _verified(task, played, rows, device)


def _certified(task: Task, split: str, played: Mapping[str, Result], device: Any, seed: int) -> list[str]:
    """Successes inside a radius of which the victim's own certificate says that none is."""
    many = sum(len(broken(task, split, r, device, seed)) for r in played.values())
    wins = sum(s.success for r in played.values() for s in r.samples)
    return [flag("certified-broken", many=many, wins=wins, name=task.victim.name)] if many else []


def _more(name: str, extra: set[int], attacked: int, **facts: Any) -> list[str]:
    """Samples that a weaker attacker alone breaks; one or two of a hundred is chance."""
    enough = len(extra) >= max(LEAST, SHARE * attacked)
    return [flag(name, many=len(extra), **facts)] if enough else []


def _again(task: Task, row: Planned, split: str, device: Any, seed: int) -> Any:
    """(task, ids) -> how many of them the row breaks."""
    entry = registry.agent(row.agent)

    def wins(other: Task, ids: list[int]) -> int:
        other = replace(other, threat=replace(other.threat, **row.options))
        clean = Clean(other, split, torch.device(device), other.victim.on(device))
        return sum(s.success for s in play(other, entry, ids, device, seed, split, row.settings, clean=clean)[0])

    return wins


def _unbounded(task: Task, failed: list[int], again: Any) -> list[str]:
    """Failures that hold although the input may become anything."""
    if not failed or not isinstance(task.samples(next(iter(task.sizes)), [0]), FieldBatch):
        return []

    def whole(batch: FieldBatch) -> float:
        span = (batch.high - batch.low) * (1 if batch.norm == "linf" else batch.size**0.5)
        return max(float(span / batch.radius.clamp_min(1e-12).min()), 4.0)

    held = len(failed) - again(replace(task, deal=widened(task, whole)), failed)
    return [flag("unbounded", many=held, tried=len(failed))] if held * 2 > len(failed) else []


def _twin(task: Task, name: str, split: str, ids: list[int], result: Result, again: Any) -> list[str]:
    """Whether the suite breaks another, undefended victim, where it broke little of this one."""
    row = registry.task_row(name)[1]
    if result.success_rate >= WEAK or not isinstance(row.get("surrogate"), str):
        return []
    twin = replace(task, victim=follow(row["surrogate"], row, result.options.get("dataset")), defenses=())
    right = clean_pass(twin, split, torch.device("cpu"), sorted(ids))[1]
    some = [i for i in ids if right[i]][:HARD]
    rate = again(twin, some) / len(some) if some else 1.0
    return [flag("weak-suite", rate=f"{rate:.0%}")] if rate < WEAK else []


def widened(task: Task, factor: Callable[[FieldBatch], float]) -> Callable[[str, list[int], Any], Batch]:
    """The task's deal, its balls widened by a factor."""

    def deal(split: str, ids: list[int], device: Any) -> Batch:
        batch = task.deal(split, ids, device)
        assert isinstance(batch, FieldBatch)
        return batch.widened(factor(batch))

    return deal


def _rounding(task: Task, result: Result, split: str, device: Any, seed: int) -> list[str]:
    """Successes on plain floats in [0, 1] that the levels of a stored byte undo."""
    wins = [s for s in result.samples if s.success]
    if not wins:
        return []
    batch = task.samples(split, [s.id for s in wins], device)
    if not isinstance(batch, FieldBatch) or batch.lattice is not None or (batch.low, batch.high) != (0.0, 1.0):
        return []
    form = batch.look(batch.load([s.perturbation for s in wins])).form
    stored = torch.round(form * LEVELS) / LEVELS - batch.x
    targets = [s.target for s in wins] if task.goal.needs_target else None
    wide = replace(task, deal=widened(task, lambda _: 2.0))  # rounding may leave the ball by a hair
    found = judge(wide, split, [s.id for s in wins], stored, device=device, seed=seed, targets=targets)
    many = len(wins) - int(found.success.sum())
    return [flag("rounding", many=many, wins=len(wins), levels=LEVELS + 1)] if many else []


def _verified(task: Task, played: Mapping[str, Result], rows: list[Planned], device: Any) -> list[str]:
    """What the independent verifier says first against a row."""
    for row in rows:
        told = replace(task, threat=replace(task.threat, **row.options))
        wrong = verify(played[row.name], task=told, device=device)
        if wrong:
            return [flag("not-true", what=f"{row.name}: {wrong[0]} ({len(wrong)} in all)")]
    return []
