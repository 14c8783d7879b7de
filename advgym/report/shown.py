"""A result in a notebook or a shell: a line, a small table in HTML, and pairs of samples as the task shows them."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import torch

from advgym.clients.render import ask
from advgym.core.task import Task
from advgym.judge.results import Result, Sample
from advgym.judge.verdict import rebuild
from advgym.report.examples import Example, forms, words
from advgym.report.plot import curve_svg

_STYLE = (
    "--ink:#1c2733;--muted:#5b6b7a;--line:#d5dce3;--panel:#f4f6f8;--accent:#1d63d6;--good:#1a7f4b;--bad:#c2410c;"
    "font-family:system-ui,sans-serif;color:var(--ink);background:#fff;padding:12px;border:1px solid var(--line);"
    "border-radius:8px;max-width:760px"
)


def line(r: Result) -> str:
    """The result in one line.

    Rates are fractions of the samples attacked; flags are counted, since each must be read.
    """
    low, high = r.success_ci
    behind = "" if r.defense == "none" else f" behind {r.defense}"
    flags = f", {len(r.flags)} flag{'s' * (len(r.flags) > 1)}" if r.flags else ""
    return (
        f"Result({r.agent} on {r.task}{behind}: success {r.success_rate:.1%} [{low:.1%}, {high:.1%}] of {r.attacked}, "
        f"robust {r.robust_accuracy:.1%} of {r.episodes}, {r.queries_median:g} queries{flags})"
    )


def html(r: Result) -> str:
    """The figures with the curve, and every flag, as an HTML fragment that stands by itself."""
    low, high = r.success_ci
    threat = r.threat
    limit = ", ".join(f"{k} {v}" for k, v in threat.get("constraint", {}).items())
    rows = [
        ("success", f"{r.success_rate:.1%} (95 %: {low:.1%} to {high:.1%}) of {r.attacked} attacked"),
        ("robust accuracy", f"{r.robust_accuracy:.1%} of {r.episodes} assigned"),
        ("clean accuracy", f"{r.clean_accuracy:.1%}"),
        ("random control", f"{r.control_rate:.1%}"),
        ("queries", f"{r.queries_mean:.1f} mean, {r.queries_median:g} median, of {threat.get('queries')}"),
        ("distance", f"{r.distance_median:.3g}, median of the successes"),
        ("threat", f"{threat.get('knowledge')}, {threat.get('goal')}; {limit}"),
    ]
    table = "".join(
        f'<tr><th style="text-align:left;padding:2px 12px 2px 0;color:var(--muted);font-weight:400">{escape(name)}</th>'
        f'<td style="text-align:left;padding:2px 0">{escape(value)}</td></tr>'
        for name, value in rows
    )
    flags = "".join(f'<li style="color:var(--bad)">{escape(flag)}</li>' for flag in r.flags)
    behind = "" if r.defense == "none" else f" behind {escape(r.defense)}"
    return (
        f'<div style="{_STYLE}"><strong>{escape(r.agent)}</strong> on <strong>{escape(r.task)}</strong>, victim '
        f"{escape(str(r.victim.get('name', '')))}{behind}"
        '<div style="display:flex;flex-wrap:wrap;gap:24px;align-items:center">'
        f"<table>{table}</table>{curve_svg(r)}</div>"
        + (f'<ul style="margin:6px 0 0;padding-left:18px">{flags}</ul>' if flags else "")
        + "</div>"
    )


class Examples(list[Example]):
    """Pairs of samples: a line each in a shell, the task's own pictures in a notebook."""

    def __repr__(self) -> str:
        lines = [f"#{e.sample} {e.before} -> {e.after}   {e.line}" for e in self]
        return "\n".join(lines) or "(no samples were attacked)"

    def _repr_html_(self) -> str:
        parts = "".join(
            f'<div style="margin:0 0 14px"><div style="color:var(--muted);font-size:13px">#{e.sample}, {e.queries} '
            f"queries, distance {escape(e.distance)}</div>{e.fragment or escape(e.line)}</div>"
            for e in self
        )
        return f'<div style="{_STYLE}">{parts or "(no samples were attacked)"}</div>'


def task_of(r: Result, task: Task | None = None) -> Task:
    """The task of a result: the one given, that of the very run, or the one that its file describes.

    Raises:
        AdvgymError: for a file of objects of the caller's own, without a task.
    """
    if task is not None:
        return task
    made: Task | None = getattr(r, "made", None)
    return rebuild(r) if made is None else made


def examples(r: Result, k: int = 5, task: Task | None = None) -> Examples:
    """The first k successes, or what was tried where there are none."""
    wins = [s for s in r.samples if s.success]
    chosen = (wins or r.samples)[: max(k, 0)]
    out = Examples()
    if not chosen:
        return out
    made = task_of(r, task)
    out.extend(shown(made, r, chosen))
    return out


def shown(task: Task, r: Result, samples: list[Sample]) -> Iterator[Example]:
    """Samples of a result as the task shows them."""
    batch, form = forms(task, r.split, samples)
    for i, s in enumerate(samples):
        before, after = torch.as_tensor(s.before), torch.as_tensor(s.after)
        with torch.no_grad():
            told = ask(task, task.line, batch, i, form[i]) if task.line is not None else ""
            picture = ask(task, task.show, batch, i, form[i], before, after) if task.show is not None else ""
        yield Example(r.agent, s.id, words(task, s.before), words(task, s.after), picture, told, s.queries,
                      f"{s.distance:.3g}")  # fmt: skip


def plain(value: Any) -> Any:
    """A cell of a table: numbers and texts as they are, lists as JSON."""
    import msgspec

    return value if value is None or isinstance(value, int | float | str) else msgspec.json.encode(value).decode()
