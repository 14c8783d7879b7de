"""The Square Attack (Andriushchenko et al. 2020): local random search at the surface of a ball, in Linf and L2."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose, fitness, wide
from advgym.agents.shared.once import PATIENCE, SMALL, Known, first_new, known_of, names
from advgym.lib.settings import Range

TRIES = 4  # windows drawn where the first one makes an input that was asked before
MARKS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # of the 10,000 iterations: where the share halves


@register_agent("square", kind="field", knowledge="score", allowed={"p_init": Range(0, 1, above=True)})
def attack(env, *, p_init=0.8, seed=0):
    """Square-shaped changes at random places, kept when the score rises (Andriushchenko et al. 2020).

    Linf (algorithm 2): from vertical stripes of +-eps, a window of each channel is set to +-eps. L2 (algorithm 3): from
    a grid of pyramids, the mass of two windows and what the ball has left goes into one. The share of the sample that
    a window covers starts at `p_init` and is halved along the published schedule, stretched to each lane's budget.

    Windows span the last two axes of an image and the only axis of a waveform. No input is asked twice: where a window
    changes nothing (algorithm 2, line 6) or makes an input of before, others are drawn.
    """
    env.reset(seed=seed)
    draws, budget = env.draws(seed), env.asks_left.clamp_min(1)
    start = _stripes if env.threat.norm == "linf" else _grid
    delta = env.threat.project(start(env, draws).view_as(env.threat.null()))
    known, small = known_of(env), delta[0].numel() <= SMALL
    new, idle = torch.ones_like(env.live), torch.zeros_like(budget)
    best, held = torch.full_like(env.threat.reach, -torch.inf), delta
    for t in range(int(budget.max())):
        if env.done or (small and not bool((env.live & (idle < PATIENCE)).any())):
            break
        share = _share(p_init, t / budget)
        if t:
            delta = _proposal(env, draws, held, share)
        if small:
            delta, key, new = _first_new(env, known, delta, lambda i, t=t, held=held, share=share: _proposal(
                env, env.draws(seed + 7_919 * (t * TRIES + i + 1)), held, share
            ))  # fmt: skip
            idle = torch.where(new, 0, idle + 1)
        obs, *_ = env.step(delta)
        if small:
            known.add(key, (new & obs["evaluated"]).unsqueeze(1))
        value = torch.where(new, fitness(obs), -torch.inf)
        better = value > best
        best, held = torch.where(better, value, best), choose(better, delta, held)
    return held


def _proposal(env, draws, held: Tensor, share: Tensor) -> Tensor:
    """`held` with one change of the share's size, in the ball."""
    move = _squares if env.threat.norm == "linf" else _masses
    return env.threat.project(move(env, draws, _planes(held), share).view_as(held))


def _first_new(env, known: Known, delta: Tensor, draw) -> tuple[Tensor, Tensor, Tensor]:
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


def _share(p: float, progress: Tensor) -> Tensor:
    """The published schedule of p, (lanes,), by progress in [0, 1]."""
    marks = torch.tensor(MARKS, device=progress.device)
    return p / 2.0 ** (progress.unsqueeze(1) > marks).sum(1)


# -- windows -------------------------------------------------------------------------------------------------
def _planes(p: Tensor) -> Tensor:
    """(lanes, channels, height, width) of a Field: a waveform has one row."""
    height = p.shape[-2] if p.dim() > 2 else 1
    return p.reshape(len(p), -1, height, p.shape[-1])


def _sides(share: Tensor, height: int, width: int, least: int) -> list[Tensor]:
    """Sides (lanes,) of a window of that share, along each axis; as the paper's s on a square image."""
    axes = max(1, (height > 1) + (width > 1))
    odd = least > 1  # L2: an odd side, of three at least
    found = []
    for size in (height, width):
        side = (size * share ** (1 / axes)).round().long().clamp_min(min(least, size))
        side = side + (side % 2 == 0) * (size > 1) if odd else side
        found.append(side.clamp_max(size))
    return found


def _places(draws, sides: list[Tensor], height: int, width: int) -> list[Tensor]:
    """Where a window starts along each axis: (lanes,)."""
    u = draws.uniform(2)
    return [(u[:, i] * (size - sides[i] + 1)).long().clamp_max(size - 1) for i, size in enumerate((height, width))]


def _inside(sides: list[Tensor], starts: list[Tensor], height: int, width: int) -> Tensor:
    """Bool (lanes, 1, height, width): the cells of a window."""
    hits = []
    for side, start, size in zip(sides, starts, (height, width), strict=True):
        line = torch.arange(size, device=side.device) - start.unsqueeze(1)
        hits.append((line >= 0) & (line < side.unsqueeze(1)))
    return (hits[0].unsqueeze(2) & hits[1].unsqueeze(1)).unsqueeze(1)


def _signs(draws, *shape: int) -> Tensor:
    return draws.uniform(*shape).lt(0.5).float() * 2 - 1


# -- Linf ----------------------------------------------------------------------------------------------------
def _stripes(env, draws) -> Tensor:
    """Vertical stripes of +-eps, of each channel its own."""
    null = _planes(env.threat.null())
    return (_signs(draws, null.shape[1], 1, null.shape[3]) * wide(env.threat.reach, null)).expand_as(null).contiguous()


def _squares(env, draws, held: Tensor, share: Tensor) -> Tensor:
    """A window of each channel set to +-eps."""
    _, channels, height, width = held.shape
    sides = _sides(share, height, width, 1)
    window = _inside(sides, _places(draws, sides, height, width), height, width)
    return torch.where(window, _signs(draws, channels, 1, 1) * wide(env.threat.reach, held), held)


# -- L2 ------------------------------------------------------------------------------------------------------
def _pyramids(sides: list[Tensor], starts: list[Tensor], height: int, width: int, turned: Tensor) -> Tensor:
    """Two pyramids side by side, of opposite signs and unit norm together, in a window; (lanes, 1, height, width).

    A pyramid of an a x b rectangle is the sum over k of squares of side 2k + 1 and height 1 / (k + 1)^2 about its
    middle (eq. 2), so its value is a tail of that series from the Chebyshev distance on. `turned` (lanes,) cuts the
    window across the width in place of the height.
    """
    device = turned.device
    line = [torch.arange(n, device=device) - s.unsqueeze(1) for n, s in zip((height, width), starts, strict=True)]
    cut = torch.where(turned.unsqueeze(1), sides[1].unsqueeze(1), sides[0].unsqueeze(1)) // 2  # of the first half
    at = [line[0].unsqueeze(2), line[1].unsqueeze(1)]
    along = torch.where(turned.view(-1, 1, 1), at[1], at[0])
    across = torch.where(turned.view(-1, 1, 1), at[0], at[1])
    long = torch.where(turned, sides[1], sides[0]).view(-1, 1, 1)
    other = torch.where(turned, sides[0], sides[1]).view(-1, 1, 1)
    cut = cut.view(-1, 1, 1)
    second = along >= cut
    part = torch.where(second, long - cut, cut)  # the side of the half along the cut axis
    place = torch.where(second, along - cut, along)
    far = torch.maximum((place - part // 2).abs(), (across - other // 2).abs())
    top = torch.maximum(part // 2, other // 2) + 1
    series = 1 / torch.arange(1, height + width + 2, device=device).double() ** 2
    tail = torch.cat([series.cumsum(0).new_zeros(1), series.cumsum(0)]).float()
    last = len(tail) - 1
    value = (tail[top.clamp_max(last)] - tail[far.clamp(0, last)]).clamp_min(0)
    window = _inside(sides, starts, height, width)
    value = torch.where(window[:, 0], value, 0.0)
    for half in (second, ~second):  # each half of unit norm
        norm = torch.where(half, value, 0.0).flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1)
        value = torch.where(half, value / norm, value)
    value = torch.where(second, -value, value)
    return (value / value.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1)).unsqueeze(1)


def _turn(draws, height: int, width: int) -> Tensor:
    """Bool (lanes,): cut across the width; always where there is one row."""
    turned: Tensor = draws.uniform() < 0.5
    return turned | (height == 1) if width > 1 else torch.zeros_like(turned)


def _grid(env, draws) -> Tensor:
    """A grid of five by five pyramids (of a waveform, five) with random signs, at the surface."""
    null = _planes(env.threat.null())
    lanes, channels, height, width = null.shape
    delta, ones = torch.zeros_like(null), torch.ones(lanes, dtype=torch.int64, device=null.device)
    cell = [max(1, height // 5), max(1, width // 5)]
    for i in range(height // cell[0]):
        for j in range(width // cell[1]):
            starts = [(height % cell[0]) // 2 + i * cell[0], (width % cell[1]) // 2 + j * cell[1]]
            sides = [ones * cell[0], ones * cell[1]]
            shape = _pyramids(sides, [ones * s for s in starts], height, width, _turn(draws, *cell))
            delta = delta + shape * _signs(draws, channels, 1, 1)
    return _surface(env, delta)


def _masses(env, draws, held: Tensor, share: Tensor) -> Tensor:
    """The mass of two windows, and what the ball has left, into the first: its content, and a pyramid."""
    _, channels, height, width = held.shape
    sides = _sides(share, height, width, 3)
    starts = _places(draws, sides, height, width)
    one = _inside(sides, starts, height, width)
    both = one | _inside(sides, _places(draws, sides, height, width), height, width)
    left = (wide(env.threat.reach, held) ** 2 - _norm(held, (1, 2, 3)) ** 2).clamp_min(0) / channels
    shape = _pyramids(sides, starts, height, width, _turn(draws, height, width)) * _signs(draws, channels, 1, 1)
    old = torch.where(one, held, 0.0)
    new = shape + old / (1e-10 + _norm(old, (2, 3)))
    mass = (left + _norm(torch.where(both, held, 0.0), (2, 3)) ** 2).sqrt()
    new = new / _norm(new, (2, 3)).clamp_min(1e-12) * mass
    return _surface(env, torch.where(both, new, held))


def _norm(p: Tensor, axes: tuple[int, ...]) -> Tensor:
    return torch.linalg.vector_norm(p, dim=axes, keepdim=True)


def _surface(env, delta: Tensor) -> Tensor:
    """Scaled to the ball's surface."""
    return delta / _norm(delta, (1, 2, 3)).clamp_min(1e-12) * wide(env.threat.reach, delta)
