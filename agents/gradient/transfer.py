"""Transfer: any attack, run against a surrogate of the victim (Papernot et al. 2016)."""

from __future__ import annotations

from advgym import register_agent, registry
from advgym.errors import AdvgymError


@register_agent("transfer", kind=("field", "edits"), knowledge="transfer", inner="inner")
def attack(env, *, inner="", seed=0):
    """Run `inner` where every answer comes from the surrogate; the true victim sees the last perturbation only.

    The default is `pgd` for Fields and `first-order` for Edits.
    """
    entry = registry.agent(inner or ("pgd" if env.kind == "field" else "first-order"))
    if env.kind not in entry.kinds:
        raise AdvgymError(f"inner={inner!r} plays {' and '.join(entry.kinds)}; this task takes {env.kind}")
    env.reset(seed=seed)
    return entry.attack(env.view(proposals=entry.proposals), seed=seed)
