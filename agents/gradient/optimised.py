"""Gradient ascent in a ball by a named optimiser: SGD, Adam, RMSProp, Adagrad or FTRL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.once import wide
from advgym.lib.settings import COUNT, POSITIVE


class Ftrl(torch.optim.Optimizer):
    """FTRL-Proximal (McMahan et al. 2013, algorithm 1), by coordinate, with L1 and L2 weights of 0 unless given."""

    def __init__(self, params: Any, lr: float, beta: float = 1.0, l1: float = 0.0, l2: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "l1": l1, "l2": l2})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update; a closure is not asked."""
        for group in self.param_groups:
            α, β, λ1, λ2 = (group[k] for k in ("lr", "beta", "l1", "l2"))
            for w in group["params"]:
                if w.grad is None:
                    continue
                state, g = self.state[w], w.grad
                z, n = state.setdefault("z", torch.zeros_like(w)), state.setdefault("n", torch.zeros_like(w))
                if not state.setdefault("begun", False):  # a start other than zero is what z and n stand for
                    z -= w * (β / α + λ2)
                    state["begun"] = True
                σ = ((n + g * g).sqrt() - n.sqrt()) / α
                z += g - σ * w
                n += g * g
                w.copy_(torch.where(z.abs() > λ1, -(z - z.sign() * λ1) / ((β + n.sqrt()) / α + λ2), 0.0))


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD, "momentum": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop, "adagrad": torch.optim.Adagrad, "ftrl": Ftrl,
}  # fmt: skip


@register_agent(
    "optimised", kind="field", knowledge="white-box",
    allowed={"optimizer": tuple(OPTIMISERS), "steps": COUNT, "rate": POSITIVE},
)  # fmt: skip
def attack(env, *, optimizer="adam", steps=40, rate=0.1, random_start=True, seed=0):
    """Ascent on the surrogate by an optimiser, projected after each step: what the inner optimiser of an attack does.

    Lengths are in radii of the ball, and gradients of root mean square 1 in each sample, so that one rate suits all
    optimisers and samples.

    Args:
        optimizer: "sgd", "momentum" (0.9), "adam", "rmsprop", "adagrad" (as torch.optim has them), "ftrl".
        rate: of learning.
    """
    env.reset(seed=seed)
    radius = wide(env.threat.reach, env.threat.null())
    start = env.threat.random(seed) if random_start else env.threat.null()
    u = (start / radius).requires_grad_()
    inner = OPTIMISERS[optimizer]([u], lr=rate)
    for _ in range(steps):
        if env.done:
            break
        obs, *_ = env.step(u * radius)
        (g,) = torch.autograd.grad(obs["surrogate"].sum(), u)
        u.grad = -_even(g)
        inner.step()
        with torch.no_grad():
            u.copy_(env.threat.project(u * radius) / radius)
    p = env.threat.project(u.detach() * radius)
    if not env.done:
        env.step(p)
    return p


def _even(g: Tensor) -> Tensor:
    """Of root mean square 1 in each lane; zeros stay."""
    size = g.flatten(1).square().mean(1).sqrt()
    return g / wide(size.clamp_min(1e-20), g)
