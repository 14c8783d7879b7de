"""The worst case per sample: what holds against every row, what broke the rest, and at what price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from advgym.core.task import Task
from advgym.evaluations.groups import groups
from advgym.evaluations.plan import Planned
from advgym.evaluations.report import Audit, Row
from advgym.judge.results import Result
from advgym.lib.rates import wilson


def sum_up(task: Task, rows: list[Planned], played: Mapping[str, Result], ids: list[int], split: str) -> Audit:
    """The figures of an audit; what was asked for, and its findings, are still to be entered."""
    first = played[rows[0].name]
    broken = {name: {s.id for s in r.samples if s.success} for name, r in played.items()}
    right = {s.id for s in first.samples}
    held = right - set().union(*broken.values())
    bundles = first.members_rate is not None
    robust, interval = _of_members(played) if bundles else (len(held) / len(ids), wilson(len(held), len(ids)))
    reports = [_report(r, played[r.name], broken) for r in rows]
    asked: Counter[str] = Counter()
    for result in played.values():
        asked.update(result.asked)
    return Audit(
        model="", data="", task=first.task, why="", victim=first.victim, options=first.options,
        defenses=first.defenses, threat=first.threat, budget="", queries=sum(r.queries for r in rows), seed=first.seed,
        split=split, episodes=len(ids), attacked=first.attacked, clean_accuracy=first.clean_accuracy,
        clean_of=first.clean_of or len(ids), clean_ci=first.clean_ci or (0.0, 1.0), robust_accuracy=robust,
        robust_ci=interval, cheapest=_cheapest(reports), void=False, rows=reports, findings=[],
        groups=[] if bundles else groups(task, split, ids, right, held), asked=dict(asked), device=first.device,
        versions=first.versions, seconds=0.0, notes=list(task.notes),
    )  # fmt: skip


def _of_members(played: Mapping[str, Result]) -> tuple[float, tuple[float, float]]:
    """Of bundles members count, and no row's are another's: the strongest row's robust accuracy and its interval."""
    worst = min(played.values(), key=lambda r: r.robust_accuracy)
    left = 1 - worst.success_rate
    base = worst.robust_accuracy / left if left > 0 else worst.clean_accuracy
    low, high = worst.success_ci
    return worst.robust_accuracy, (base * (1 - high), base * (1 - low))


def _report(r: Planned, result: Result, broken: Mapping[str, set[int]]) -> Row:
    others: set[int] = set().union(*(found for name, found in broken.items() if name != r.name))
    return Row(
        name=r.name, agent=result.agent, knowledge=r.knowledge, queries=r.queries, gradients=r.gradients,
        success_rate=result.success_rate, success_ci=result.success_ci, robust_accuracy=result.robust_accuracy,
        queries_median=result.queries_median, gradients_mean=result.gradients_mean,
        distance_median=result.distance_median, control_rate=result.control_rate, seconds=result.seconds,
        file=f"rows/{r.name}.json", alone=len(broken[r.name] - others),
    )  # fmt: skip


def _cheapest(rows: list[Row]) -> str:
    """In words: of the rows that broke something, that with the fewest propagations for a success."""
    able = [r for r in rows if r.success_rate > 0]
    if not able:
        return ""
    best = min(able, key=lambda r: (r.queries_median + r.gradients_mean) / r.success_rate)
    return f"{best.agent} ({best.knowledge}): {best.success_rate:.0%} with a median of {best.queries_median:g} queries"
