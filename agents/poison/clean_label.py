"""Clean-label backdoors: rows of the target class that are hard to learn, so that the trigger is what is learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from advgym import register_agent
from advgym.agents.shared.own_network import trained
from advgym.lib.settings import COUNT


@register_agent(
    "clean-label", kind="field", knowledge="decision", needs=("triggered",), allowed={"steps": COUNT, "epochs": COUNT}
)
def attack(env, *, steps=20, epochs=10, seed=0):
    """Ascend L(f(x + δ), y) for each row of the class, on a network f of the attacker's own (Turner et al. 2019).

    f learns from the public training data. One query in all: what is added is handed in, the trigger is the task's.

    Args:
        steps: of signed ascent from a random start; a step is 2.5 / steps of the radius.
        epochs: that f is trained.
    """
    obs, _ = env.reset(seed=seed)
    inputs, known = (env.context[name].to(env.device) for name in ("inputs", "labels"))
    f = trained(inputs, known, int(env.context["classes"]), seed, epochs)
    rows = obs["rows"].flatten()
    x, y = inputs[rows], known[rows]
    α = env.threat.reach.view(-1, *[1] * len(env.shape)) * 2.5 / steps
    delta = env.threat.random(seed)
    for _ in range(steps):
        delta.requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(f(x + delta.flatten(0, 1)), y, reduction="sum")
        (g,) = torch.autograd.grad(loss, delta)
        delta = env.threat.project(delta.detach() + α * g.sign())
    env.step(delta)
    return delta
