"""The union of threat models, and security curves: what of a study is one number over many of its cells.

A sample stands when no cell of its group broke it: the worst case per sample, over threat models and attacks alike. The
unseen mean is over the threat models that a row was not trained against (the table of Laidlaw, Singla & Feizi 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advgym.evaluations.grid import Cell, Study, number_of, value_of
from advgym.evaluations.svg import drawn
from advgym.judge.results import Result
from advgym.lib.rates import mean, wilson

OTHERS = ("agent", "seed")  # whose values are attempts at one and the same threat


def standing(results: list[Result]) -> tuple[set[int], int]:
    """(samples that the victim has right and no result broke, samples asked about)."""
    held = set.intersection(*({s.id for s in r.samples} for r in results))
    broken = {s.id for r in results for s in r.samples if s.success}
    return held - broken, max(r.episodes for r in results)


def table(study: Study, have: Mapping[str, Result]) -> list[dict[str, Any]]:
    """A row for each value of the other axes: accuracy by threat model, their union with its interval, unseen mean.

    A row of which a cell is missing has no union: what was not played may be the worst case.
    """
    if not study.union:
        return []
    out = []
    for where, cells in groups(study, study.union).items():
        played = [(str(value_of(c, study.union)), have.get(c.key)) for c in cells]
        by: dict[str, list[Result]] = {}
        for value, result in played:
            by.setdefault(value, []).extend([] if result is None else [result])
        rates = {value: _accuracy(results) if results else None for value, results in by.items()}
        every = [r for results in by.values() for r in results]
        row: dict[str, Any] = dict(zip(others(study, study.union), where, strict=True))
        row["clean"] = min((r.clean_accuracy for r in every), default=None)
        row |= rates
        whole = all(result is not None for _, result in played)
        held, of = standing(every) if whole else (set(), 0)
        row["union"] = len(held) / of if whole else None
        row["union_low"], row["union_high"] = wilson(len(held), of) if whole else (None, None)
        seen = next((set(study.seen[v]) for v in where if v in study.seen), set())
        unseen = [rate for value, rate in rates.items() if value not in seen]
        row["unseen_mean"] = mean([r for r in unseen if r is not None]) if unseen and None not in unseen else None
        out.append(row)
    return out


def curves(study: Study, have: Mapping[str, Result]) -> list[dict[str, Any]]:
    """A row for each value of the other axes: accuracy by radius, the worst case of its attacks.

    `zero` is the least radius at which no sample stands, None where the axis ends before: the attack or the axis then
    falls short, for a large enough radius leaves nothing of any model.
    """
    out = []
    for where, cells in groups(study, study.curve).items() if study.curve else ():
        by: dict[Any, list[Result]] = {}
        for cell in cells:
            if cell.key in have:
                by.setdefault(value_of(cell, study.curve), []).append(have[cell.key])
        row: dict[str, Any] = dict(zip(others(study, study.curve), where, strict=True))
        points = sorted((number_of(value), _accuracy(results)) for value, results in by.items())
        row["points"] = points
        row["zero"] = next((x for x, y in points if y == 0), None)
        out.append(row)
    return out


def over(study: Study, cell: Cell, have: Mapping[str, Result]) -> bool:
    """Whether a smaller radius of this cell's curve leaves nothing already, so that it need not be played."""
    if not study.curve:
        return False
    here, x = _where(study, study.curve, cell), number_of(value_of(cell, study.curve))
    by: dict[float, list[Result]] = {}
    for other in study.cells:
        if other.key in have and _where(study, study.curve, other) == here:
            by.setdefault(number_of(value_of(other, study.curve)), []).append(have[other.key])
    return any(y < x and not standing(results)[0] for y, results in by.items())


def others(study: Study, axis: str) -> list[str]:
    """The axes that tell the rows apart."""
    return [a for a, values in study.axes.items() if a not in (axis, *OTHERS) and len(values) > 1]


def groups(study: Study, axis: str) -> dict[tuple[str, ...], list[Cell]]:
    """Cells that differ by `axis`, the attack and the seed alone."""
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in study.cells:
        found.setdefault(_where(study, axis, cell), []).append(cell)
    return found


def _where(study: Study, axis: str, cell: Cell) -> tuple[str, ...]:
    return tuple(str(value_of(cell, a)) for a in others(study, axis))


def _accuracy(results: list[Result]) -> float:
    held, of = standing(results)
    return len(held) / of


def plot(found: list[dict[str, Any]], axis: str) -> str:
    """Accuracy by radius, a line a row; an SVG."""
    with drawn(7, 3.2) as sheet:
        ax = sheet.ax
        for row in found:
            name = ", ".join(str(v) for k, v in row.items() if k not in ("points", "zero")) or "all"
            ax.plot(*zip(*row["points"], strict=True), marker="o", ms=3.5, lw=1.4, label=name)
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel(axis)
        ax.set_ylabel("accuracy, worst case of the attacks")
        ax.legend(frameon=False)
    return sheet.text
