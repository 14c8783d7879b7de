"""An audit re-checked: its rows by the verifier, its own figures from the rows."""

from __future__ import annotations

from pathlib import Path

from advgym.core.task import Task, defend, make_task
from advgym.evaluations import subject
from advgym.evaluations.report import Audit, load
from advgym.judge import results
from advgym.judge.verdict import verify
from advgym.lib.rates import wilson


def check(
    path: str | Path, device: str = "cpu", *, model: object = None, data: object = None
) -> tuple[Audit, list[str]]:
    """(the audit, disagreements in words).

    Args:
        path: of audit.json, its rows beside it.
        model, data: for audits of objects, the same ones again.

    Raises:
        DataError: for a file that cannot be read; AdvgymError: where the model or the data cannot be found again.
    """
    path = Path(path)
    audit = load(path)
    wrong: list[str] = []
    broken: set[int] = set()
    right: set[int] = set()
    for row in audit.rows:
        result = results.load(path.parent / row.file)
        wrong += [
            f"{row.name}: {line}" for line in verify(result, task=_task(audit, result, model, data), device=device)
        ]
        if abs(result.success_rate - row.success_rate) > 1e-9 or result.agent != row.agent:
            own = f"{result.agent} {result.success_rate:.6g}"
            wrong.append(f"{row.name}: {row.agent} {row.success_rate:.6g}, its file says {own}")
        broken |= {s.id for s in result.samples if s.success}
        right |= {s.id for s in result.samples}
    if not any(results.load(path.parent / row.file).members_rate is not None for row in audit.rows):
        held = len(right - broken)
        if abs(audit.robust_accuracy - held / audit.episodes) > 1e-9:
            wrong.append(f"robust accuracy is {held / audit.episodes:.6g}, the file says {audit.robust_accuracy:.6g}")
        if max(abs(x - y) for x, y in zip(audit.robust_ci, wilson(held, audit.episodes), strict=True)) > 1e-9:
            wrong.append("the interval does not follow from the rows")
    return audit, wrong


def _task(audit: Audit, result: results.Result, model: object, data: object) -> Task:
    """The task of a row: the model and the data are found again as they were named."""
    found = subject.read(
        audit.model if model is None else model, (audit.data or None) if data is None else data, task=audit.task
    )
    options = {**{k: v for k, v in result.options.items() if k != "own"}, **found.options}
    options["knowledge"] = result.threat["knowledge"]
    return defend(make_task(audit.task, **options), [(n, s) for n, s in result.defenses])
