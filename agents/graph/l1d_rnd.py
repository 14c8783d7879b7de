"""L1D-RND: random edges to high degrees, removals by the norm of features (the baseline of AGB, 2026)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.targets import (  # fmt: skip
    add_first_valid,
    best_pairs,
    draw_source,
    node_features,
    play_blind,
    target_graph,
)
from advgym.lib.settings import COUNT, SHARE, Range


@register_agent(
    "l1d-rnd",
    kind="edits",
    knowledge="decision",
    needs=("edges", "target"),
    allowed={"add": SHARE, "part": Range(0, 1, above=True), "tries": COUNT},
)
def attack(env, *, add=0.5, part=0.5, tries=1, seed=0):
    """Coin by coin: join the target to a node of high degree, or cut off its neighbour of largest norm.

    An addition goes to the node of highest degree among a random part of all others; a removal takes, of a random part
    of the neighbours (all of them up to ten), the one around which features weigh most: the L1 norm of its own and its
    neighbours' rows. For binary features this is the order of the Frobenius norm that the authors' code takes.

    Args:
        env: Edits that flip edges around one node.
        add: probability of an addition.
        part: share of the nodes that each choice is among.
        tries: sets proposed, one query each; under transfer the first is handed in.
        seed: of the draws.
    """
    env.reset(seed=seed)
    graph = target_graph(env, "l1d-rnd")
    draws, x = env.draws(seed), node_features(env)
    weight = torch.ones_like(graph.degree) if x is None else x.abs().sum(1)
    norm = weight + graph.sum_neighbours(weight)
    few = int(10 * part)  # fewer neighbours than this are all looked at

    def draw() -> torch.Tensor:
        state = env.threat.null()
        for _ in range(int(env.table.limit.max())):
            source = draw_source(graph, draws.uniform(graph.size))
            near, u = graph.beside(source), draws.uniform(graph.size)
            tie = 0.5 * draws.uniform(graph.size)
            far = ~near & (u < part)
            cut = near & ((u < part) | (near.sum(1, keepdim=True) * part <= few))
            adds = draws.uniform() < add
            score = torch.where(adds.unsqueeze(1), graph.degree + tie, norm)
            score = torch.where(torch.where(adds.unsqueeze(1), far, cut), score, -torch.inf)
            # A lane whose neighbours are all gone adds instead.
            fallback = torch.where(far, graph.degree + tie, -torch.inf)
            tried = [best_pairs(graph, source, s, 8 + state.shape[1]) for s in (score, fallback)]
            state = add_first_valid(env, state, torch.cat(tried, 1))
        return state

    return play_blind(env, draw, tries)
