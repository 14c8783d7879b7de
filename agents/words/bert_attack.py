"""BERT-Attack (Li et al. 2020)."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.shared.importance import clean_surrogate, order_sites, walk, widened


@register_agent("bert-attack", kind="edits", knowledge="score", proposals=16, needs=("unknown", "language-model"))
def attack(env, *, seed=0):
    """Words by the loss of probability when masked, then all masked-LM substitutes of each, the best one if it helps.

    The substitutes come from the task's table: `candidates="masked-lm:NAME"` with `choices` for the paper's K (48);
    a masked word is the table's probe "unknown".
    """
    env.reset(seed=seed)
    env = widened(env)
    obs, _ = env.reset(seed=seed)
    return walk(env, order_sites(env, "unk", seed), start=clean_surrogate(obs))
