"""DICE: disconnect internally, connect externally (Waniek et al. 2018)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.targets import (  # fmt: skip
    PublicGraph,
    add_first_valid,
    best_pairs,
    draw_source,
    edges_anywhere,
    estimate_labels,
    known_labels,
    node_features,
    play_blind,
    public_graph,
    target_graph,
)
from advgym.lib.settings import COUNT, SHARE


@register_agent("dice", kind="edits", knowledge="decision", needs=("edges",), allowed={"cut": SHARE, "tries": COUNT})
def attack(env, *, cut=0.5, tries=1, seed=0):
    """Coin by coin: cut an edge to a node of the target's own class, or add one to a node of another class.

    The paper knows every label. Here the target's class is the victim's own answer, which reset shows, and the others'
    are known for labelled nodes and estimated for the rest, by the attacker's own linear surrogate on what is public
    (`estimate_labels`). Where no label is public, a neighbour is taken for one of the own class, and whoever shares
    fewer features with the target than half of all nodes for a stranger.

    Args:
        env: Edits that flip edges of a public graph, around one node or everywhere.
        cut: probability of a removal.
        tries: sets proposed, one query each; under transfer the first is handed in.
        seed: of the draws.
    """
    obs, _ = env.reset(seed=seed)
    if public_graph(env) is None and edges_anywhere(env):
        return _everywhere(env, obs, cut, tries, seed)
    graph = target_graph(env, "dice")
    own, draws = _own_class(env, graph, obs), env.draws(seed)

    def draw() -> torch.Tensor:
        state = env.threat.null()
        for _ in range(int(env.table.limit.max())):
            source = draw_source(graph, draws.uniform(graph.size))
            near, u = graph.beside(source), draws.uniform(graph.size)
            inside, outside = (torch.where(who, u, -torch.inf) for who in (near & own, ~near & ~own))
            first = (draws.uniform() < cut).unsqueeze(1)
            # Where one kind has run out the other takes its place, and after both any edge.
            order = [torch.where(first, inside, outside), torch.where(first, outside, inside), u]
            state = add_first_valid(env, state, torch.cat([best_pairs(graph, source, s) for s in order], 1))
        return state

    return play_blind(env, draw, tries)


def _everywhere(env, obs: dict, cut: float, tries: int, seed: int) -> torch.Tensor:
    """Global attacks: whole sets of cut edges within classes and new ones between them, to the full budget."""
    size, edges = env.context["num_nodes"], env.context["edge_index"].to(env.device)
    graph = PublicGraph.of(size, edges, torch.zeros(env.num_envs, dtype=torch.int64, device=env.device))
    known = known_labels(env, obs)
    label = estimate_labels(graph, node_features(env), known) if known is not None else torch.arange(size)
    low, high = edges[:, edges[0] < edges[1]]
    inside = torch.stack([low, high], 1)[label[low] == label[high]]
    draws, rows, budget = env.draws(seed), env.shape[0], env.table.limit

    def draw() -> torch.Tensor:
        gone = inside[draws.uniform(len(inside)).argsort(dim=1)[:, :rows]]  # (lanes, <= rows, 2), each once
        gone = torch.nn.functional.pad(gone, (0, 0, 0, rows - gone.shape[1]), value=-1)
        ends = (draws.uniform(rows, 2) * size).long().sort(2).values
        a, b = ends.unbind(2)
        new = torch.where(((label[a] != label[b]) & ~graph.has(a, b)).unsqueeze(2), ends, -1)
        want = (draws.uniform(rows) < cut).unsqueeze(2)
        flips = torch.where(want & (gone[..., :1] >= 0), gone, new)
        used = (flips[..., 0] >= 0) & _first_of(flips, size)
        used = used & (used.cumsum(1) <= budget.unsqueeze(1))
        return torch.where(used.unsqueeze(2), flips, -1)

    return play_blind(env, draw, tries)


def _first_of(pairs: torch.Tensor, size: int) -> torch.Tensor:
    """Bool (lanes, E): pairs that no earlier row of their lane holds."""
    key = pairs[..., 0] * size + pairs[..., 1]
    order = key.argsort(dim=1, stable=True)
    ordered = key.gather(1, order)
    again = torch.zeros_like(key, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return ~torch.zeros_like(again).scatter(1, order, again)


def _own_class(env, graph, obs: dict) -> torch.Tensor:
    """Bool (lanes, N): nodes taken for members of the target's class."""
    known, x = known_labels(env, obs), node_features(env)
    ref = obs["output"].reshape(len(graph.target), -1)[:, 0] if "output" in obs else None
    if known is not None:
        label = estimate_labels(graph, x, known)
        mine = label[graph.target] if ref is None else ref
        return label == mine.unsqueeze(1)
    near = graph.beside(graph.target)
    if x is None:
        return near
    unit = x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)
    smooth = unit + graph.sum_neighbours(unit)  # one hop: single rows of words are too sparse to compare
    like = smooth[graph.target] @ (smooth / smooth.norm(dim=1, keepdim=True).clamp_min(1e-12)).T
    return near | (like > like.median(1, keepdim=True).values)
