"""The Jacobian-based saliency map attack, pairs of values in L0 (Papernot et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.gradients.class_losses import classes_of
from advgym.agents.shared.gradients.least import Least
from advgym.lib.settings import COUNT, Range

WIDE = 128  # values whose pairs are compared, those of largest own saliency, where there are more


@register_agent(
    "jsma", kind="field", knowledge="white-box", needs=("l0",),
    allowed={"theta": Range(-1, 1), "gamma": Range(0, 1, above=True), "width": COUNT},
)  # fmt: skip
def attack(env, *, theta=1.0, gamma=1.0, width=WIDE, seed=0):
    """The two values that raise the target most while they lower all else, moved to the box's end (Papernot 2016).

    Untargeted, the target is the strongest other class of each point. Where an answer is no class, the values that
    raise the objective most.

    Args:
        theta: the change of a value, over the width of the box, up or (below 0) down; a moved value is done with.
        gamma: the share of the values that may be changed, within the constraint.
        width: of how many values all pairs are compared, those that score best alone (the paper compares all).
    """
    obs, _ = env.reset(seed=seed)
    least, classes = Least(env), classes_of(obs)
    room = (least.high if theta > 0 else -least.low).clamp_min(0)
    step = torch.minimum(room, abs(theta) * (least.high - least.low).amax(1, keepdim=True))
    sign = 1.0 if theta > 0 else -1.0
    δ = torch.zeros_like(least.low)
    free = step > 1e-6
    most = torch.minimum(env.threat.reach, torch.full_like(env.threat.reach, gamma * δ.shape[1]))
    for _ in range(max(int(most.max()) // 2, 1)):
        if env.done:
            break
        p = δ.view(least.shape).requires_grad_()
        obs, *_ = env.step(p)
        least.keep(obs, p.detach())
        up, rest = _slopes(obs, p, classes)
        pair = _pair(sign * up, sign * rest, free, width)
        ahead = (~obs["success"]).unsqueeze(1) & pair
        δ = torch.where(ahead, sign * step, δ.detach())
        free = free & ~ahead
    if not env.done:
        least.keep(env.step(δ.view(least.shape))[0], δ.view(least.shape))
    return least.best


def _slopes(obs: dict, p: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Gradients (n, d) of the target's score and of the sum of all others."""
    if not classes:
        (g,) = torch.autograd.grad(obs["objective"].sum(), p)
        return g.flatten(1), -g.flatten(1)
    z = obs["scores"]
    target = obs.get("target")
    if target is None:
        own = z.detach().argmax(1, keepdim=True)
        target = z.detach().scatter(1, own, -torch.inf).argmax(1)
    t = z.gather(1, target.unsqueeze(1)).sum()
    (g,) = torch.autograd.grad(t, p, retain_graph=True)
    (every,) = torch.autograd.grad(z.sum(), p)
    return g.flatten(1), (every - g).flatten(1)


def _pair(up: Tensor, rest: Tensor, free: Tensor, width: int) -> Tensor:
    """Bool (n, d): the two free values of largest -(sum up)(sum rest), the first sum above 0, the second below."""
    alone = torch.where(free, up - rest, -torch.inf)
    _, at = alone.topk(min(width, up.shape[1]), 1)
    a, b, ok = up.gather(1, at), rest.gather(1, at), free.gather(1, at)
    a, b = a.unsqueeze(2) + a.unsqueeze(1), b.unsqueeze(2) + b.unsqueeze(1)
    good = ok.unsqueeze(2) & ok.unsqueeze(1) & (a > 0) & (b < 0)
    k = at.shape[1]
    good = good & ~torch.eye(k, dtype=torch.bool, device=at.device)
    value, flat = torch.where(good, -a * b, -1.0).flatten(1).max(1)
    two = torch.stack([flat // k, flat % k], 1)
    # Where no pair is salient, the best value alone.
    two = torch.where((value > 0).unsqueeze(1), two, 0)
    return torch.zeros_like(free).scatter(1, at.gather(1, two), True) & free
