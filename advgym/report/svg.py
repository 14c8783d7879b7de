"""Success against queries as inline SVG: one line per agent with its 95 % band."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from advgym.judge.results import Result
from advgym.lib.rates import wilson

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 38, 104, 12, 36
DASHES = {"white-box": "", "score": "7 3", "decision": "2 3", "transfer": "8 3 2 3"}
SLOTS = 8  # colours of the palette, --c0 to --c7


@dataclass
class Line:
    """One agent's curve and how it is drawn."""

    agent: str
    knowledge: str
    slot: int
    points: list[tuple[int, float, float, float]]  # (q, rate, low, high)
    muted: bool = False

    @property
    def colour(self) -> str:
        """A CSS variable of the page."""
        return "var(--muted)" if self.muted else f"var(--c{self.slot % SLOTS})"

    @property
    def dash(self) -> str:
        """By knowledge, so that colour is not the only mark."""
        return "1 4" if self.muted else DASHES[self.knowledge]

    @property
    def last(self) -> float:
        """Success rate with the whole budget."""
        return self.points[-1][1]


def curve(result: Result) -> list[tuple[int, float, float, float]]:
    """Every step of the success-at-q curve with its Wilson interval."""
    budget, n = int(result.threat["queries"]), len(result.samples)
    firsts = sorted(max(1, s.first_success) for s in result.samples if s.success)
    out = []
    for q in sorted({1, *firsts, budget}):
        wins = sum(f <= q for f in firsts)
        out.append((q, wins / n if n else 0.0, *wilson(wins, n)))
    return out


def figure(lines: list[Line], title: str) -> str:
    """The SVG; its title says in words what it shows."""
    budget = max(max(p[0] for p in line.points) for line in lines)
    span = math.log10(max(budget, 2))

    def x(q: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log10(max(q, 1)) / span

    def y(rate: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - rate)

    best = max(lines, key=lambda line: line.last)
    top = f"{best.agent}, {100 * best.last:.0f} %"
    alt = f"{title}: share of samples beaten within q queries, 1 to {budget}. Highest: {top}."
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}"><title>{escape(alt)}</title>']
    for rate in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(rate):.1f}" y2="{y(rate):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y(rate) + 3.5:.1f}" text-anchor="end">{100 * rate:.0f}</text>'
        )
    for q in ticks(budget):
        parts.append(f'<line class="grid v" x1="{x(q):.1f}" x2="{x(q):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x(q):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{q}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="axis" x="{middle:.0f}" y="{HEIGHT - 4}" text-anchor="middle">queries (log scale)</text>'
    )
    parts.append(
        f'<text class="axis" transform="translate(9 {y(0.5):.0f}) rotate(-90)" text-anchor="middle">success, %</text>'
    )
    labels = spread([y(line.last) for line in lines], 12.5, TOP + 4, HEIGHT - BOTTOM + 2)
    drawn = []
    for i, line in enumerate(lines):
        path, band = steps(line, x, y, budget)
        style = f"stroke:{line.colour}" + (f";stroke-dasharray:{line.dash}" if line.dash else "")
        at = f"{WIDTH - RIGHT + 4},{y(line.last):.1f} {WIDTH - RIGHT + 11},{labels[i]:.1f}"
        ribbon = "" if line.muted else f'<path class="band" d="{band}" style="fill:{line.colour}"/>'
        drawn.append(
            f'<g class="s s{i}">{ribbon}<path class="line" d="{path}" style="{style}"/>'
            f'<polyline class="lead" points="{at}" style="stroke:{line.colour}"/>'
            f'<text class="name" x="{WIDTH - RIGHT + 14}" y="{labels[i] + 3.5:.1f}">{escape(line.agent)}</text></g>'
        )
    return "".join(parts + drawn[::-1]) + "</svg>"


def steps(line: Line, x, y, budget: int) -> tuple[str, str]:  # type: ignore[no-untyped-def]
    """SVG paths of the step curve and of its band."""
    points = [*line.points, (budget, *line.points[-1][1:])]
    path = "".join(f"H{x(q):.1f}V{y(rate):.1f}" for q, rate, _, _ in points[1:])
    path = f"M{x(points[0][0]):.1f} {y(points[0][1]):.1f}{path}"
    some = [p for p in points if p[1] > 0]  # bands of nothing would only darken the foot of the figure
    low, high = [], []
    for i, (q, _, a, b) in enumerate(some):
        if i:
            low.append((x(q), y(some[i - 1][2])))
            high.append((x(q), y(some[i - 1][3])))
        low.append((x(q), y(a)))
        high.append((x(q), y(b)))
    ring = [*high, *low[::-1]]
    return path, "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in ring) + "Z" if ring else ""


def ticks(budget: int) -> list[int]:
    """Powers of ten and the budget; halves between where there is room.

    >>> ticks(150)
    [1, 3, 10, 30, 150]
    """
    grid = [q for k in range(8) for q in (10**k, 3 * 10**k) if q * 2 < budget]
    return [*(grid or [1]), budget]


def spread(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones and at least `gap` apart, in the order given.

    >>> spread([10.0, 10.0], 4, 0, 100)
    [8.0, 12.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))

    def centre(members: list[int]) -> float:
        half = gap * (len(members) - 1) / 2
        return min(max(sum(wanted[m] for m in members) / len(members), low + half), high - half)

    groups: list[list[int]] = []  # those that would overlap are merged and stand around their mean
    for i in order:
        group = [i]
        while groups and centre(group) - centre(groups[-1]) < gap * (len(group) + len(groups[-1])) / 2:
            group = groups.pop() + group
        groups.append(group)
    out = [0.0] * len(wanted)
    for members in groups:
        for nth, i in enumerate(members):
            out[i] = centre(members) + gap * (nth - (len(members) - 1) / 2)
    return out
