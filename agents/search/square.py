"""Square-style local random search (Andriushchenko et al. 2020)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.common import choose, clean_fitness, fitness, wide
from advgym.agents.shared.once import PATIENCE, SMALL, Known, first_new, known_of, names
from advgym.lib.settings import Range

TRIES = 4  # windows drawn where the first one makes an input that was asked before


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
    known, small = known_of(env), held[0].numel() <= SMALL
    new, idle = torch.ones_like(env.live), torch.zeros(n, dtype=torch.int64, device=reach.device)
    for t in range(budget):
        if env.done or (small and not bool((env.live & (idle < PATIENCE)).any())):
            break
        if t:
            delta = _proposal(env, draws, held, p_init, t / budget)
        if small:
            delta, key, new = _first_new(env, known, delta, lambda i, t=t, held=held: _proposal(
                env, env.draws(seed + 7_919 * (t * TRIES + i + 1)), held, p_init, t / budget
            ))  # fmt: skip
            idle = torch.where(new, 0, idle + 1)
        obs, *_ = env.step(delta)
        if small:
            known.add(key, (new & obs["evaluated"]).unsqueeze(1))
        value = fitness(obs)
        better = value > best
        best, held = torch.where(better, value, best), choose(better, delta, held)
    return held


def _proposal(env, draws, held: torch.Tensor, p_init: float, progress: float) -> torch.Tensor:
    """`held` with one random window of the schedule's size at the surface."""
    shape = env.shape
    window = _window(draws, shape, _share(p_init, progress))
    sign = torch.sign(
        draws.uniform(*([shape[0]] + [1] * (len(shape) - 1) if len(shape) > 2 else [1] * len(shape))) - 0.5
    )
    linf = env.threat.norm == "linf"
    spike = torch.where(window, sign * wide(env.threat.reach, window), held if linf else 0.0)
    return env.threat.project(spike if linf else held + spike)


def _first_new(env, known: Known, delta: torch.Tensor, draw) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(proposals with the first new one of `TRIES` draws, or null, for each asked before; names; which are new)."""
    live = env.live.unsqueeze(1)
    key = names(env, delta.unsqueeze(1))
    new = first_new(known, key, live)[1]
    for i in range(TRIES):
        if not bool((~new & env.live).any()):
            break
        other = draw(i)
        name = names(env, other.unsqueeze(1))
        take = ~new & first_new(known, name, live)[1]
        delta, key, new = choose(take, other, delta), torch.where(take.unsqueeze(1), name, key), new | take
    return choose(new, delta, env.threat.null()), key, new


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
    assert inside is not None
    return inside.expand(-1, *shape)
