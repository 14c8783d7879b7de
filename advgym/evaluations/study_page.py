"""study.html: the table as a heat map, ranks, paired tests, and the exact command behind every cell."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from advgym import registry
from advgym.evaluations import union
from advgym.evaluations.grid import Study, axes_of
from advgym.evaluations.svg import drawn
from advgym.lib.machine import versions


def page(
    study: Study, table: Sequence[Mapping[str, Any]], pairs: Sequence[Any], ranks: Sequence[tuple[str, float, int]],
    failed: Mapping[str, str], unions: Sequence[Mapping[str, Any]] = (), curves: Sequence[dict[str, Any]] = (),
) -> str:  # fmt: skip
    """The page as one self-contained HTML file."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(registry.HOME / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    axes = axes_of(study)
    return env.get_template("study.html.j2").render(
        study=study, axes=axes, table=table, pairs=sorted(pairs, key=lambda p: p.p_holm), ranks=ranks,
        failed=dict(failed), cells={c.key: c.command for c in study.cells}, versions=versions(),
        plot=plot(study, table, axes), unions=unions, curves=curves,
        curve_plot=union.plot(list(curves), study.curve) if any(row["points"] for row in curves) else "",
        when=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )  # fmt: skip


def plot(study: Study, table: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> str:
    """Success with its interval, a mark a cell, the compared axis by colour; an SVG."""
    others = [a for a in axes if a != study.compare and a != "seed"]
    places = list(dict.fromkeys(tuple(str(row[a]) for a in others) for row in table))
    values = list(dict.fromkeys(str(row[study.compare]) for row in table))
    tall = max(2.2, 0.34 * len(places) * max(1, len(values) / 4) + 1)
    with drawn(8, min(tall, 40)) as sheet:
        ax = sheet.ax
        for row in table:
            y = places.index(tuple(str(row[a]) for a in others))
            nth = values.index(str(row[study.compare]))
            up = y + (nth - (len(values) - 1) / 2) * 0.7 / max(len(values), 1)
            rate, low, high = row["success_rate"], row["success_low"], row["success_high"]
            ax.errorbar(rate, up, xerr=[[max(rate - low, 0)], [max(high - rate, 0)]], fmt="o", ms=4, lw=1,
                        color=f"C{nth % 10}", label=values[nth])  # fmt: skip
        ax.set_yticks(range(len(places)), [", ".join(p) or "all" for p in places])
        ax.set_ylim(len(places) - 0.4, -0.6)
        ax.set_xlim(-0.02, 1.02)
        ax.set_xlabel("success rate, 95 % interval")
        handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        ax.legend(handles.values(), handles.keys(), frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return sheet.text
