"""The targeted attack on a transcript of Carlini and Wagner (2018), batched, with a bound for each utterance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose
from advgym.agents.shared.once import wide
from advgym.agents.shared.signals import scaled
from advgym.lib.settings import COUNT, NATURAL, SHARE, Range

LOSSES = ("ctc", "margin")


@register_agent(
    "cw-ctc",
    kind="field",
    knowledge="white-box",
    allowed={
        "steps": COUNT,
        "start": Range(0, 1, above=True),
        "step_size": Range(0, 2, above=True),
        "decay": SHARE,
        "momentum": Range(0, 0.999),
        "shrink": Range(0.01, 0.999),
        "patience": COUNT,
        "loss": LOSSES,
        "margin": NATURAL,
        "fine": SHARE,
    },
)
def attack(
    env, *, steps=300, start=0.4, step_size=0.4, decay=0.95, momentum=0.8, shrink=0.8, patience=15, loss="margin",
    margin=0.5, fine=0.5, seed=0,
):  # fmt: skip
    """Sign steps with momentum inside a bound τ that shrinks whenever it succeeds (Carlini and Wagner 2018, III).

    Each lane has a τ of its own: `start` of the ball, x `shrink` of the least success on a success; after `patience`
    failures half way back to that success (in dB), and from then on shrunk by less. It keeps the least distorted
    success; a task asks for it with `least=True`, otherwise a success ends the episode.

    Args:
        step_size: α, as a share of τ; it falls by the share `decay` of itself over the steps.
        loss: "ctc" drives the task's surrogate; "margin" goes on, once a lane's bound had to be relaxed, with their improved
            loss Σ_t max(max_s≠π z_t(s) - z_t(π), -margin) over the frames t of the path π of its last success.
        margin: in units of the scores.
        fine: the exponent of `shrink` after each relaxation is this times the one before.
    """
    obs, _ = env.reset(seed=seed)
    reach = env.threat.reach
    δ, held = env.threat.null(), env.threat.null()
    τ, least = start * reach, torch.full_like(reach, torch.inf)
    exponent, failures = torch.ones_like(reach), torch.zeros_like(reach)
    m, path, stuck = torch.zeros_like(δ), None, torch.zeros_like(reach, dtype=torch.bool)
    for t in range(steps):
        α = step_size * (1 - decay) ** (t / steps)
        if env.done:
            break
        obs, *_ = env.step(δ.requires_grad_())
        won = obs["success"] & obs["valid"] & obs["evaluated"]
        path = _path(obs["scores"], path, won, loss)
        (g,) = torch.autograd.grad(_gain(obs, path, stuck, margin).sum(), δ)
        δ = δ.detach()
        nearer = won & (obs["distance"] < least)
        held, least = choose(nearer, δ, held), torch.where(nearer, obs["distance"], least)
        failures = torch.where(won, 0, failures + 1)
        relaxed = (failures >= patience) & least.isfinite()
        stuck, exponent = stuck | relaxed, torch.where(relaxed, exponent * fine, exponent)
        exponent = torch.where(won, (exponent * 1.4).clamp_max(1), exponent)
        failures = torch.where(failures >= patience, 0, failures)
        τ = torch.where(won, torch.minimum(τ, least) * shrink**exponent, τ)
        τ = torch.where(relaxed, (τ * least).sqrt(), τ)
        m = momentum * m + scaled(g)
        δ = _within(env, δ + wide(α * τ, δ) * env.threat.steepest(m), τ)
    if not env.done:
        env.step(held)
    return held


def _path(scores: Tensor, path: Tensor | None, won: Tensor, loss: str) -> Tensor | None:
    """The symbol of each frame (lanes, frames) in the lanes' last successes, -1 before any; None without frames."""
    if loss == "ctc" or scores.dim() != 3:
        return None
    now = scores.detach().argmax(2)
    old = torch.full_like(now, -1) if path is None else path
    return choose(won, now, old)


def _gain(obs: dict, path: Tensor | None, stuck: Tensor, margin: float) -> Tensor:
    """What is driven up: the surrogate, or in lanes that got stuck the sum of the clipped margins along their paths."""
    if path is None:
        return obs["surrogate"]
    scores = obs["scores"]
    on = F.one_hot(path.clamp_min(0), scores.shape[2]).bool()
    ahead = scores.masked_fill(~on, -torch.inf).amax(2) - scores.masked_fill(on, -torch.inf).amax(2)
    return torch.where(stuck, ahead.clamp_max(margin).sum(1), obs["surrogate"])


def _within(env, δ: Tensor, τ: Tensor) -> Tensor:
    """δ in the ball of radius τ, in the norm of the constraint, and valid."""
    if env.threat.norm == "l2":
        size = torch.linalg.vector_norm(δ.flatten(1), dim=1).clamp_min(1e-12)
        return env.threat.project(δ * wide((τ / size).clamp_max(1), δ))
    return env.threat.project(torch.maximum(torch.minimum(δ, wide(τ, δ)), -wide(τ, δ)))
