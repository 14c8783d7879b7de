"""All checks of an audit: those that the rows raised by themselves, of the victim, and across rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advgym.core.task import Task
from advgym.evaluations import across, answers, gradients
from advgym.evaluations.plan import Planned
from advgym.evaluations.report import Finding
from advgym.judge.checks import check_of
from advgym.judge.results import Result

ORDER = ("void", "doubt", "note")


def find(
    task: Task, name: str, split: str, ids: list[int], played: Mapping[str, Result], rows: list[Planned], *,
    device: Any = "cpu", seed: int = 0, known: list[str] | None = None,
) -> list[Finding]:  # fmt: skip
    """Every flag once, the gravest first.

    Args:
        task: at the strongest knowledge; name: of its row.
        played: the results by row; rows: as they were planned; known: flags raised before.
    """
    said: dict[str, list[str]] = {text: [] for text in known or []}
    for row, result in played.items():
        for text in result.flags:
            said.setdefault(text, []).append(row)
    right = [s.id for s in played[rows[0].name].samples]
    with task.victim.tally.during("flags"):
        found = answers.checks(task, split, ids, right, played[rows[0].name], device)
        found += gradients.checks(task, split, right, device)
        found += across.checks(task, name, split, ids, played, rows, device, seed)
    for text in found:
        said.setdefault(text, [])
    return order([_finding(text, where) for text, where in said.items()])


def order(found: list[Finding]) -> list[Finding]:
    """The gravest first, else as they came; one of a check and words."""
    return sorted(found, key=lambda f: ORDER.index(f.severity))


def _finding(text: str, where: list[str]) -> Finding:
    check = check_of(text)
    if check is None:
        return Finding(check="", severity="note", says=text, do="", where=where)
    return Finding(check=check.name, severity=check.severity, says=text, do=check.do, where=where)
