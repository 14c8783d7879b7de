"""The basic iterative method (Kurakin, Goodfellow and Bengio 2017)."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.gradient.pgd import attack as pgd
from advgym.lib.settings import COUNT, POSITIVE


@register_agent("bim", kind="field", knowledge="white-box", allowed={"steps": COUNT, "step_size": POSITIVE})
def attack(env, *, steps=10, step_size=0.2, seed=0):
    """Iterated gradient steps from the clean sample (Kurakin et al. 2017)."""
    return pgd(env, steps=steps, step_size=step_size, random_start=False, seed=seed)
