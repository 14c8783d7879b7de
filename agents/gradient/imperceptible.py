"""Imperceptible transcripts: a success first, then what the ear does not hear of it (Qin et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose
from advgym.agents.shared.once import wide
from advgym.agents.shared.signals import clean_of, scaled
from advgym.lib.settings import COUNT, POSITIVE, SHARE, Range


@register_agent(
    "imperceptible",
    kind="field",
    knowledge="white-box",
    needs=("waveform",),
    allowed={
        "steps": COUNT, "first": SHARE, "start": Range(0, 1, above=True), "step_size": Range(0, 2, above=True),
        "fall": Range(0, 1, above=True), "alpha": POSITIVE, "rise": Range(1, 10), "drop": Range(0.01, 1),
        "momentum": Range(0, 0.999),
    },
)  # fmt: skip
def attack(
    env, *, steps=500, first=0.3, start=0.2, step_size=0.4, fall=0.02, alpha=0.05, rise=1.2, drop=0.8, momentum=0.8,
    seed=0,
):  # fmt: skip
    """Two stages: a bound on max |δ| that shrinks on success, then ℓ_net + α ℓ_θ (Qin et al. 2019).

    ℓ_θ is the constraint's own differentiable distance: of `norm="mask"` the excess over the masking threshold, for
    which the attack is made; of another norm that norm. The second stage steps along the sum of the two normalised
    gradients; a lane's α grows by `rise` while it succeeds and falls by `drop` while it does not. The least distant
    valid success is kept; the task asks for it with `least=True`.

    Args:
        first: the share of the steps that the first stage takes.
        start: the first bound, as a share of the clean signal's peak.
        step_size, fall: of the first stage, as a share of the bound; how far it has fallen at the end of the second.
        alpha: α at its start.
    """
    obs, _ = env.reset(seed=seed)
    δ, held = env.threat.null(), env.threat.null()
    τ = start * clean_of(env).abs().flatten(1).amax(1).clamp_min(1e-4)
    least = torch.full_like(τ, torch.inf)  # distance of the best valid success
    quiet, loudest = δ, torch.full_like(τ, torch.inf)  # the success of least peak, valid or not, and that peak
    α, m, β = torch.full_like(τ, alpha), torch.zeros_like(δ), step_size * τ
    turn = int(first * steps)
    for t in range(steps):
        if env.done:
            break
        if t == turn:
            β, m = step_size * torch.minimum(τ, loudest), torch.zeros_like(m)
            δ = choose(loudest.isfinite(), quiet, δ)
        δ = δ.detach().requires_grad_()
        obs, *_ = env.step(δ)
        won = obs["success"] & obs["evaluated"]
        (g,) = torch.autograd.grad(obs["surrogate"].sum(), δ)
        nearer = won & obs["valid"] & (obs["distance"] < least)
        held, least = choose(nearer, δ.detach(), held), torch.where(nearer, obs["distance"], least)
        if t < turn:
            peak = δ.detach().abs().flatten(1).amax(1)
            quieter = won & (peak < loudest)
            quiet, loudest = choose(quieter, δ.detach(), quiet), torch.where(quieter, peak, loudest)
            τ = torch.where(won, torch.minimum(τ, peak) * 0.8, τ)
            m = momentum * m + scaled(g)
            δ = _bounded(δ.detach() + wide(step_size * τ, δ) * m.sign(), τ)
        else:
            far = env.threat.distance(δ)
            (h,) = torch.autograd.grad(far.sum(), δ)
            α = torch.where(won, α * rise, α * drop).clamp(1e-4, 1e4)
            share = (α / (1 + α)).view(-1, *[1] * (δ.dim() - 1))
            m = momentum * m + (1 - share) * scaled(g) - share * scaled(h)
            decay = fall ** ((t - turn) / max(steps - turn, 1))
            δ = δ.detach() + wide(0.1 * β * decay, δ) * scaled(m).clamp(-3, 3)
    if not env.done:
        env.step(held)
    return held


def _bounded(δ: Tensor, τ: Tensor) -> Tensor:
    """δ within ±τ. The constraint's own ball is not looked at: the way in is sought from outside."""
    return torch.maximum(torch.minimum(δ, wide(τ, δ)), -wide(τ, δ))
