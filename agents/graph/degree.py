"""Join the target to the nodes of highest degree, or of lowest."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.targets import add_first_valid, best_pairs, draw_source, play_blind, target_graph
from advgym.errors import unknown
from advgym.lib.settings import COUNT

TO = ("high", "low")


@register_agent(
    "degree",
    kind="edits",
    knowledge="decision",
    needs=("edges", "target"),
    allowed={"to": TO, "tries": COUNT},
)
def attack(env, *, to="high", tries=1, seed=0):
    """New edges from the target to the nodes of highest (or lowest) degree, by the public graph alone.

    The heuristic baseline of benchmarks (GRB, Zheng et al. 2021, has it for whole graphs). Ties are drawn. Where edits
    may not touch the target its neighbours take its place, one drawn for each edge.

    Args:
        env: Edits that flip edges around one node.
        to: "high" or "low".
        tries: sets proposed, one query each; under transfer the first is handed in.
        seed: of the draws.
    """
    if to not in TO:
        raise unknown("to=", to, TO)
    env.reset(seed=seed)
    graph = target_graph(env, "degree")
    draws = env.draws(seed)
    sign = 1.0 if to == "high" else -1.0

    def draw() -> torch.Tensor:
        state = env.threat.null()
        for _ in range(int(env.table.limit.max())):
            source = draw_source(graph, draws.uniform(graph.size))
            score = sign * graph.degree + 0.5 * draws.uniform(graph.size)
            score = torch.where(graph.beside(source), -torch.inf, score)
            state = add_first_valid(env, state, best_pairs(graph, source, score, 8 + state.shape[1]))
        return state

    return play_blind(env, draw, tries)
