"""The targeted attack on a transcript of Carlini and Wagner (2018), batched, with a bound for each utterance."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose
from advgym.agents.shared.once import wide
from advgym.agents.shared.signals import quieter, scaled
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
    env, *, steps=300, start=0.4, step_size=0.4, decay=0.95, momentum=0.8, shrink=0.8, patience=15, loss="ctc",
    margin=0.5, fine=0.5, seed=0,
):  # fmt: skip
    """Sign steps with momentum inside a bound τ that shrinks whenever it succeeds (Carlini and Wagner 2018, III).

    Each lane has a τ of its own: `start` of the ball, x `shrink` of the least success on a success; after `patience`
    failures half way back to that success (in dB), and from then on shrunk by less. It keeps the least distorted
    success; a task asks for it with `least=True`, otherwise a success ends the episode.

    Args:
        step_size: α, as a share of τ; it falls by the share `decay` of itself over the steps.
        loss: "ctc" drives the task's surrogate; "margin" goes on, once a lane's bound had to be relaxed, with their
            improved loss Σ_t max(max_s≠π z_t(s) - z_t(π), -margin) over the frames t of the path π of its last success.
        margin: in units of the scores.
        fine: the exponent of `shrink` after each relaxation is this times the one before.
    """
    env.reset(seed=seed)
    held, _ = shrunk(
        env, env.threat.null(), start * env.threat.reach, ball(env), steps=steps, step_size=step_size, decay=decay,
        momentum=momentum, shrink=shrink, patience=patience, loss=loss, margin=margin, fine=fine,
    )  # fmt: skip
    if not env.done:
        env.step(held)
    return held


class Bound(NamedTuple):
    """What a bound τ (lanes,) means.

    Attributes:
        size: of perturbations, given an observation of them: (lanes,).
        within: a perturbation and τ to the perturbation made as small as that.
        step: a direction and τ to a step as long as that.
        counts: of an observation, whether it is a success, bool (lanes,).
    """

    size: Callable[[dict, Tensor], Tensor]
    within: Callable[[Tensor, Tensor], Tensor]
    step: Callable[[Tensor, Tensor], Tensor]
    counts: Callable[[dict], Tensor]


def ball(env) -> Bound:
    """Smaller versions of the constraint's own ball; beside linf and l2 a step is measured at its radius."""
    norm, reach = env.threat.norm, env.threat.reach
    within = {"linf": clipped, "l2": rescaled}.get(norm, lambda δ, τ: quieter(env, δ, τ))
    return Bound(
        lambda obs, δ: obs["distance"],
        lambda δ, τ: env.threat.project(within(δ, τ)),
        lambda m, τ: env.threat.steepest(m) * wide(τ if norm in ("linf", "l2") else reach, m),
        lambda obs: obs["success"] & obs["valid"] & obs["evaluated"],
    )


def peak() -> Bound:
    """The largest |δ|, wherever the constraint's ball is."""
    return Bound(
        lambda obs, δ: δ.abs().flatten(1).amax(1), clipped, lambda m, τ: m.sign() * wide(τ, m),
        lambda obs: obs["success"] & obs["evaluated"],
    )  # fmt: skip


def shrunk(
    env, δ: Tensor, τ: Tensor, bound: Bound, *, steps: int, step_size: float, decay: float, momentum: float,
    shrink: float, patience: int, loss: str, margin: float, fine: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The search of `cw-ctc` from δ and τ: (the least success, or null, its size, or infinity); settings as there."""
    held, least = env.threat.null(), torch.full_like(τ, torch.inf)
    exponent, failures = torch.ones_like(τ), torch.zeros_like(τ)
    m, path, stuck = torch.zeros_like(δ), None, torch.zeros_like(τ, dtype=torch.bool)
    for t in range(steps):
        if env.done:
            break
        δ = δ.detach().requires_grad_()
        obs, *_ = env.step(δ)
        won = bound.counts(obs)
        path = _path(obs["scores"], path, won, loss)
        (g,) = torch.autograd.grad(_gain(obs, path, stuck, margin).sum(), δ)
        δ = δ.detach()
        size = bound.size(obs, δ)
        held, least = choose(won & (size < least), δ, held), torch.where(won, torch.minimum(size, least), least)
        failures = torch.where(won, 0, failures + 1)
        relaxed = (failures >= patience) & least.isfinite()
        stuck, exponent = stuck | relaxed, torch.where(relaxed, exponent * fine, exponent)
        exponent = torch.where(won, (exponent * 1.4).clamp_max(1), exponent)
        failures = torch.where(failures >= patience, 0, failures)
        τ = torch.where(won, torch.minimum(τ, least) * shrink**exponent, τ)
        τ = torch.where(relaxed, (τ * least).sqrt(), τ)
        m = momentum * m + scaled(g)
        α = step_size * (1 - decay * t / steps)
        δ = bound.within(δ + α * bound.step(m, τ), τ)
    return held, least


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


def clipped(δ: Tensor, τ: Tensor) -> Tensor:
    """δ within ±τ."""
    return torch.maximum(torch.minimum(δ, wide(τ, δ)), -wide(τ, δ))


def rescaled(δ: Tensor, τ: Tensor) -> Tensor:
    """δ with an Euclidean norm of at most τ."""
    size = torch.linalg.vector_norm(δ.flatten(1), dim=1).clamp_min(1e-12)
    return δ * wide((τ / size).clamp_max(1), δ)
