"""audit.html: the verdict first, then what broke it, for whom, with examples, and what to know before believing it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from advgym import registry
from advgym.core.task import Task
from advgym.evaluations.report import Audit, threat_of
from advgym.judge.results import Result
from advgym.report.examples import examples
from advgym.report.page import curves

SHOWN = 6  # examples


def page(audit: Audit, played: Mapping[str, Result], task: Task) -> str:
    """The page as one self-contained HTML file."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(registry.HOME / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    named = [replace(r, agent=_label(name, r.agent)) for name, r in played.items() if r.samples]
    grouped: dict[str, list[Any]] = {}
    for group in audit.groups:
        grouped.setdefault(group.by, []).append(group)
    return env.get_template("audit.html.j2").render(
        a=audit,
        when=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        threat=", ".join(f"{k} = {v}" for k, v in threat_of(audit).items()),
        verdict=verdict(audit),
        figure=curves(named, audit.task) if named else None,
        label=_label,
        groups=grouped,
        examples=examples(task, list(played.values()), SHOWN),
        reference=reference(audit),
    )


def _label(row: str, agent: str) -> str:
    return agent if agent == row else f"{agent}, {row}"


def verdict(audit: Audit) -> str:
    """One sentence."""
    if audit.void:
        return "This figure rests on nothing yet: mend what is flagged as void, and run the audit again."
    doubts = sum(f.severity == "doubt" for f in audit.findings)
    low, high = (f"{100 * end:.0f} %" for end in audit.robust_ci)
    many = round(audit.robust_accuracy * audit.episodes)
    held = f"Of {audit.episodes} samples, {many} are right and hold against every row (95 %: {low} to {high})."
    if doubts:
        return f"{held} {doubts} {'check doubts' if doubts == 1 else 'checks doubt'} it: the truth may be lower."
    return f"{held} No check doubts it; a stronger attack can only lower it."


def reference(audit: Audit) -> list[tuple[str, str]]:
    """What other attacks of this size have in common, as facts."""
    return [
        ("Task", f"{audit.task} ({audit.why})"),
        ("Model", audit.model),
        ("Data", f"{audit.data or 'the task’s own'}, split {audit.split}"),
        ("Goal and constraint", ", ".join(f"{k} = {v}" for k, v in threat_of(audit).items()) or "untargeted"),
        ("Budget", f"{audit.budget}: at most {audit.queries} queries a sample over all rows"),
        ("Seed, device", f"{audit.seed}, {audit.device}"),
        ("Inputs asked", ", ".join(f"{what} {many:,}" for what, many in audit.asked.items())),
        ("Time", f"{audit.seconds:.0f} s"),
        ("Data notes", "; ".join(audit.notes) or "none"),
        ("Versions", ", ".join(f"{k} {v}" for k, v in audit.versions.items())),
    ]
