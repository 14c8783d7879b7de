"""The cascade `auto` for those who see labels alone."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.gradient.auto import attack as auto
from advgym.lib.settings import NATURAL


@register_agent("auto-labels", kind=("field", "edits"), knowledge="decision", allowed={"propagations": NATURAL})
def attack(env, *, budget="thorough", propagations=0, seed=0):
    """The members of `suites.toml` that ask for labels alone, each on what is left."""
    return auto(env, budget=budget, propagations=propagations, suite=f"{env.kind}-decision", seed=seed)
