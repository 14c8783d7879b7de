"""Frames of attacked graphs: the neighbourhood of a node, a whole graph, or which classes the flips join and part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgym.core.goals import Goal
from advgym.envs.graph.show import neighbourhood
from advgym.envs.graph.show.many_nodes import MOST, _between, _pairs
from advgym.envs.graph.show.neighbourhood import COLOURS, SIDE, edges_among
from advgym.lib.canvas import ADDED, FINE, GROUND, INK, LINE, MUTED, SIZE, Frame, font, frame, sheet, shorten

Place = dict[int, tuple[float, float]]
GREY = (139, 148, 158)
SPACE = 300  # pixels of the square that the graph is drawn in; the flips are listed to its right
LISTED = 14  # flips


def draw_node(batch: Any, row: int, form: Tensor, *, labels: Tensor) -> Frame:
    """Uint8 (H, W, 3) of a fixed size: the target in the middle, flipped edges marked and listed."""
    target, flips = int(batch.target[row]), neighbourhood._pairs(batch, form)
    place = neighbourhood._radial(batch, target, flips)
    colours = {node: int(labels[node]) for node in place}
    return _graph(place, edges_among(batch.graph, list(place)), flips, colours, neighbourhood._flips(batch, row, form),
                  target)  # fmt: skip


def draw_whole(batch: Any, row: int, form: Tensor) -> Frame:
    """The same of a whole graph, its nodes coloured by tag."""
    import networkx as nx

    count, flips = int(batch.count[row]), neighbourhood._pairs(batch, form)
    clean = (batch.adjacency[row, :count, :count] > 0.5).triu(1).nonzero().tolist()
    graph = nx.Graph(clean)
    graph.add_nodes_from(range(count))
    parts = sorted(nx.connected_components(graph), key=min)
    graph.add_edges_from((0, min(part)) for part in parts[1:])  # one picture, also when it falls apart
    spots = nx.kamada_kawai_layout(graph) if count > 1 else {0: (0.0, 0.0)}
    reach = SIDE / 2 - 18
    place = {v: (SIDE / 2 + reach * float(x), SIDE / 2 + reach * float(y)) for v, (x, y) in spots.items()}
    colours = dict(enumerate(batch.x[row].argmax(1).tolist()))
    return _graph(place, [(a, b) for a, b in clean], flips, colours, neighbourhood._flips(batch, row, form))


def _graph(
    place: Place, clean: list[tuple[int, int]], flips: list[tuple[int, int]], colours: dict[int, int],
    listed: list[str], target: int = -1,
) -> Frame:  # fmt: skip
    """Nodes at their places in a square of `SIDE`, and the flips listed beside them."""
    made, draw = sheet()
    scale = SPACE / SIDE * FINE
    at = {node: (x * scale, y * scale) for node, (x, y) in place.items()}
    flipped, there = {frozenset(pair) for pair in flips}, {frozenset(pair) for pair in clean}
    for pair in clean:
        if frozenset(pair) not in flipped:
            draw.line([*at[pair[0]], *at[pair[1]]], GREY if target in pair else LINE, 2 * FINE)
    for pair in flips:
        if frozenset(pair) in there:
            _dashed(draw, at[pair[0]], at[pair[1]])
        else:
            draw.line([*at[pair[0]], *at[pair[1]]], ADDED, 3 * FINE)
    ends = {node for pair in flips for node in pair}
    for node, (x, y) in at.items():
        r = (9 if node == target else 7 if node in ends else 5) * FINE
        label = colours.get(node, -1)
        fill = COLOURS[label % len(COLOURS)] if label >= 0 else GREY
        draw.ellipse([x - r, y - r, x + r, y + r], fill, INK if node == target or node in ends else GROUND, FINE)
    _list(draw, listed)
    return frame(made)


def _dashed(draw: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A removed edge."""
    (x1, y1), (x2, y2) = start, end
    steps = max(2, round(((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5 / (7 * FINE)))
    for i in range(0, steps, 2):
        a, b = i / steps, (i + 1) / steps
        draw.line([x1 + a * (x2 - x1), y1 + a * (y2 - y1), x1 + b * (x2 - x1), y1 + b * (y2 - y1)], INK, 2 * FINE)


def _list(draw: Any, listed: list[str]) -> None:
    x, room = (SPACE + 10) * FINE, (SIZE[0] - SPACE - 20) * FINE
    title = f"{len(listed)} flip{'s' * (len(listed) != 1)}" if listed else "no flips"
    draw.text((x, 12 * FINE), title, MUTED, font=font(13 * FINE))
    for i, text in enumerate(listed[:LISTED]):
        colour = ADDED if text.startswith("+") else INK
        draw.text((x, (32 + 17 * i) * FINE), shorten(text, 13 * FINE, room), colour, font=font(13 * FINE))
    if len(listed) > LISTED:
        more = f"and {len(listed) - LISTED} more"
        draw.text((x, (32 + 17 * LISTED) * FINE), more, MUTED, font=font(13 * FINE))


def draw_classes(batch: Any, row: int, form: Tensor, *, labels: Tensor, goal: Goal) -> Frame:
    """Classes by classes: how many edges were added (upper right, with the diagonal) and removed (lower left)."""
    pairs = _pairs(form).cpu()
    graph = batch.graph.to("cpu")
    gone = graph.has(pairs[:, 0], pairs[:, 1]) if len(pairs) else torch.zeros(0, dtype=torch.bool)
    classes = min(int(labels.max()) + 1, MOST)
    added, removed = (_between(pairs[part], labels.cpu(), classes) for part in (~gone, gone))
    made, draw = sheet()
    left, top = 120, 34
    cell = min((SIZE[0] - left - 12) // classes, (SIZE[1] - top - 12) // classes, 40)
    said = f"edges added {int((~gone).sum())} (upper right), removed {int(gone.sum())} (lower left)"
    draw.text((12 * FINE, 10 * FINE), said, MUTED, font=font(13 * FINE))
    most = max(int(added.max()), int(removed.max()), 1)
    for i in range(classes):
        name = shorten(goal.describe(torch.tensor(i)), 12 * FINE, (left - 20) * FINE)
        draw.text((12 * FINE, (top + i * cell + cell * 0.3) * FINE), name, INK, font=font(12 * FINE))
        for j in range(classes):
            table, colour = (added, ADDED) if j >= i else (removed, MUTED)
            value = int(table[min(i, j), max(i, j)])
            share = 0.15 + 0.85 * value / most if value else 0.04
            fill = tuple(round(255 + (c - 255) * share) for c in colour)
            x, y = (left + j * cell) * FINE, (top + i * cell) * FINE
            draw.rectangle([x, y, x + (cell - 3) * FINE, y + (cell - 3) * FINE], fill)
            if value and cell >= 22:
                ink = GROUND if share > 0.6 else INK
                spot = (x + (cell - 3) * FINE / 2, y + (cell - 3) * FINE / 2)
                draw.text(spot, str(value), ink, font=font(11 * FINE), anchor="mm")
    return frame(made)
