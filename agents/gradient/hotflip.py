"""HotFlip (Ebrahimi et al. 2018)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.common import choose, clean_fitness, fitness

WIDTH = 4


@register_agent("hotflip", kind="edits", knowledge="white-box", proposals=WIDTH)
def attack(env, *, seed=0):
    """Beam search by first-order gains: a gradient at each set of the beam ranks all flips, the best sums go on.

    A set's promise is its parent's surrogate plus the gain of the flip; the victim is asked about the new beam alone,
    so that an edit costs at most twice the beam's width in queries and once in gradients.
    """
    obs, _ = env.reset(seed=seed)
    best, held = clean_fitness(obs), env.threat.null()
    n, lane = len(held), torch.arange(len(held), device=held.device)
    beam = held.unsqueeze(1).repeat(1, WIDTH, 1, 1)
    value = obs["surrogate"].detach()[:, :1].expand(-1, WIDTH).masked_fill(
        torch.arange(WIDTH, device=held.device) > 0, -torch.inf
    )  # fmt: skip
    for _ in range(int(env.table.limit.max())):
        if env.done:
            break
        edits, promise = [], []
        for w in range(WIDTH):
            if env.done or not bool(value[:, w].isfinite().any()):
                break
            found, gain = env.rank(beam[:, w], k=WIDTH)
            room = (beam[:, w, :, 0] >= 0).sum(1) < env.table.limit
            edits.append(found)
            promise.append(torch.where(room.unsqueeze(1), value[:, w : w + 1] + gain, -torch.inf))
        if not edits or env.done:
            break
        top, at = torch.cat(promise, 1).topk(WIDTH, 1)
        parent, edit = beam[lane.unsqueeze(1), at // WIDTH], torch.cat(edits, 1)[lane.unsqueeze(1), at]
        beam = env.threat.compose(parent, torch.where(top.isfinite().unsqueeze(2), edit, -1))
        fine = top.isfinite() & ~_same(beam) & env.threat.check(beam) & env.live.unsqueeze(1)
        if not bool(fine.any()):
            break
        beam = torch.where(fine.view(n, WIDTH, 1, 1), beam, -1)
        obs, *_ = env.step(beam)
        value = torch.where(fine & obs["evaluated"], obs["surrogate"].detach(), -torch.inf)
        now, first = torch.where(fine, fitness(obs), -torch.inf).max(1)
        better = now > best
        best, held = torch.where(better, now, best), choose(better, beam[lane, first], held)
    return held


def _same(beam: torch.Tensor) -> torch.Tensor:
    """Bool (lanes, W): sets that stand earlier in the beam already, in whatever order of edits."""
    key = (beam[..., 0] << 32) + beam[..., 1]
    key = key.sort(dim=2).values
    equal = (key.unsqueeze(2) == key.unsqueeze(1)).all(3)
    return equal.tril(-1).any(2)
