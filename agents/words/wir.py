"""Greedy word swaps by importance ranking (TextAttack's GreedyWordSwapWIR: Morris et al. 2020)."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.shared.importance import IMPORTANCE, clean_surrogate, order_sites, walk, widened


@register_agent(
    "wir", kind="edits", knowledge="score", proposals=16, needs=("unknown",), allowed={"importance": IMPORTANCE}
)
def attack(env, *, importance="unk", seed=0):
    """Sites by importance, all choices of a site at once, the best one stays if it helps (GreedyWordSwapWIR).

    Args:
        env: Edits; "gradient" needs white-box knowledge.
        importance: "unk", "delete", "gradient", "pwws" or "random", as TextAttack's wir_method: wir-unk, wir-delete ...
            Sites without a choice are not ranked; the queries are otherwise TextAttack's, duplicates aside.
        seed: of the random order.
    """
    env.reset(seed=seed)
    env = widened(env)
    obs, _ = env.reset(seed=seed)
    order = order_sites(env, importance, seed)
    return walk(env, order, start=clean_surrogate(obs))
