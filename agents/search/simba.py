"""SimBA, the simple black-box attack (Guo et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose, clean_fitness, fitness
from advgym.agents.shared.frequencies import cosines, low_sizes
from advgym.agents.shared.labels import settled
from advgym.agents.shared.once import wide
from advgym.lib.settings import POSITIVE, Range


@register_agent(
    "simba", kind="field", knowledge="score",
    allowed={"basis": ("pixel", "dct"), "step": POSITIVE, "frequencies": Range(0, 1, above=True)},
)  # fmt: skip
def attack(env, *, basis="pixel", step=0.5, frequencies=0.5, seed=0):
    """One direction of an orthonormal basis after the other, forwards or backwards (SimBA, Guo et al. 2019).

    Args:
        basis: "pixel", single entries; "dct", the cosines over the last two axes (of a waveform its only axis).
        step: length of a step, as a share of the ball's radius and in its norm.
        frequencies: of "dct", the share of each axis' frequencies that is tried, the lowest.

    Directions are drawn without replacement, and again when all were tried; what helps is kept. Backwards is
    asked only where forwards did not help, so a direction costs one query or two.
    """
    obs, _ = env.reset(seed=seed)
    draws, held, best = env.draws(seed), env.threat.null(), clean_fitness(obs)
    size = held[0].numel() if basis == "pixel" else _count(tuple(env.shape), frequencies)
    order = draws.uniform(size).argsort(dim=1)
    nth, back = torch.zeros_like(best, dtype=torch.int64), torch.zeros_like(env.live)
    left = int(env.asks_left.max())
    for _ in range(2 * left):  # steps that ask nothing are free
        if env.done:
            break
        direction = _direction(env, order.gather(1, (nth % size).unsqueeze(1))[:, 0], basis, frequencies)
        sign = torch.where(back, -1.0, 1.0)
        p = env.threat.project(held + wide(sign * step * env.threat.reach, held) * direction)
        # At the edge of the ball or the box, or less than the lattice shows.
        same = (settled(env, p) == settled(env, held)).flatten(1).all(1)
        obs, *_ = env.step(choose(same, env.threat.null(), p))
        value = fitness(obs)
        better = (value > best) & ~same
        best, held = torch.where(better, value, best), choose(better, p, held)
        nth, back = torch.where(better | back, nth + 1, nth), ~better & ~back
        again = (nth == size) & ~back
        if bool(again.any()):
            order = torch.where(again.unsqueeze(1), env.draws(seed + 1).uniform(size).argsort(1), order)
            nth = torch.where(again, 0, nth)
    return held


def _count(shape: tuple[int, ...], share: float) -> int:
    """Directions of "dct"."""
    lead, sizes = low_sizes(shape, share)
    many = 1
    for n in (*lead, *sizes):
        many *= n
    return many


def _direction(env, at: Tensor, basis: str, share: float) -> Tensor:
    """Direction number `at` (lanes,) of the basis, (lanes, *shape), of length 1 in the ball's norm."""
    null = env.threat.null()
    if basis == "pixel":
        return torch.zeros_like(null).flatten(1).scatter(1, at.unsqueeze(1), 1.0).view_as(null)
    shape = tuple(env.shape)
    _, sizes = low_sizes(shape, share)
    wave = cosines(shape[-1], str(at.device))[at % sizes[-1]]
    at = at // sizes[-1]
    if len(sizes) == 2:
        wave = cosines(shape[-2], str(at.device))[at % sizes[0]].unsqueeze(2) * wave.unsqueeze(1)
        at = at // sizes[0]
    plane = torch.zeros(len(at), max(1, null[0].numel() // wave[0].numel()), wave[0].numel(), device=at.device)
    plane = plane.scatter(1, at.view(-1, 1, 1).expand(-1, 1, plane.shape[2]), wave.flatten(1).unsqueeze(1))
    whole = plane.view_as(null)
    top = whole.flatten(1).abs().amax(1) if env.threat.norm == "linf" else torch.ones_like(env.threat.reach)
    return whole / wide(top, whole)
