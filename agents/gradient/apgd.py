"""Auto-PGD: a step size that looks after itself (Croce and Hein 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.search.square import attack as square
from advgym.agents.shared.common import choose
from advgym.agents.shared.gradients.ascent import SCHEDULES, Ascent
from advgym.agents.shared.gradients.class_losses import LOSSES, Aim
from advgym.agents.shared.once import known_of, names
from advgym.agents.shared.purse import Purse
from advgym.lib.settings import COUNT, NATURAL, POSITIVE, Range

STARTS = ("random", "clean", "held", "square")


@register_agent(
    "apgd", kind="field", knowledge="white-box",
    allowed={"loss": LOSSES, "steps": COUNT, "restarts": COUNT, "cycle": NATURAL, "schedule": SCHEDULES,
             "start": STARTS, "warm": NATURAL, "rank": NATURAL, "step_size": POSITIVE,
             "alpha": Range(0, 1, above=True)},
)  # fmt: skip
def attack(
    env, *, loss="ce", steps=100, restarts=1, cycle=0, schedule="halving", start="random", warm=2, rank=0,
    step_size=2.0, alpha=0.75, seed=0,
):  # fmt: skip
    """Ascent with momentum whose step is halved where it does not help (Croce and Hein 2020).

    Each lane runs on its own: where it comes by an input that it has asked already, it begins anew from a random point
    rather than pay for it. A lane spends at most `steps` times `restarts` gradients, and as many queries.

    Args:
        loss: see `class_losses.Aim`.
        steps: of one run, a query and a gradient each; runs longer than `cycle` (0 for any) are cut into several.
        schedule: of the step size: halving at checkpoints as published, or cosine, linear, constant.
        start: of the first run; later ones are random. held: the best of the episode so far. square (our own): every
            run begins where the Square Attack gets with `warm` queries for each of its steps, which helps where
            gradients near the clean sample lead nowhere.
        rank: 0 untargeted, k towards the k-th strongest other class of a run's first point (ignored in targeted games).
        step_size: the first, relative to the radius. alpha: share of the gradient step, the rest is momentum.
    """
    obs, _ = env.reset(seed=seed)
    aim, eta = Aim(obs, loss), step_size * env.threat.reach
    length = min(steps, cycle or steps)
    if start != "square":
        first = {"random": lambda: env.threat.random(seed), "clean": env.threat.null, "held": obs["perturbation"].clone}
        state = Ascent(env, eta, length, schedule, alpha)
        return climb(env, aim, state, first[start](), steps * restarts, rank=rank, seed=seed)
    left, x = steps * restarts, env.threat.null()
    for run in range(-(-left // length)):
        if env.done:
            break
        now, key = min(length, left - run * length), seed + 611_953 * (run + 1)
        x = square(Purse(env.view(), max(warm * now, 1)), seed=key)
        x = climb(env, aim, Ascent(env, eta, now, schedule, alpha), x, now, rank=rank, seed=key)
    return x


def climb(env, aim: Aim, state: Ascent, x: Tensor, budget: int, *, rank: int = 0, seed: int = 0) -> Tensor:
    """Ask up to `budget` points of each lane, from x; runs that are over or repeat themselves begin anew at random."""
    known = known_of(env)
    for i in range(budget):
        if env.done:
            break
        over = state.t == state.steps
        key = names(env, x.unsqueeze(1))
        over |= known.find(key)[0].squeeze(1)
        if i and known.keeps and bool((over & env.live).any()):
            x = choose(over, env.threat.random(seed + 7_919 * (i + 1)), x)
            state.restart(over)
            key = names(env, x.unsqueeze(1))
        obs, *_ = env.step(x.requires_grad_())
        known.add(key, obs["evaluated"].unsqueeze(1))
        if rank and aim.classes and aim.goal is None:
            order = aim.ranked(obs["scores"])
            target = order[:, min(rank, aim.classes - 1) - 1]
            aim.towards = target if aim.towards is None else torch.where(state.t == 0, target, aim.towards)
        f = aim(obs)
        (g,) = torch.autograd.grad(f.sum(), x)
        x = state.step(x.detach(), f.detach(), g)
    return x.detach()
