"""The attacks of Foolbox that need labels alone, told labels alone: `foolbox-labels:HopSkipJump`."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.bridges import foolbox


@register_agent("foolbox-labels", kind="field", knowledge="decision", argument="attack")
def attack(env, *, attack, seed=0, **settings):
    """As `foolbox:NAME`, for its attacks on labels ("HopSkipJump", "Boundary"): the model answers one-hot scores."""
    return foolbox.attack(env, attack=attack, seed=seed, **settings)
