"""Square-style local random search (Andriushchenko et al. 2020)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents._common import choose, clean_fitness, fitness, hand_in, wide
from advgym.settings import Range


@register_agent("square", kind="field", knowledge="score", allowed={"p_init": Range(0, 1, above=True)})
def attack(env, *, p_init=0.3, seed=0):
    """Random windows at the surface of the ball, kept when the score rises (Andriushchenko et al. 2020).

    The window spans the last two axes of an image and the only axis of a waveform; its share of the sample is halved
    along the published schedule, stretched to the query budget.
    """
    obs, _ = env.reset(seed=seed)
    draws, shape, reach = env.draws(seed), env.shape, env.threat.reach
    n, budget = len(reach), env.threat.model.queries
    stripes = torch.sign(draws.uniform(*[1] * (len(shape) - 1), shape[-1]) - 0.5)  # of all channels and rows
    delta = env.threat.project((stripes * wide(reach, stripes)).expand(n, *shape).contiguous())
    best, held = clean_fitness(obs), env.threat.null()
    for t in range(budget):
        if env.done:
            break
        if t:
            window = _window(draws, shape, _share(p_init, t / budget))
            sign = torch.sign(
                draws.uniform(*([shape[0]] + [1] * (len(shape) - 1) if len(shape) > 2 else [1] * len(shape))) - 0.5
            )
            spike = torch.where(window, sign * wide(reach, window), held if env.threat.norm == "linf" else 0.0)
            delta = env.threat.project(spike if env.threat.norm == "linf" else held + spike)
        obs, *_ = env.step(delta)
        value = fitness(obs)
        better = value > best
        best, held = torch.where(better, value, best), choose(better, delta, held)
    return hand_in(env, held)


def _share(p: float, progress: float) -> float:
    """The schedule of the paper (10,000 iterations), by progress in [0, 1]."""
    marks = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
    return float(p / 2 ** sum(progress > m for m in marks))


def _window(draws, shape: tuple[int, ...], share: float) -> torch.Tensor:
    """Bool (lanes, *shape): one window per lane over the last one or two axes."""
    axes = 1 if len(shape) == 1 else 2
    inside = None
    for axis in range(len(shape) - axes, len(shape)):
        size = shape[axis]
        side = max(1, min(size, round(size * share ** (1 / axes))))
        start = draws.integers(size - side + 1).unsqueeze(1)
        line = torch.arange(size, device=start.device)
        hit = (line >= start) & (line < start + side)
        view = [1] * len(shape)
        view[axis] = size
        hit = hit.view(-1, *view)
        inside = hit if inside is None else inside & hit
    return inside.expand(-1, *shape)
