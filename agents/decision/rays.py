"""RayS (Chen and Gu 2020): a search for the direction in which the boundary is nearest, from labels alone."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.common import choose, wide
from advgym.agents.shared.once import PATIENCE, SMALL, known_of, names

ROUNDS = 16  # points known already that a ray passes within a step


@register_agent("rays", kind="field", knowledge="decision")
def attack(env, *, seed=0):
    """Sign directions by their distance to the boundary, blocks flipped coarse to fine (RayS, Chen and Gu 2020).

    A flip is kept where it brings the boundary nearer. Every lane runs its own state machine and asks one point a
    step: a check at the best radius, or a bisection. What a point that comes again was answered is known: the machine
    goes on without asking.
    """
    env.reset(seed=seed)
    rays, known = Rays(env, seed), known_of(env)
    small = env.threat.null()[0].numel() <= SMALL
    held, step, idle = env.threat.null(), 0, torch.zeros_like(rays.block)
    while not env.done and bool((env.live & (idle < PATIENCE)).any()):
        p = rays.point()
        if small:
            for nth in range(ROUNDS):
                key = names(env, p.unsqueeze(1))
                old, at = known.find(key)
                old = old & env.live.unsqueeze(1)
                if not bool(old.any()):
                    break
                rays.move(known.answer("hit", at)[:, 0], step * (ROUNDS + 1) + nth, old[:, 0])
                p = rays.point()
            key = names(env, p.unsqueeze(1))
            new = ~known.find(key)[0][:, 0]
            p, idle = choose(new, p, env.threat.null()), torch.where(new, 0, idle + 1)
        obs, *_ = env.step(p)
        hit = obs["success"] & obs["evaluated"]
        if small:
            known.add(key, obs["evaluated"].unsqueeze(1), hit=hit.unsqueeze(1))
        held = choose(hit & obs["valid"], p, held)
        rays.move(hit, step * (ROUNDS + 1) + ROUNDS, new if small else torch.ones_like(hit))
        step += 1
        if env.knowledge == "transfer" and step >= env.threat.model.queries // 2:
            break
    return held


class Rays:
    """Where the ray search of each lane stands: the best sign vector, the one on trial, and the radius asked about."""

    def __init__(self, env, seed: int) -> None:
        self.env, self.seed, self.reach = env, seed, env.threat.reach
        n, self.size = len(self.reach), env.threat.null()[0].numel()
        self.sign = torch.ones(n, self.size, device=self.reach.device)
        self.trial = self.sign.clone()
        self.best = 8 * self.reach  # radius of the boundary along `sign`, or this while none is known
        self.known = torch.zeros(n, dtype=torch.bool, device=self.reach.device)
        self.bisect = self.known.clone()
        self.block, self.level = (torch.zeros(n, dtype=torch.int64, device=self.reach.device) for _ in range(2))
        self.low, self.high = torch.zeros_like(self.reach), self.best.clone()

    def _radius(self) -> torch.Tensor:
        return torch.where(self.bisect, (self.low + self.high) / 2, self.best)

    def point(self) -> torch.Tensor:
        """What each lane asks next: (lanes, *shape)."""
        env, radius = self.env, self._radius()
        p = env.threat.steepest(self.trial.view(-1, *env.shape)) * wide(radius, env.threat.null())
        return torch.where(wide(radius <= self.reach, p), env.threat.project(p), p)

    def move(self, hit: torch.Tensor, nth: int, where: torch.Tensor) -> None:
        """Enter whether the point succeeded, in some lanes; `nth` keys what is drawn."""
        before = self.__dict__.copy()
        radius, bisect = self._radius(), self.bisect
        # A check that holds opens a bisection; a bisection closes when it is tight.
        self.high = torch.where(hit, radius, torch.where(bisect, self.high, self.best))
        self.low = torch.where(bisect & ~hit, radius, torch.where(bisect, self.low, torch.zeros_like(self.low)))
        done = torch.where(bisect, (self.high - self.low) < 0.05 * self.reach, ~hit)
        gained = bisect & done
        self.sign = torch.where(gained.unsqueeze(1), self.trial, self.sign)
        self.best, self.known = torch.where(gained, self.high, self.best), self.known | gained
        self.bisect = ~done
        # The next block: at level l the vector is cut into 2**l blocks.
        block = torch.where(done, self.block + 1, self.block)
        over = block >= 2**self.level
        level = torch.where(over, self.level + 1, self.level)
        self.level = torch.where(2**level > self.size, torch.zeros_like(level), level)
        self.block = torch.where(over, torch.zeros_like(block), block)
        position = torch.arange(self.size, device=block.device)
        inside = (position * (2**self.level).unsqueeze(1)) // self.size == self.block.unsqueeze(1)
        flipped = torch.where(inside, -self.sign, self.sign)
        self.trial = torch.where((done & self.known).unsqueeze(1), flipped, self.trial)
        # Until a first adversarial direction is known, try random ones: coarse ones first.
        step = nth // (ROUNDS + 1) + 1
        fresh = torch.sign(_blocks(self.env, self.seed + nth + 1, self.size, 2 ** min(3 + step // 4, 12)) - 0.5)
        self.trial = torch.where((done & ~self.known).unsqueeze(1), fresh, self.trial)
        for name in ("high", "low", "sign", "best", "known", "bisect", "level", "block", "trial"):
            value = getattr(self, name)
            setattr(self, name, torch.where(where.view(-1, *[1] * (value.dim() - 1)), value, before[name]))


def _blocks(env, seed: int, size: int, parts: int) -> torch.Tensor:
    """Piecewise constant uniforms (lanes, size) of `parts` pieces."""
    parts = min(parts, size)
    value = env.draws(seed).uniform(parts)
    return value.repeat_interleave(-(-size // parts), 1)[:, :size]
