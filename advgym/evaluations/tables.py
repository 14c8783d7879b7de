"""A study as tables: one row a cell, paired tests with a correction for many comparisons, ranks; CSV to LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from advgym.evaluations import union
from advgym.evaluations.files import parquet
from advgym.evaluations.grid import Cell, Study, axes_of, value_of
from advgym.evaluations.study_page import page
from advgym.judge.compare import binomial_p
from advgym.judge.results import Result
from advgym.lib.files import write_atomic


class Pair(msgspec.Struct, kw_only=True):
    """Two values of the compared axis on the same samples: McNemar's exact test, and Holm's correction of it."""

    where: str
    first: str
    second: str
    difference: float  # of success rates, first less second
    samples: int
    p: float
    p_holm: float = 1.0


def rows(study: Study, have: Mapping[str, Result]) -> list[dict[str, Any]]:
    """One entry a cell that was played: what it is, its figures, the command that plays it alone."""
    out = []
    for cell in study.cells:
        r = have.get(cell.key)
        if r is None:
            continue
        figures = {
            "clean_accuracy": r.clean_accuracy, "robust_accuracy": r.robust_accuracy, "success_rate": r.success_rate,
            "success_low": r.success_ci[0], "success_high": r.success_ci[1], "control_rate": r.control_rate,
            "queries_median": r.queries_median, "queries_distinct_median": r.queries_distinct_median,
            "distance_median": r.distance_median, "attacked": r.attacked, "seconds": r.seconds,
            "flags": "; ".join(r.flags),
        }  # fmt: skip
        names = dict.fromkeys([*study.axes, "settings"])
        own = {name: value_of(cell, name) for name in study.axes}
        own["settings"] = ", ".join(f"{k}={v}" for k, v in cell.settings.items())
        out.append({**{n: own[n] for n in names}, **figures, "cell": cell.key, "command": cell.command})
    return out


def pairs(study: Study, have: Mapping[str, Result]) -> list[Pair]:
    """Every two values of the compared axis where all else is equal, on the samples that both attacked."""
    found: list[Pair] = []
    for where, cells in _groups(study).items():
        played = [(str(label), have[c.key]) for label, c in cells if c.key in have]
        for i, (first, a) in enumerate(played):
            for second, b in played[i + 1 :]:
                theirs = {s.id: s.success for s in b.samples}
                both = [(s.success, theirs[s.id]) for s in a.samples if s.id in theirs]
                only, other = sum(x and not y for x, y in both), sum(y and not x for x, y in both)
                if both:
                    gap, p = (only - other) / len(both), binomial_p(only, only + other)
                    found.append(Pair(where=where, first=first, second=second, samples=len(both), difference=gap, p=p))
    return holm(found)


def holm(found: list[Pair]) -> list[Pair]:
    """Holm's step-down correction (1979) over all pairs.

    >>> some = [Pair(where="", first="a", second="b", difference=0, samples=9, p=p) for p in (0.01, 0.04, 0.03)]
    >>> [round(x.p_holm, 3) for x in holm(some)]
    [0.03, 0.06, 0.06]
    """
    most = 0.0
    for nth, at in enumerate(sorted(range(len(found)), key=lambda i: found[i].p)):
        most = max(most, min(1.0, found[at].p * (len(found) - nth)))
        found[at].p_holm = most
    return found


def ranks(study: Study, have: Mapping[str, Result]) -> list[tuple[str, float, int]]:
    """(value of the compared axis, its mean rank by success, groups it is in), the best first; ties share a rank."""
    from scipy.stats import rankdata

    seen: dict[str, list[float]] = {}
    for cells in _groups(study).values():
        played = [(str(label), have[c.key].success_rate) for label, c in cells if c.key in have]
        if len(played) > 1:
            for (label, _), rank in zip(played, rankdata([-rate for _, rate in played]), strict=True):
                seen.setdefault(label, []).append(float(rank))
    return sorted(((label, float(np.mean(r)), len(r)) for label, r in seen.items()), key=lambda row: row[1])


def _groups(study: Study) -> dict[str, list[tuple[Any, Cell]]]:
    """Cells that are equal but for the compared axis: where -> (its value, cell)."""
    others = [a for a in axes_of(study) if a != study.compare]
    found: dict[str, list[tuple[Any, Cell]]] = {}
    for cell in study.cells:
        where = ", ".join(f"{a}={value_of(cell, a)}" for a in others)
        found.setdefault(where, []).append((_label(cell, study.compare), cell))
    return found


def _label(cell: Cell, axis: str) -> str:
    """An agent with settings of its own is told apart by them."""
    value = str(value_of(cell, axis))
    own = ", ".join(f"{k}={v}" for k, v in cell.settings.items())
    return f"{value} ({own})" if axis == "agent" and own else value


def write(folder: Path, study: Study, have: Mapping[str, Result], failed: Mapping[str, str]) -> None:
    """table.csv, .parquet, .md, .tex, pairs.csv and study.html."""
    table = rows(study, have)
    if not table:
        return
    write_atomic(folder / "table.csv", _csv(table).encode())
    parquet(folder / "table.parquet", table)
    names = [*axes_of(study), "clean_accuracy", "robust_accuracy", "success_rate", "queries_median"]
    short = [[_text(row[n]) for n in names] for row in table]
    write_atomic(folder / "table.md", _markdown(names, short).encode())
    write_atomic(folder / "table.tex", _latex(names, short, study.title).encode())
    tested = pairs(study, have)
    if tested:
        write_atomic(folder / "pairs.csv", _csv([msgspec.to_builtins(p) for p in tested]).encode())
    for name, found in (("union", union.table(study, have)), ("curves", flat(union.curves(study, have), study.curve))):
        if found:
            names = list(found[0])
            write_atomic(folder / f"{name}.csv", _csv(found).encode())
            body = [[_text(row[n]) for n in names] for row in found]
            write_atomic(folder / f"{name}.md", _markdown(names, body).encode())
            write_atomic(folder / f"{name}.tex", _latex(names, body, study.title).encode())
    write_atomic(
        folder / "study.html",
        page(
            study, table, tested, ranks(study, have), failed, union.table(study, have), union.curves(study, have)
        ).encode(),
    )


def flat(found: list[dict[str, Any]], axis: str) -> list[dict[str, Any]]:
    """Curves as a row a point; `zero` is where the row's curve ends."""
    return [
        {**{k: v for k, v in row.items() if k not in ("points", "zero")}, axis: x, "accuracy": y, "zero": row["zero"]}
        for row in found for x, y in row["points"]
    ]  # fmt: skip


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _csv(table: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _markdown(names: list[str], table: list[list[str]]) -> str:
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}", *(f"| {' | '.join(row)} |" for row in table)]
    return "\n".join(lines) + "\n"


def _latex(names: list[str], table: list[list[str]], title: str) -> str:
    def safe(text: str) -> str:
        for sign in "&%$#_{}":
            text = text.replace(sign, f"\\{sign}")
        return text

    head, *body = [" & ".join(map(safe, row)) + r" \\" for row in [names, *table]]
    lines = [r"\begin{table}", rf"\caption{{{safe(title)}}}", rf"\begin{{tabular}}{{{'l' * len(names)}}}", r"\hline"]
    return "\n".join([*lines, head, r"\hline", *body, r"\hline", r"\end{tabular}", r"\end{table}", ""])
