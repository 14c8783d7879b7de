"""Figures of attacked graphs: the neighbourhood of a target, and the degrees before and after (matplotlib)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgym.envs.graph.constraints.powerlaw import D_MIN, THRESHOLD, degree_changes, degree_test_of, terms
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.show.layout import Place, layout
from advgym.envs.graph.show.neighbourhood import COLOURS, edges_among

ADDED, REMOVED = "#1a7f37", "#c8102e"
INK, MUTED, LINE = "#1f2328", "#8b949e", "#d0d7de"
MOST = 60  # nodes drawn
INCHES = 6.0
CLEAR = 0.3  # lines that are not the target's keep this far from it, in hops


# -- a neighbourhood ------------------------------------------------------------------------------------------------
def neighbourhood(
    graph: Graph, flips: Tensor, target: int, labels: Tensor | None, path: str | Path, *, hops: int = 2,
    most: int = MOST, class_names: Sequence[str] | None = None,
) -> Path:  # fmt: skip
    """Draw what is within `hops` of a target, added edges green, removed ones red and dashed; returns the path.

    The target is in the middle and every ring is one hop of the graph with both kinds of edges in it. Nodes that flips
    touch are always drawn and named, others as room allows.

    Args:
        graph: the clean graph.
        flips: int64 (E, 2) undirected pairs, -1 is padding.
        target: the node in the middle.
        labels: int64 (N,) classes that colour the nodes, -1 for none; or None.
        path: what to write; its ending says the format (png, svg, pdf).
        most: nodes drawn, unless flips touch more.
        class_names: for the legend.
    """
    from matplotlib.lines import Line2D

    pairs = [(a, b) for a, b in flips.tolist() if a >= 0]
    place = layout(graph, pairs, target, hops, most)
    clean = {frozenset(pair) for pair in edges_among(graph, list(place))}
    flipped = {frozenset(pair) for pair in pairs}
    touched = {node for pair in pairs for node in pair}
    figure, axes = _canvas(INCHES, INCHES + 0.5)
    for pair in sorted(clean - flipped, key=sorted):
        near = target in pair
        _line(axes, place, pair, color=MUTED if near else LINE, linewidth=1.5 if near else 0.9, zorder=1 + near)
    for pair in sorted(flipped, key=sorted):
        gone = pair in clean
        _line(axes, place, pair, color="white", linewidth=5, zorder=2)
        style = {"color": REMOVED, "linestyle": (0, (4, 2.5))} if gone else {"color": ADDED}
        _line(axes, place, pair, linewidth=2.4, zorder=3, **style)
    scale = 1.0 if len(place) <= 30 else math.sqrt(30 / len(place))
    for node, (x, y) in place.items():
        main, strong = node == target, node in touched
        size = (430 if main else 190 if strong else 90) * scale
        edge = INK if main or strong else "white"
        colour = _colour(labels, node)
        axes.scatter(x, y, size, color=colour, edgecolors=edge, linewidths=2 if main else 1.2, zorder=5 if main else 4)
    own = [other for pair in clean | flipped if target in pair for other in pair if other != target]
    for node in sorted(touched - {target}):
        _name(axes, graph, node, place[node], math.atan2(place[node][1], place[node][0]), 15)
    _name(axes, graph, target, place[target], _gap([math.atan2(place[v][1], place[v][0]) for v in own]), 21, "bold")
    classes = sorted({int(labels[n]) for n in place if labels[n] >= 0}) if labels is not None else []
    dots = [
        Line2D([], [], linestyle="", marker="o", markersize=8, color=_colour(labels, n), label=_word(c, class_names))
        for c in classes
        for n in [next(n for n in place if int(labels[n]) == c)]  # type: ignore[index]
    ]
    lines = [
        Line2D([], [], color=ADDED, linewidth=2.4, label="edge added"),
        Line2D([], [], color=REMOVED, linewidth=2.4, linestyle=(0, (3, 2)), label="edge removed"),
    ]
    shown = [line for line, on in zip(lines, (bool(flipped - clean), bool(flipped & clean)), strict=True) if on]
    axes.set_aspect("equal")
    axes.axis("off")
    rim = 0.13 * max(1.0, *(max(abs(x), abs(y)) for x, y in place.values()))
    xs, ys = ([at[i] for at in place.values()] for i in (0, 1))
    axes.set(xlim=(min(xs) - rim, max(xs) + rim), ylim=(min(ys) - rim, max(ys) + rim))
    handles = shown + dots
    if handles:
        _legend(figure, handles)
    return _save(figure, path)


def _line(axes: Any, place: Place, pair: frozenset[int], **style: Any) -> None:
    """A straight line, or one that bends around the target where it would pass close by."""
    (x1, y1), (x2, y2) = (place[v] for v in sorted(pair))
    long = math.hypot(x2 - x1, y2 - y1)
    aside = (x1 * y2 - x2 * y1) / long if long else 0.0  # signed distance of the middle of the picture
    clear = min(math.hypot(x1, y1), math.hypot(x2, y2)) < CLEAR or abs(aside) > CLEAR
    push = 0.0 if clear or x1 * x2 + y1 * y2 > 0 else 2 * (math.copysign(CLEAR, aside) - aside)
    bend = x1 + x2 + push * (y2 - y1) / long if long else x1, y1 + y2 - push * (x2 - x1) / long if long else y1
    t = torch.linspace(0, 1, 24 if push else 2).tolist()
    axes.plot(
        [(1 - u) ** 2 * x1 + u * (1 - u) * bend[0] + u * u * x2 for u in t],
        [(1 - u) ** 2 * y1 + u * (1 - u) * bend[1] + u * u * y2 for u in t], solid_capstyle="round", **style,
    )  # fmt: skip


def _name(axes: Any, graph: Graph, node: int, at: tuple[float, float], angle: float, away: int, w: str = "") -> None:
    """The node's name, beside it in the direction of `angle`."""
    from matplotlib.patheffects import withStroke

    dx, dy = math.cos(angle), math.sin(angle)
    axes.annotate(
        graph.names[node] if graph.names else str(node), at, (away * dx, away * dy), textcoords="offset points",
        ha="center" if abs(dx) < 0.5 else "left" if dx > 0 else "right", va="center", fontsize=10, color=INK,
        fontweight=w or "normal", zorder=6, parse_math=False,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )  # fmt: skip


def _gap(angles: list[float]) -> float:
    """The middle of the widest gap between directions; down where there are none."""
    if not angles:
        return -math.pi / 2
    a = sorted(angles)
    gaps = [(b - a[i], a[i]) for i, b in enumerate([*a[1:], a[0] + 2 * math.pi])]
    wide, start = max(gaps)
    return start + wide / 2


def _colour(labels: Tensor | None, node: int) -> str:
    label = -1 if labels is None else int(labels[node])
    return COLOURS[label % len(COLOURS)] if label >= 0 else MUTED


def _word(label: int, class_names: Sequence[str] | None) -> str:
    return class_names[label].replace("$", r"\$") if class_names is not None else f"class {label}"


# -- degrees --------------------------------------------------------------------------------------------------------
def degrees(graph: Graph, flips: Tensor, path: str | Path) -> Path:
    """Draw the degree distribution before and after, on logarithmic axes, with Nettack's Lambda; returns the path.

    The curves are the share of nodes of at least each degree.

    Args:
        graph: the clean graph.
        flips: int64 (E, 2) undirected pairs, -1 is padding.
        path: what to write; its ending says the format (png, svg, pdf).
    """
    _, node, change = degree_changes(graph, flips.unsqueeze(0))
    after = graph.count.index_add(0, node, change)
    value = float(degree_test_of(graph).incremental(flips.unsqueeze(0), graph)[0])
    figure, axes = _canvas(INCHES, 4.2)
    looks = ((graph.count, COLOURS[0], "clean", "o"), (after, COLOURS[5], "attacked", "s"))
    for i, (count, colour, word, marker) in enumerate(looks):
        d, share = _at_least(count)
        fill = colour if i else "white"
        label = f"{word}: {int(count.sum()) // 2:,} edges, $\\alpha$ = {_alpha(count):.3f}"
        axes.plot(
            d, share, color=colour, linewidth=1.6, marker=marker, markersize=6 - 2 * i, markerfacecolor=fill,
            markeredgewidth=1.3, label=label, zorder=3 + i,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="degree $d$", ylabel="share of nodes of degree $\\geq d$")
    axes.grid(True, which="major", color=LINE, linewidth=0.6)
    axes.tick_params(which="both", colors=INK, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)
    many = int((flips[:, 0] >= 0).sum())
    verdict = "unnoticeable" if value < THRESHOLD else "noticeable"
    axes.set_title(
        f"{many} flip{'' if many == 1 else 's'}: $\\Lambda$ = {value:.3g}, {verdict} (bar {THRESHOLD})", fontsize=11,
        color=INK, loc="left",
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=10, loc="lower left")
    return _save(figure, path)


def _at_least(count: Tensor) -> tuple[list[int], list[float]]:
    """Degrees above 0, and the share of all nodes of at least each."""
    many = torch.bincount(count)
    above = many.flip(0).cumsum(0).flip(0).double() / max(len(count), 1)
    d = [int(v) for v in many.nonzero()[:, 0] if v > 0]
    return d, above[d].tolist()


def _alpha(count: Tensor) -> float:
    """The exponent of Nettack's power law; nan without a node of degree 2."""
    n, s = (float(v.sum()) for v in terms(count))
    return 1 + n / (s - n * math.log(D_MIN - 0.5)) if n else math.nan


# -- both -----------------------------------------------------------------------------------------------------------
def _canvas(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    return figure, figure.subplots()


def _legend(figure: Any, handles: list[Any]) -> None:
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 3), frameon=False, fontsize=10,
        labelcolor=INK, columnspacing=1.6, handletextpad=0.5,
    )  # fmt: skip


def _save(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    figure.savefig(path, dpi=160)
    return path
