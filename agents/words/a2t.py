"""A2T (Yoo and Qi 2021)."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.shared.importance import clean_surrogate, order_sites, walk, widened


@register_agent("a2t", kind="edits", knowledge="white-box", proposals=16, needs=("text",))
def attack(env, *, seed=0):
    """Words ranked once by the gradient, never again; all substitutes of each, the best one stays if it helps.

    One gradient in all, which is what makes it cheap enough to train on. The paper's substitutes are the task's:
    candidates="counter-fitted" with pos=true, or "masked-lm:NAME" for A2T-MLM.
    """
    env.reset(seed=seed)
    env = widened(env)
    obs, _ = env.reset(seed=seed)
    return walk(env, order_sites(env, "gradient", seed), start=clean_surrogate(obs))
