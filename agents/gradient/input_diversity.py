"""Diverse inputs with momentum: M-DI2-FGSM (Xie et al. 2019)."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.gradient.momentum import ALLOWED
from advgym.agents.gradient.momentum import attack as momentum


@register_agent("input-diversity", kind="field", knowledge="white-box", needs=("plain",), allowed=ALLOWED)
def attack(env, *, steps=10, mu=1.0, diversity=0.5, shrink=0.1, seed=0):
    """Gradients of randomly resized and moved inputs, with momentum (Xie et al. 2019): a row of `momentum`."""
    return momentum(env, steps=steps, mu=mu, diversity=diversity, shrink=shrink, seed=seed)
