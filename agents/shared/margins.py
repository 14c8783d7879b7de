"""What edits do to the margins of many members: a sparse table of first-order gains, and sets built by it for free."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTH = 4  # members that the table says of an edit
OWN = 24  # edits of every member that are kept whatever else they are worth
PAD = 1 << 62


def largest(value: Tensor, owner: Tensor, many: int, width: int) -> tuple[Tensor, Tensor]:
    """The `width` largest values (m,) of each of `many` owners: (indices, place among their owner's), by owner."""
    order = value.argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]
    count = torch.bincount(owner, minlength=many)
    nth = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[owner[order]]
    return order[nth < width], nth[nth < width]


def margins(scores: Tensor, ref: Tensor) -> Tensor:
    """The best other class's score less that of `ref`, > 0 where a member has turned: (..., M) from (..., M, C)."""
    label = ref.clamp_min(0).unsqueeze(-1)
    return scores.scatter(-1, label, -torch.inf).amax(-1) - scores.gather(-1, label).squeeze(-1)


class Table:
    """For up to `pool` edits of every lane: which members they move, and by how much to first order.

    Attributes:
        key: int64 (lanes, pool), site * sites + choice, ascending; padding last.
        member, gain: (lanes, pool, WIDTH), the members that gain most; gain 0 is padding.
    """

    def __init__(self, lanes: int, sites: int, pool: int, device: torch.device) -> None:
        self.sites, self.pool = sites, pool
        self.key = torch.full((lanes, pool), PAD, device=device)
        self.member = torch.zeros(lanes, pool, WIDTH, dtype=torch.int64, device=device)
        self.gain = torch.zeros(lanes, pool, WIDTH, device=device)
        none = torch.zeros(0, dtype=torch.int64, device=device)
        self.known = [(none, none, none.float()) for _ in range(lanes)]  # (key, member, gain) of all entries

    def learn(self, env, held: Tensor, scores: Tensor, ref: Tensor, who: Tensor, listed: int, keep: Tensor) -> None:
        """Rank all edits on top of `held` for one member after another, int64 (lanes, n): a query and a gradient each.

        Args:
            scores: of `held`; listed: how many edits of a member are asked for.
            keep: keys (lanes, any) of edits that stay in the table, PAD for none.
        """
        free = scores.detach().clone().requires_grad_()
        value = margins(free, ref)
        (slope,) = torch.autograd.grad(value.sum(), free)
        keys, gains = [], []
        for nth in range(who.shape[1]):
            if env.done:
                break
            at = who[:, nth].view(-1, 1, 1).expand(-1, 1, slope.shape[2])
            one = torch.zeros_like(slope).scatter(1, at, slope.gather(1, at))
            found, gain = env.rank(held, cotangent=one, k=listed)
            real = (gain > 0) & (found[..., 0] >= 0)
            keys.append(torch.where(real, found[..., 0] * self.sites + found[..., 1], -1))
            gains.append(gain)
        if not keys:
            return
        key, gain = torch.stack(keys, 1), torch.stack(gains, 1)
        for lane in range(len(key)):
            self._merge(lane, key[lane], gain[lane], who[lane, : len(keys)], value[lane].detach(), keep[lane])

    def _merge(self, lane: int, key: Tensor, gain: Tensor, who: Tensor, margin: Tensor, keep: Tensor) -> None:
        """New entries replace those of the same edit and member; what is worth most fills the table."""
        real = key >= 0
        owner = who.unsqueeze(1).expand_as(key)
        every = [torch.cat(p) for p in zip((key[real], owner[real], gain[real]), self.known[lane], strict=True)]
        many = len(margin)
        pair = every[0] * many + every[1]
        first = pair.argsort(stable=True)
        new = torch.ones_like(first, dtype=torch.bool)
        new[1:] = pair[first][1:] != pair[first][:-1]
        all_key, all_who, all_gain = (p[first][new] for p in every)
        self.known[lane] = (all_key, all_who, all_gain)
        unique, inverse = all_key.unique(return_inverse=True)
        order, nth = largest(all_gain, inverse, len(unique), WIDTH)
        member = torch.zeros(len(unique), WIDTH, dtype=torch.int64, device=key.device)
        value = torch.zeros(len(unique), WIDTH, device=key.device)
        member[inverse[order], nth], value[inverse[order], nth] = all_who[order], all_gain[order]
        worth = covered(margin[member], 0.5 * value, torch.tensor(0.3, device=key.device))
        # The best few edits of a member stay, and so does what a set holds now.
        worth[inverse[largest(all_gain, all_who, many, OWN)[0]]] += 10
        worth[torch.isin(unique, keep)] += 100
        chosen = worth.topk(min(self.pool, len(worth))).indices.sort().values
        n = len(chosen)
        self.key[lane] = PAD
        self.member[lane], self.gain[lane] = 0, 0
        self.key[lane, :n], self.member[lane, :n], self.gain[lane, :n] = unique[chosen], member[chosen], value[chosen]

    def index(self, keys: Tensor) -> Tensor:
        """Places of keys (lanes, P, E) in the table, -1 for those that are not in it."""
        flat = keys.flatten(1).contiguous()
        at = torch.searchsorted(self.key, flat).clamp_max(self.pool - 1)
        return torch.where((self.key.gather(1, at) == flat) & (flat < PAD), at, -1).view(keys.shape)

    def effects(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """(members, gains), (lanes, P, E, WIDTH) of places (lanes, P, E); gains of -1 are 0."""
        lane = torch.arange(len(at), device=at.device).view(-1, 1, 1)
        return self.member[lane, at.clamp_min(0)], self.gain[lane, at.clamp_min(0)] * (at >= 0).unsqueeze(3)


def covered(margin: Tensor, gain: Tensor, softness: Tensor) -> Tensor:
    """How many members turn by gains on top of margins (..., WIDTH), in expectation: (...)."""
    return (torch.sigmoid((margin + gain) / softness) - torch.sigmoid(margin / softness)).sum(-1)


def rebuild(
    table: Table, sets: Tensor, margin: Tensor, trust: Tensor, budget: Tensor, drop: Tensor, draws
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Sets (lanes, P, E) of keys, after some of their edits went and the table's best took the places.

    Args:
        margin: of the sets, measured, (lanes, P, M); trust: what gains are multiplied with, (lanes, P, M).
        budget: int64 (lanes,); drop: int64 (lanes, P), how many edits go, those that carry least first, by chance.

    Returns:
        the new sets, and the change of every margin to first order (without `trust`).
    """
    lanes, many, width = sets.shape
    softness = 0.05 + 0.4 * draws.uniform(many, 1)
    taste = 0.6 + 0.4 * draws.uniform(many, table.pool)
    chance = draws.uniform(many, width)
    estimate, change = margin.clone(), torch.zeros_like(margin)

    def move(at: Tensor, sign: float) -> None:
        who, gain = table.effects(at)
        who, gain = who.flatten(2), sign * gain.flatten(2)
        change.scatter_add_(2, who, gain)
        estimate.scatter_add_(2, who, gain * trust.gather(2, who))

    at = table.index(sets)
    who, gain = table.effects(at)
    now = estimate.gather(2, who.flatten(2)).view(who.shape)
    gain = gain * trust.gather(2, who.flatten(2)).view(who.shape)
    carries = covered(now - gain, gain, softness.unsqueeze(3)) + 0.8 * chance
    carries = torch.where(sets < PAD, carries, torch.inf)
    out = carries.argsort(dim=2).argsort(dim=2) < drop.unsqueeze(2)
    move(torch.where(out, at, -1), -1.0)
    sets = torch.where(out, PAD, sets).sort(2).values
    used = torch.zeros(lanes, many, table.pool + 1, dtype=torch.bool, device=sets.device)
    left = table.index(sets)
    used.scatter_(2, torch.where(left >= 0, left, table.pool), True)
    used = used[..., :-1] | (table.key == PAD).unsqueeze(1)
    count = (sets < PAD).sum(2)
    flat = table.member.flatten(1).unsqueeze(1).expand(-1, many, -1)
    shape = (lanes, many, table.pool, WIDTH)
    scaled = trust.gather(2, flat).view(shape) * table.gain.unsqueeze(1)
    for _ in range(int((budget.unsqueeze(1) - count).amax())):
        worth = covered(estimate.gather(2, flat).view(shape), scaled, softness.unsqueeze(3)) * taste
        best, pick = worth.masked_fill(used, -torch.inf).max(2)
        room = (count < budget.unsqueeze(1)) & best.isfinite()
        pick = pick.unsqueeze(2)
        used.scatter_(2, pick, True)
        move(torch.where(room.unsqueeze(2), pick, -1), 1.0)
        key = table.key.unsqueeze(1).expand(-1, many, -1).gather(2, pick)
        place = count.clamp_max(width - 1).unsqueeze(2)
        sets = torch.where(room.unsqueeze(2), sets.scatter(2, place, key), sets)
        count = count + room
    return sets, change
