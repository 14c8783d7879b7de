"""Random noise: the control row beside every attack."""

from __future__ import annotations

from advgym import register_agent
from advgym.lib.settings import COUNT


@register_agent("noise", kind=("field", "edits"), knowledge="decision", allowed={"draws": COUNT})
def attack(env, *, draws=1, seed=0):
    """Random valid perturbations, one by default: what an attack has to beat."""
    env.reset(seed=seed)
    p = env.threat.null()
    for t in range(draws):
        if env.done:
            break
        p = env.threat.random(seed * 1_000_003 + t)
        env.step(p)
    return p
