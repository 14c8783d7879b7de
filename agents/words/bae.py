"""BAE (Garg and Ramakrishnan 2020)."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.shared.importance import clean_surrogate, order_sites, walk, widened


@register_agent("bae", kind="edits", knowledge="score", proposals=16, needs=("deleted", "language-model"))
def attack(env, *, seed=0):
    """Words by the loss of probability without them, then all masked-LM substitutes of each, the best one if it helps.

    The search of BAE-R; its substitutes come from the task's table: `candidates="masked-lm:NAME"` on a word-swap task
    (on the insertion task, where tokens may be put beside a word too, it is BAE-R+I).
    """
    env.reset(seed=seed)
    env = widened(env)
    obs, _ = env.reset(seed=seed)
    return walk(env, order_sites(env, "delete", seed), start=clean_surrogate(obs))
