"""Success against queries: on axes of matplotlib, and as a small SVG."""

from __future__ import annotations

from typing import Any

from advgym.judge.results import Result
from advgym.lib.extras import need

WIDE, HIGH = 220, 110  # of the small SVG


def steps(r: Result) -> tuple[list[int], list[float]]:
    """(queries, share of the attacked samples won within them), at every query that won one, to the budget's end."""
    won = sorted(max(s.first_success, 0) for s in r.samples if s.success)
    many, budget = max(len(r.samples), 1), int(r.threat.get("queries", 0))
    x, y = [0], [0.0]
    for nth, queries in enumerate(won, 1):
        x.append(queries)
        y.append(nth / many)
    return [*x, max(budget, x[-1])], [*y, y[-1]]


def plot(r: Result, ax: Any = None, **style: Any) -> Any:
    """Draw the steps on axes, and return them.

    Args:
        ax: of matplotlib; None for those of a new figure (`result.plot().figure.savefig(...)`).
        style: of the line, as `Axes.step` takes it.

    Raises:
        AdvgymError: where matplotlib is not installed.
    """
    if ax is None:
        figure = need("matplotlib.figure", "a plot").Figure(figsize=(5, 3.2), layout="constrained")
        ax = figure.add_subplot()
    x, y = steps(r)
    ax.step(x, y, where="post", **{"label": f"{r.agent} on {r.task}", **style})
    ax.axhline(r.control_rate, linestyle=":", linewidth=1, color="0.5")  # one random perturbation per sample
    ax.set(xlabel="queries per sample", ylabel="success among the attacked", ylim=(-0.02, 1.02))
    ax.set_xlim(left=0)
    ax.legend(loc="best", frameon=False)
    return ax


def curve_svg(r: Result) -> str:
    """The same in little, with its ends in words."""
    x, y = steps(r)
    right = max(x[-1], 1)
    points, last = [], 0.0
    for queries, rate in zip(x, y, strict=True):
        across = 4 + (WIDE - 8) * queries / right
        points += [(across, last), (across, rate)]
        last = rate
    path = " ".join(f"{a:.1f},{HIGH - 18 - (HIGH - 26) * b:.1f}" for a, b in points)
    return (
        f'<svg width="{WIDE}" height="{HIGH}" role="img" aria-label="success against queries, {y[-1]:.0%} at {right}">'
        f'<line x1="4" y1="{HIGH - 18}" x2="{WIDE - 4}" y2="{HIGH - 18}" stroke="#d5dce3"/>'
        f'<polyline points="{path}" fill="none" stroke="#1d63d6" stroke-width="2"/>'
        f'<text x="4" y="{HIGH - 4}" font-size="11" fill="#5b6b7a">0</text>'
        f'<text x="{WIDE - 4}" y="{HIGH - 4}" font-size="11" fill="#5b6b7a" text-anchor="end">{right} '
        "queries</text></svg>"
    )
