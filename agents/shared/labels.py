"""What attacks on labels share: asking many points, a first adversarial point, the boundary along a path, probes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from advgym.agents.shared.common import choose
from advgym.agents.shared.once import wide

GRAINS = (4, 8, 16, 0)  # cells along an axis of the noise that a search starts from; 0 for single entries
DOUBLINGS = 12  # of a probe's radius, at most
FAR = 8.0  # a start is sought within that many radii, and the box


class Labels:
    """Asking an environment of labels about points (lanes, Q, *shape), and the nearest success of each lane.

    Attributes:
        held: (lanes, *shape), the nearest success that counts; null before one.
        best: its distance, inf before one.
    """

    def __init__(self, env) -> None:
        self.env, self.width = env, env.proposals or 1
        self.held = env.threat.null()
        self.best = torch.full_like(env.threat.reach, torch.inf)
        self.lane = torch.arange(len(self.best), device=self.best.device)

    def left(self) -> Tensor:
        """int64 (lanes,): points that may still be asked, 0 where a lane is finished."""
        return torch.where(self.env.live, self.env.asks_left, 0)

    def __call__(self, p: Tensor, able: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(success, answered), bool (lanes, Q); what is not `able` (lanes, Q) is not asked."""
        able = torch.ones(p.shape[:2], dtype=torch.bool, device=p.device) if able is None else able
        hits, told = torch.zeros_like(able), torch.zeros_like(able)
        rows = torch.where(wide(able, p), p, 0.0)
        for start in range(0, p.shape[1], self.width):
            part = rows[:, start : start + self.width]
            some = able[:, start : start + self.width]
            if self.env.done or not bool((some & self.env.live.unsqueeze(1)).any()):
                continue
            many = part.shape[1]
            if many < self.width:
                part = torch.cat([part, part.new_zeros(len(part), self.width - many, *part.shape[2:])], 1)
            obs, *_ = self.env.step(part if self.env.proposals is not None else part[:, 0])
            got = {k: obs[k].view(len(part), -1)[:, :many] for k in ("success", "evaluated", "valid", "distance")}
            answered = got["evaluated"] & some
            hit = got["success"] & answered
            hits[:, start : start + many], told[:, start : start + many] = hit, answered
            size, at = torch.where(hit & got["valid"], got["distance"], torch.inf).min(1)
            nearer = size < self.best
            self.best = torch.where(nearer, size, self.best)
            self.held = choose(nearer, part[self.lane, at], self.held)
        return hits, told

    def one(self, p: Tensor, able: Tensor) -> Tensor:
        """Success of one point a lane: bool (lanes,)."""
        return self(p.unsqueeze(1), able.unsqueeze(1))[0][:, 0]


def settled(env, p: Tensor) -> Tensor:
    """The change (lanes, [Q,] *shape) that is left of p: within the box and on the lattice, where the input is one."""
    seen, clean = env.threat.apply(p), env.threat.apply(env.threat.null())
    if not isinstance(seen, Tensor) or clean.shape != env.threat.null().shape:
        return p
    seen = seen.view(p.shape)
    return seen - (clean if seen.dim() == clean.dim() else clean.unsqueeze(1))


def unit(p: Tensor, axis: int = 1) -> Tensor:
    """Of Euclidean length 1 over the axes from `axis` on; zeros stay."""
    flat = p.flatten(axis)
    return (flat / torch.linalg.vector_norm(flat, dim=axis, keepdim=True).clamp_min(1e-20)).view(p.shape)


def length(p: Tensor) -> Tensor:
    """Euclidean, (lanes,)."""
    return torch.linalg.vector_norm(p.flatten(1), dim=1)


# -- a first adversarial point -------------------------------------------------------------------------------
def start(ask: Labels, draws, candidates: int = 8) -> tuple[Tensor, Tensor]:
    """(an adversarial perturbation of each lane, bool (lanes,) where one was found).

    Uniform noise within the box, coarse and fine, is drawn until some of it is adversarial; of `candidates` at once the
    better half goes on at each halving of the way to the clean sample (after the blended noise of Brendel et al. 2018).
    """
    env, null = ask.env, ask.env.threat.null()
    span = FAR * wide(env.threat.reach, null).expand_as(null)
    low, high = settled(env, -span), settled(env, span)
    p, found = null, torch.zeros_like(env.live)
    while not env.done and bool((~found & env.live).any()):
        grains = [GRAINS[i % len(GRAINS)] for i in range(candidates)]
        noise = torch.stack([coarse(draws, tuple(null.shape[1:]), grain) for grain in grains], 1)
        point = _allowed(env, low.unsqueeze(1) + noise * (high - low).unsqueeze(1))
        hit, told = ask(point, (~found & env.live).unsqueeze(1).expand(-1, candidates))
        if not bool(told.any()):
            break
        now, shrunk = hit.any(1) & ~found, _halvings(ask, point, hit)
        p, found = choose(now, shrunk, p), found | now
    return p, found


def _allowed(env, p: Tensor) -> Tensor:
    """Shrunk to where points are evaluated at all."""
    widen = env.threat.model.widen
    if widen is None:
        return p
    most = 0.99 * widen * env.threat.reach.unsqueeze(1)
    return p * wide((most / env.threat.distance(p).clamp_min(1e-12)).clamp_max(1.0), p)


def _halvings(ask: Labels, p: Tensor, hit: Tensor) -> Tensor:
    """Bisections of the way to the clean sample for all that `hit`, the better half of them each time: (lanes, ...)."""
    size = ask.env.threat.distance(p)
    high, low, alive = torch.ones_like(size), torch.zeros_like(size), hit
    many = p.shape[1]
    while many >= 1:
        mid = (high + low) / 2
        got, told = ask(p * wide(mid, p), alive)
        high, low = torch.where(got, mid, high), torch.where(told & ~got, mid, low)
        many //= 2
        order = torch.where(alive, high * size, torch.inf).argsort(dim=1).argsort(dim=1)
        alive = alive & (order < max(many, 1))
    at = torch.where(hit, high * size, torch.inf).argmin(1)
    return (p * wide(high, p))[ask.lane, at]


def coarse(draws, shape: tuple[int, ...], cells: int) -> Tensor:
    """Uniforms (lanes, *shape), constant within `cells` by `cells` cells of the last two axes; 0 for single entries."""
    axes = min(2, max(1, len(shape) - 1))
    sizes = [n if not cells else min(n, cells) for n in shape[len(shape) - axes :]]
    u = draws.uniform(*shape[: len(shape) - axes], *sizes)
    for axis, (size, full) in enumerate(zip(sizes, shape[len(shape) - axes :], strict=True)):
        at = torch.arange(full, device=u.device) * size // full
        u = u.index_select(u.dim() - axes + axis, at)
    return u


# -- the boundary along a path -------------------------------------------------------------------------------
def bisect(
    ask: Labels, path: Callable[[Tensor], Tensor], hit: Tensor, miss: Tensor, near: Tensor, able: Tensor
) -> tuple[Tensor, Tensor]:
    """Halve [hit, miss] (lanes,) along `path` until they are within `near` of each other: (hit, miss)."""
    while True:
        wanted = able & ((miss - hit).abs() > near) & (ask.left() > 0)
        if not bool(wanted.any()):
            return hit, miss
        mid = (hit + miss) / 2
        got = ask.one(path(mid), wanted)
        hit, miss = torch.where(wanted & got, mid, hit), torch.where(wanted & ~got, mid, miss)


# -- probes --------------------------------------------------------------------------------------------------
def visible(env, p: Tensor, z: Tensor, δ: Tensor) -> Tensor:
    """The probe radius δ (lanes,), doubled until half of the entries that z (lanes, *shape) can move do move.

    On a lattice of bytes the published radii are less than one level: every probe would be the same input.
    """
    here = settled(env, p)

    def moved(radius: Tensor) -> Tensor:
        return (settled(env, p + wide(radius, z) * z) != here).flatten(1).sum(1)

    many = moved(δ * 2**DOUBLINGS)
    for _ in range(DOUBLINGS):
        few = moved(δ) < many / 2
        if not bool(few.any()):
            break
        δ = torch.where(few, 2 * δ, δ)
    return δ


def normal(ask: Labels, p: Tensor, probe: Tensor, δ: Tensor, able: Tensor) -> Tensor:
    """The normal of the boundary at p by Monte Carlo (Chen et al. 2020, eq. 16): sum of (label - mean label) probe.

    Args:
        probe: directions (lanes, N, *shape) of unit length; δ: how far they are tried (lanes,).
        able: bool (lanes, N), which are asked.

    Returns:
        (lanes, *shape), not normalised: its length grows with what is known.
    """
    env = ask.env
    point = p.unsqueeze(1) + wide(δ, p).unsqueeze(1) * probe
    hit, told = ask(point, able)
    u = (settled(env, point) - settled(env, p).unsqueeze(1)) / wide(δ, p).unsqueeze(1)
    φ = torch.where(told, hit.float() * 2 - 1, 0.0)
    mean = φ.sum(1, keepdim=True) / told.sum(1, keepdim=True).clamp_min(1)
    one_sided = mean.abs() >= 1
    weight = torch.where(told, torch.where(one_sided, φ, φ - mean), 0.0)
    return (wide(weight, u) * u).sum(1)
