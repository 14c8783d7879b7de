"""Pictures and lines of global attacks: which classes the flips join and part, and how many members turned."""

from __future__ import annotations

from html import escape
from typing import Any

import torch
from torch import Tensor

from advgym.core.goals import Goal

CELL, LEFT, TOP = 34, 150, 44
MOST = 12  # classes shown


def line(batch: Any, row: int, form: Tensor, before: Tensor | None = None, after: Tensor | None = None) -> str:
    """For example `seed 0: 263 flips (262 added, 1 removed), 176 of 812 members turned`."""
    pairs = _pairs(form)
    removed = int(batch.graph.has(pairs[:, 0], pairs[:, 1]).sum()) if len(pairs) else 0
    words = f"seed {int(batch.ids[row])}: {len(pairs)} flips ({len(pairs) - removed} added, {removed} removed)"
    if before is None or after is None:
        return words
    return f"{words}, {int((before != after).sum())} of {len(before)} members turned"


def show(batch: Any, row: int, form: Tensor, before: Tensor, after: Tensor, *, labels: Tensor, goal: Goal) -> str:
    """A table of classes by classes: how many edges were added (upper half) and removed (lower half) between them."""
    pairs = _pairs(form)
    gone = batch.graph.has(pairs[:, 0], pairs[:, 1]) if len(pairs) else torch.zeros(0, dtype=torch.bool)
    classes = min(int(labels.max()) + 1, MOST)
    added, removed = (_between(pairs[part], labels, classes) for part in (~gone, gone))
    most = max(int(added.max()), int(removed.max()), 1)
    side = CELL * classes
    parts = []
    for i in range(classes):
        name = escape(goal.describe(torch.tensor(i)))
        y = TOP + i * CELL
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 22}" text-anchor="end" font-size="12" fill="var(--ink)">{name}</text>'
        )
        for j in range(classes):
            table, colour = (added, "var(--accent)") if j >= i else (removed, "var(--bad)")
            if i == j:
                value, tip = int(added[i, i]), f"{int(added[i, i])} added, {int(removed[i, i])} removed inside {name}"
            else:
                value = int(table[min(i, j), max(i, j)])
                tip = f"{value} {'added' if j > i else 'removed'}: {name} - {escape(goal.describe(torch.tensor(j)))}"
            x, shade = LEFT + j * CELL, 0.08 + 0.92 * value / most if value else 0.04
            parts.append(
                f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" rx="4" fill="{colour}" '
                f'fill-opacity="{shade:.2f}"><title>{tip}</title></rect>'
            )
            if value:
                parts.append(
                    f'<text x="{x + CELL / 2 - 1}" y="{y + 21}" text-anchor="middle" font-size="11" fill="var(--ink)" '
                    f'stroke="var(--panel)" stroke-width="2.5" paint-order="stroke">{value}</text>'
                )
    head = (
        f'<text x="{LEFT}" y="16" font-size="12" fill="var(--ink)">edges added (upper right, with the diagonal) and '
        f"removed (lower left)</text>"
    )
    turned = int((before != after).sum())
    return (
        f'<figure><svg viewBox="0 0 {LEFT + max(side, 360)} {TOP + side + 8}" role="img" '
        f'aria-label="flips between classes">{head}{"".join(parts)}</svg>'
        f"<figcaption>{escape(line(batch, row, form))}; {turned} of {len(before)} members turned</figcaption></figure>"
    )


def _pairs(form: Tensor) -> Tensor:
    return form[form[:, 0] >= 0].sort(1).values


def _between(pairs: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How many pairs join classes i <= j: int64 (classes, classes)."""
    ends = labels[pairs].clamp(0, classes - 1).sort(1).values
    return torch.bincount(ends[:, 0] * classes + ends[:, 1], minlength=classes * classes).view(classes, classes)
