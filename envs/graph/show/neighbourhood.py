"""Attacked graphs for people: an inline SVG of the neighbourhood that matters, and a line for terminals."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import torch
from torch import Tensor

from advgym.core.goals import Goal

MOST = 30  # nodes drawn
SIDE = 320
RINGS = (0, 82, 138)
# Colour-blind safe (Okabe & Ito 2008), readable on light and dark.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#8c6bb1")


def _colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)] if label >= 0 else "var(--muted)"


def _name(batch: Any, node: int) -> str:
    names = getattr(batch.graph, "names", None)
    return names[node] if names else str(node)


def _pairs(batch: Any, form: Tensor) -> list[tuple[int, int]]:
    return [(a, b) for a, b in form.tolist() if a >= 0] if batch.key == "pair" else []


def _added(batch: Any, row: int, a: int, b: int) -> bool:
    if hasattr(batch, "graph"):
        one, other = torch.tensor([a, b], device=batch.graph.device)
        return not bool(batch.graph.has(one, other))
    return not bool(batch.adjacency[row, a, b] > 0.5)


def _flips(batch: Any, row: int, form: Tensor) -> list[str]:
    """Each flip in a word: `+` what appears, `-` what goes."""
    if batch.key == "cell":
        words = []
        for node, feature in ((a, b) for a, b in form.tolist() if a >= 0):
            sign = "-" if bool(batch.graph.x[node, feature] > 0.5) else "+"
            own = node == int(batch.target[row])
            words.append(f"{sign}x{feature}" if own else f"{sign}x{feature}@{_name(batch, node)}")
        return words
    label = (lambda v: _name(batch, v)) if hasattr(batch, "graph") else str
    return [f"{'+' if _added(batch, row, a, b) else '-'}({label(a)},{label(b)})" for a, b in _pairs(batch, form)]


def _flip_words(batch: Any, row: int, form: Tensor) -> str:
    return " ".join(_flips(batch, row, form)) or "no flips"


def line_node(batch: Any, row: int, form: Tensor, *, goal: Goal) -> str:
    """For example `node 1708 (theory): +(1708,99) -(1708,4)`."""
    own = goal.describe(batch.labels[row])
    return f"node {_name(batch, int(batch.target[row]))} ({own}): {_flip_words(batch, row, form)}"


def line_whole(batch: Any, row: int, form: Tensor, *, goal: Goal) -> str:
    """For example `graph 17 (mutagenic): +(2,9) -(0,5)`."""
    return f"graph {int(batch.ids[row])} ({goal.describe(batch.labels[row])}): {_flip_words(batch, row, form)}"


# -- nodes ----------------------------------------------------------------------------------------------------------
def show_node(batch: Any, row: int, form: Tensor, before: Tensor, after: Tensor, *, labels: Tensor, goal: Goal) -> str:
    """The target in the middle, its neighbours around it, flipped edges marked; nodes coloured by class."""
    graph, target = batch.graph, int(batch.target[row])
    flips = _pairs(batch, form)
    place = _radial(batch, target, flips)
    clean = edges_among(graph, list(place))
    parts = _draw_edges(place, clean, flips, target)
    for node, (x, y) in place.items():
        main = node == target
        flipped = any(node in pair for pair in flips)
        ring = 'stroke="var(--ink)" stroke-width="2.5"' if main else 'stroke="var(--panel)" stroke-width="1.5"'
        size = 11 if main else 8 if flipped or math.hypot(x - SIDE / 2, y - SIDE / 2) < 100 else 6
        title = (
            f"{escape(_name(batch, node))}: {escape(goal.describe(labels[node]) if labels[node] >= 0 else 'no label')}"
        )
        parts.append(
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{size}" fill="{_colour(int(labels[node]))}" {ring}>'
            f"<title>{title}</title></circle>"
        )
        if main or flipped:
            parts.append(
                f'<text x="{x:.0f}" y="{y - size - 4:.0f}" font-size="11" text-anchor="middle" fill="var(--ink)" '
                f'stroke="var(--panel)" stroke-width="3" paint-order="stroke">'
                f"{escape(_name(batch, node))}</text>"
            )
    alt = f"Neighbourhood of {line_node(batch, row, form, goal=goal)}"
    classes = sorted({int(labels[node]) for node in place if labels[node] >= 0})
    legend = [(_colour(c), goal.describe(torch.tensor(c))) for c in classes]
    caption = _chips(batch, row, form) if batch.key == "cell" else ""
    return _figure(parts, alt, legend, _verdict(goal, before, after), caption, edges=batch.key == "pair", place=place)


def _radial(batch: Any, target: int, flips: list[tuple[int, int]]) -> dict[int, tuple[float, float]]:
    """Positions of at most MOST nodes: flipped ends and neighbours on the first ring, others near their parents."""
    graph = batch.graph

    def neighbours(node: int) -> list[int]:
        start, count = int(graph.start[node]), int(graph.count[node])
        return graph.idx[start : start + count].tolist()

    own = neighbours(target)
    ends = [v for pair in flips for v in pair if v != target]
    direct = [v for pair in flips if target in pair for v in pair if v != target]
    first = list(dict.fromkeys(direct + own))[: MOST * 2 // 3]
    first.sort()
    angle = {node: 2 * math.pi * i / max(len(first), 1) - math.pi / 2 for i, node in enumerate(first)}
    outer: list[tuple[float, int]] = []
    seen = {target, *first}
    for node in ends:
        if node not in seen:
            seen.add(node)
            outer.append((angle.get(next((v for v in neighbours(node) if v in angle), -1), 0.0), node))
    queue = [(node, iter(neighbours(node))) for node in first]
    while queue and len(seen) < MOST:  # one neighbour of each in turn, so that no hub fills the picture
        node, rest = queue.pop(0)
        for other in rest:
            if other not in seen:
                seen.add(other)
                outer.append((angle[node], other))
                queue.append((node, rest))
                break
    outer.sort()
    middle = SIDE / 2
    place = {target: (middle, middle)}
    for node, a in angle.items():
        place[node] = (middle + RINGS[1] * math.cos(a), middle + RINGS[1] * math.sin(a))
    spread = 2 * math.pi / max(len(outer), 1)
    start = sum(a - i * spread for i, (a, _) in enumerate(outer)) / max(len(outer), 1)
    for i, (a, node) in enumerate(outer):
        # Between the parent's direction and an even spread: near its parent, apart from the others.
        even = start + i * spread
        b = even if len(outer) > 8 else (even + a) / 2
        place[node] = (middle + RINGS[2] * math.cos(b), middle + RINGS[2] * math.sin(b))
    return place


def edges_among(graph: Any, nodes: list[int]) -> list[tuple[int, int]]:
    """The clean edges between these nodes, each once."""
    at = torch.tensor(nodes, device=graph.device)
    has = graph.has(at.unsqueeze(1), at.unsqueeze(0)).triu(1).nonzero().tolist()
    return [(nodes[i], nodes[j]) for i, j in has]


def _draw_edges(
    place: dict[int, tuple[float, float]], clean: list[tuple[int, int]], flips: list[tuple[int, int]], target: int = -1
) -> list[str]:
    flipped = {frozenset(pair) for pair in flips}
    existing = {frozenset(pair) for pair in clean}
    parts = []
    kept = [p for p in clean if frozenset(p) not in flipped]
    for pair in sorted(kept, key=lambda p: target in p) + flips:
        (x1, y1), (x2, y2) = place[pair[0]], place[pair[1]]
        own = target in pair
        style = 'stroke="var(--muted)" stroke-width="1.6"' if own else 'stroke="var(--line)" stroke-width="1.1"'
        if frozenset(pair) in flipped:
            gone = frozenset(pair) in existing
            style = (
                'stroke="var(--muted)" stroke-width="2" stroke-dasharray="5 4"'
                if gone
                else 'stroke="var(--bad)" stroke-width="3"'
            )
        parts.append(f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" {style}/>')
    return parts


def _chips(batch: Any, row: int, form: Tensor) -> str:
    """The feature flips as small labels."""
    style = "border:1px solid;border-radius:9px;padding:0 7px;font-size:12px;white-space:nowrap;color:var(--{})"
    chip = '<span style="{}">{}</span>'
    words = _flips(batch, row, form)
    return " ".join(chip.format(style.format("bad" if w[0] == "+" else "muted"), escape(w)) for w in words)


def _verdict(goal: Goal, before: Tensor, after: Tensor) -> str:
    was, now = escape(goal.describe(before)), escape(goal.describe(after))
    if was == now:
        return f'<span style="color:var(--muted)">still <b>{now}</b></span>'
    return f'{was} <span style="color:var(--muted)">&rarr;</span> <b style="color:var(--bad)">{now}</b>'


def _figure(
    parts: list[str],
    alt: str,
    legend: list[tuple[str, str]],
    verdict: str,
    caption: str = "",
    *,
    edges: bool = True,
    place: dict[int, tuple[float, float]],
) -> str:
    dots = "".join(
        f'<span style="white-space:nowrap"><svg width="10" height="10" aria-hidden="true"><circle cx="5" cy="5" r="5" '
        f'fill="{colour}"/></svg> {escape(name)}</span> '
        for colour, name in legend
    )
    lines = (
        '<span style="white-space:nowrap"><b style="color:var(--bad)">&#9473;</b> added</span> '
        '<span style="white-space:nowrap"><b style="color:var(--muted)">&#9477;</b> removed</span>'
        if edges
        else ""
    )
    return (
        f'<figure style="margin:0"><svg viewBox="{_box(place)}" style="display:block;width:100%;max-height:430px" '
        f'role="img" aria-label="{escape(alt)}"><title>{escape(alt)}</title>{"".join(parts)}</svg>'
        f'<figcaption style="font-size:13px;color:var(--ink);line-height:1.5">{verdict}<br/>{caption}'
        f'<div style="color:var(--muted);font-size:12px;display:flex;flex-wrap:wrap;gap:2px 10px">{dots}{lines}</div>'
        "</figcaption></figure>"
    )


def _box(place: dict[int, tuple[float, float]]) -> str:
    """The part of the picture that is drawn on, so that a small graph is drawn as large as a large one."""
    (left, right), (top, low) = ((min(at), max(at)) for at in zip(*place.values(), strict=True))
    wide, high = max(right - left, SIDE / 3), max(low - top, SIDE / 3)
    x, y = (left + right - wide) / 2 - 22, (top + low - high) / 2 - 26
    return f"{x:.0f} {y:.0f} {wide + 44:.0f} {high + 46:.0f}"


# -- whole graphs ---------------------------------------------------------------------------------------------------
def show_whole(batch: Any, row: int, form: Tensor, before: Tensor, after: Tensor, *, goal: Goal) -> str:
    """The whole graph, flipped edges marked, nodes coloured by tag."""
    import networkx as nx

    count = int(batch.count[row])
    clean = (batch.adjacency[row, :count, :count] > 0.5).triu(1).nonzero().tolist()
    flips = _pairs(batch, form)
    graph = nx.Graph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(clean)
    for i, part in enumerate(sorted(nx.connected_components(graph), key=min)):  # one picture, also when it falls apart
        graph.add_edges_from([(0, min(part))] if i else [])
    layout = nx.kamada_kawai_layout(graph) if count > 1 else {0: (0.0, 0.0)}
    reach = SIDE / 2 - 18
    place = {v: (SIDE / 2 + reach * float(x), SIDE / 2 + reach * float(y)) for v, (x, y) in layout.items()}
    parts = _draw_edges(place, [(a, b) for a, b in clean], flips)
    tag = batch.x[row].argmax(1).tolist()
    for node, (x, y) in place.items():
        parts.append(
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="7" fill="{_colour(tag[node])}" stroke="var(--panel)" '
            f'stroke-width="1.5"><title>{node}</title></circle>'
        )
    legend = [(_colour(t), f"tag {t}") for t in sorted(set(tag[:count]))]
    alt = f"Drawing of {line_whole(batch, row, form, goal=goal)}"
    return _figure(parts, alt, legend, _verdict(goal, before, after), place=place)
