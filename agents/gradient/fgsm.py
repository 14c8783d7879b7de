"""The fast gradient sign method (Goodfellow, Shlens and Szegedy 2015)."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.gradient.pgd import attack as pgd


@register_agent("fgsm", kind="field", knowledge="white-box")
def attack(env, *, seed=0):
    """One full gradient step from the clean sample (Goodfellow et al. 2015): one gradient, two queries."""
    return pgd(env, steps=1, step_size=1.0, random_start=False, seed=seed)
