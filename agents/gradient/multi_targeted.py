"""Multi-targeted ascent (Gowal et al. 2019), its budget shared out by successive halving (Jamieson and Talwalkar 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.gradient.apgd import climb
from advgym.agents.shared.ascent import SCHEDULES, Ascent
from advgym.agents.shared.class_losses import Aim
from advgym.agents.shared.common import choose
from advgym.lib.settings import COUNT, POSITIVE


@register_agent(
    "multi-targeted", kind="field", knowledge="white-box",
    allowed={"loss": ("ce", "margin", "pm", "dlr"), "steps": COUNT, "targets": COUNT, "step_size": POSITIVE,
             "schedule": SCHEDULES, "start": ("random", "clean", "held")},
)  # fmt: skip
def attack(
    env, *, loss="margin", steps=300, targets=9, step_size=1.0, schedule="cosine", start="random", seed=0
):  # fmt: skip
    """Towards each of the strongest other classes in turn, then longer towards those that came closest.

    Each round spends the same: all targets, then a third of them with three times the steps each, until one is left. A
    round goes on from where a target came closest, every other one from a random point. Where an answer is no class, or
    the goal has a target of its own, all steps go one way.

    Args:
        loss: of `class_losses.Aim`, towards the target.
        steps: all in all, a query and a gradient each.
        targets: how many of the other classes are tried, the strongest first.
        start: of the first round; held: the best of the episode so far.
    """
    obs, _ = env.reset(seed=seed)
    aim = Aim(obs, loss)
    first = {"random": lambda: env.threat.random(seed), "clean": env.threat.null, "held": lambda: obs["perturbation"]}
    x, size = first[start](), step_size * env.threat.reach
    if not aim.classes or aim.goal is not None:
        return climb(env, aim, Ascent(env, size, max(steps // 3, 1), schedule), x, steps, seed=seed)
    order = aim.ranked(obs["scores"])[:, :targets]
    n, many = order.shape
    rounds = plan(many, steps)
    best, worth = x.unsqueeze(1).repeat(1, many, *[1] * (x.dim() - 1)), torch.full((n, many), -torch.inf, device=x.device)
    row = torch.arange(n, device=x.device)
    for r, (width, each) in enumerate(rounds):
        ranks = worth.argsort(dim=1, descending=True, stable=True)[:, :width]
        for j in range(width):
            if env.done:
                return x
            at = ranks[:, j]
            aim.towards = order[row, at]
            fresh = r % 2 == 1 or (r == 0 and start == "random")
            begin = env.threat.random(seed + 104_729 * (r * many + j + 1)) if fresh else best[row, at]
            state = Ascent(env, size, each, schedule)
            climb(env, aim, state, begin, each, seed=seed + 31 * (r * many + j + 1))
            better = state.f_best > worth[row, at]
            best[row, at] = choose(better, state.best, best[row, at])
            worth[row, at] = torch.where(better, state.f_best, worth[row, at])
    return x


def plan(targets: int, steps: int) -> list[tuple[int, int]]:
    """(how many targets, steps towards each) of every round.

    >>> plan(9, 297)
    [(9, 11), (3, 33), (1, 99)]
    """
    widths = [targets]
    while widths[-1] > 1:
        widths.append(-(-widths[-1] // 3))
    return [(w, max(steps // len(widths) // w, 1)) for w in widths]
