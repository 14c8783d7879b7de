"""DeepFool, in L2 and Linf (Moosavi-Dezfooli et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.gradients.class_losses import classes_of
from advgym.agents.shared.gradients.least import DUAL, TINY, Least, objective
from advgym.lib.settings import COUNT, NATURAL


@register_agent(
    "deepfool", kind="field", knowledge="white-box", needs=("l2-linf",),
    allowed={"steps": COUNT, "candidates": COUNT, "overshoot": NATURAL},
)  # fmt: skip
def attack(env, *, steps=50, candidates=10, overshoot=0.02, seed=0):
    """Onto the nearest of the linearised class boundaries, again and again (Moosavi-Dezfooli et al. 2016).

    All classes' gradients come from one forward; lanes that are across ask no more. In a targeted game, and where an
    answer is no class, there is one boundary: where the objective is 0.

    Args:
        steps: a query each, and a gradient per boundary.
        candidates: classes whose boundaries are looked at, the strongest first, the reference among them.
        overshoot: how far the sum of all steps is stretched.
    """
    obs, _ = env.reset(seed=seed)
    ref = obs["output"]
    own = classes_of(obs) > 1 and "target" not in obs
    others = _others(obs["scores"], ref, candidates) if own else None
    held, lanes = env.threat.null(), torch.arange(env.num_envs, device=env.device)
    least = Least(env)
    r = torch.zeros_like(least.low)
    for _ in range(steps):
        if env.done or not len(lanes):
            break
        p = (least.clip((1 + overshoot) * r)).view(least.shape).requires_grad_()
        obs, *_ = least.env.step(p)
        f = objective(obs).unsqueeze(1)
        if others is not None:
            z = obs["scores"]
            f = z.gather(1, others) - z.gather(1, ref.unsqueeze(1))
        w = [torch.autograd.grad(f[:, k].sum(), p, retain_graph=k + 1 < f.shape[1])[0] for k in range(f.shape[1])]
        over = obs["success"] | ~least.env.live
        held[lanes] = p.detach()
        stay = (~over).nonzero().squeeze(1)
        if not len(stay):
            break
        δ = p.detach().flatten(1)
        r = r + _step(least.norm, f.detach(), torch.stack(w, 1).flatten(2), least, δ)
        if len(stay) < len(lanes):
            lanes, r, ref = lanes[stay], r[stay], ref[stay]
            others = None if others is None else others[stay]
            least = Least(env.view(lanes))
    return held


def _others(scores: Tensor, ref: Tensor, candidates: int) -> Tensor:
    """The strongest other classes of each lane, (lanes, candidates - 1)."""
    order = scores.detach().scatter(1, ref.unsqueeze(1), -torch.inf).argsort(dim=1, descending=True)
    return order[:, : max(min(candidates, scores.shape[1]) - 1, 1)]


def _step(norm: str, f: Tensor, w: Tensor, least: Least, δ: Tensor) -> Tensor:
    """The least step onto the nearest of K planes f + <w, v> = 0: f (n, K), w (n, K, d)."""
    dual = torch.linalg.vector_norm(w, DUAL[norm], dim=2).clamp_min(TINY)
    nearest = (f.abs() / dual).argmin(1)
    row = torch.arange(len(f), device=f.device)
    gap, best, length = f[row, nearest].abs() + 1e-4, w[row, nearest], dual[row, nearest]
    if norm == "linf":
        return (gap / length).unsqueeze(1) * best.sign()
    return (gap / length.square()).unsqueeze(1) * best
