"""Multi-targeted ascent (Gowal et al. 2019), its budget shared out by halving (Jamieson and Talwalkar 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.gradient.apgd import climb
from advgym.agents.shared.common import choose
from advgym.agents.shared.gradients.ascent import SCHEDULES, Ascent
from advgym.agents.shared.gradients.class_losses import Aim
from advgym.lib.settings import COUNT, NATURAL, POSITIVE


@register_agent(
    "multi-targeted", kind="field", knowledge="white-box",
    allowed={"loss": ("ce", "margin", "pm", "dlr"), "steps": COUNT, "cycle": NATURAL, "targets": COUNT,
             "step_size": POSITIVE, "schedule": SCHEDULES, "start": ("random", "clean", "held")},
)  # fmt: skip
def attack(
    env, *, loss="margin", steps=300, targets=9, step_size=2.0, schedule="cosine", start="random", cycle=0, seed=0
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
        cycle: steps after which all begins again, at random points, 0 for never.
    """
    obs, _ = env.reset(seed=seed)
    aim = Aim(obs, loss)
    first = {"random": lambda: env.threat.random(seed), "clean": env.threat.null, "held": lambda: obs["perturbation"]}
    x, size = first[start](), step_size * env.threat.reach
    if not aim.classes or aim.goal is not None:
        return climb(env, aim, Ascent(env, size, max(steps // 3, 1), schedule), x, steps, seed=seed)
    order = aim.ranked(obs["scores"])[:, :targets]
    found = Found(x, order)
    per = cycle or steps
    for c in range(-(-steps // per)):
        now, key, drawn = min(per, steps - c * per), seed + 1_299_709 * c, c > 0 or start == "random"
        _cycle(env, aim, found, now, size, schedule, key, fresh=drawn)
    return x


class Found:
    """The targets of each lane, (n, K), and where the loss towards each was largest."""

    def __init__(self, x: Tensor, order: Tensor) -> None:
        n, many = order.shape
        self.order, self.row = order, torch.arange(n, device=x.device)
        self.best = x.unsqueeze(1).repeat(1, many, *[1] * (x.dim() - 1))
        self.worth = torch.full((n, many), -torch.inf, device=x.device)

    def keep(self, at: Tensor, state: Ascent) -> None:
        """Enter what a run towards the targets at places (n,) has found."""
        row = self.row
        better = state.f_best > self.worth[row, at]
        self.best[row, at] = choose(better, state.best, self.best[row, at])
        self.worth[row, at] = torch.where(better, state.f_best, self.worth[row, at])


def _cycle(env, aim: Aim, found: Found, steps: int, size: Tensor, schedule: str, seed: int, *, fresh: bool) -> None:
    """All targets, then fewer of them for longer."""
    many = found.order.shape[1]
    for r, (width, each) in enumerate(plan(many, steps)):
        ranks = found.worth.argsort(dim=1, descending=True, stable=True)[:, :width]
        for j in range(width):
            if env.done:
                return
            at = ranks[:, j]
            aim.towards = found.order[found.row, at]
            drawn = r % 2 == 1 or (r == 0 and fresh)
            key = seed + 104_729 * (r * many + j + 1)
            begin = env.threat.random(key) if drawn else found.best[found.row, at]
            state = Ascent(env, size, each, schedule)
            climb(env, aim, state, begin, each, seed=key)
            found.keep(at, state)


def plan(targets: int, steps: int) -> list[tuple[int, int]]:
    """(how many targets, steps towards each) of every round.

    >>> plan(9, 297)
    [(9, 11), (3, 33), (1, 99)]
    """
    widths = [targets]
    while widths[-1] > 1:
        widths.append(-(-widths[-1] // 3))
    return [(w, max(steps // len(widths) // w, 1)) for w in widths]
