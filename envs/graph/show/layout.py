"""Where to draw the nodes around a target: a tree of hops, ring by ring."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

from advgym.envs.graph.inputs.graphs import Graph

Place = dict[int, tuple[float, float]]


def layout(graph: Graph, pairs: list[tuple[int, int]], target: int, hops: int, most: int) -> Place:
    """Positions of the nodes within `hops` of a target, in hops: (x, y) with the target at the origin.

    Args:
        graph: the clean graph.
        pairs: flipped pairs; distances are in the graph with all of them, and their ends are always placed.
        target: the node in the middle.
        hops: rings, at least 1.
        most: nodes placed, but for the ends of flips; no ring but the last takes more than two thirds of them.
    """
    flipped: dict[int, list[int]] = {}
    for a, b in pairs:
        flipped.setdefault(a, []).append(b)
        flipped.setdefault(b, []).append(a)

    def around(node: int) -> list[int]:
        start, count = int(graph.start[node]), int(graph.count[node])
        clean = graph.idx[start : start + count].tolist()
        return sorted(dict.fromkeys([*flipped.get(node, []), *clean]), key=lambda v: v not in flipped)

    parent, depth, ring, seen = {target: target}, {target: 0}, [target], {target}
    for hop in range(1, hops + 1):
        room = most * 2 // 3 if hop < hops else most
        following: list[int] = []
        for node, other in _in_turn(ring, around):
            if other not in seen and (other in flipped or len(parent) < room):
                parent[other], depth[other] = node, hop
                following.append(other)
            seen.add(other)  # one without room is not drawn farther out than it is
        ring = following
    reached = dict(depth)
    for node in flipped:  # flips far from the target: beyond the node they hang on, or on the last ring
        if node not in reached:
            known = [v for v in flipped[node] if v in reached]
            parent[node], depth[node] = (known[0], reached[known[0]] + 1) if known else (target, hops)
    children: dict[int, list[int]] = {}
    for node, above in parent.items():
        if node != target:
            children.setdefault(above, []).append(node)
    leaves: dict[int, int] = {}
    for node in sorted(parent, key=lambda v: -depth[v]):
        leaves[node] = max(1, sum(leaves[v] for v in children.get(node, [])))
    place, wedge = {target: (0.0, 0.0)}, {target: (math.pi / 2, 2 * math.pi)}
    for node in sorted(parent, key=lambda v: depth[v]):
        at, width = wedge[node]
        for child in sorted(children.get(node, [])):
            # Half by what hangs on it, half even: a hub does not squeeze its neighbours.
            share = width * (leaves[child] / leaves[node] + 1 / len(children[node])) / 2
            wedge[child] = (at, share)
            middle, at = at + share / 2, at + share
            place[child] = (depth[child] * math.cos(middle), depth[child] * math.sin(middle))
    return place


def _in_turn(nodes: list[int], around: Callable[[int], list[int]]) -> Iterator[tuple[int, int]]:
    """(node, neighbour), one neighbour of each node in turn, so that no hub fills the picture."""
    runs = [[(node, other) for other in around(node)] for node in nodes]
    for turn in itertools.zip_longest(*runs):
        yield from (pair for pair in turn if pair is not None)
