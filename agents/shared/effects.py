"""Which flips move which members and by how much, from a model of messages; and sets that are mended by that table."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from advgym.agents.shared.margins import largest, margins
from advgym.agents.shared.messages import Messages, among

WIDTH = 6  # members that the table says of a flip
EACH = 24  # flips of every member in the table
SOFT = 0.4  # margins of this size count as near, where flips are chosen for the table
SHORT = 192  # flips that one set is mended from


class Effects(NamedTuple):
    """For K flips: the members that each moves most.

    Attributes:
        key: int64 (K,), ascending, a * N + b with a < b.
        who, gain: (K, WIDTH), indices of members and what their margins gain where the flip is made; 0 is padding.
    """

    key: Tensor
    who: Tensor
    gain: Tensor

    def of(self, genes: Tensor) -> tuple[Tensor, Tensor]:
        """(who, gain), (..., WIDTH), of keys; gains of those that are not in the table are 0."""
        at = torch.searchsorted(self.key, genes.contiguous()).clamp_max(len(self.key) - 1)
        return self.who[at], self.gain[at] * (self.key[at] == genes).unsqueeze(-1)


@torch.no_grad()
def effects(model: Messages, held: Tensor, scores: Tensor, keep: Tensor, most: int = 3072) -> Effects:
    """The table at one set of flips.

    Args:
        held: keys (E,), -1 for none; scores: the victim's answers to it, (M, C): the model says the differences alone.
        keep: keys of any shape that are to be in the table.
        most: flips that are in it because they are worth most, whosever they are.
    """
    state, members, ref, size = model.at(held), model.members, model.ref, model.size
    scores = scores / model.scale
    off, now, many = scores - state.scores, margins(scores, ref), len(members)
    index = torch.arange(many, device=members.device)
    near = torch.sigmoid(now / SOFT)
    # What a change of a neighbour's relay is worth, to first order, to all members around a node.
    rival = scores.scatter(1, ref.unsqueeze(1), -torch.inf).argmax(1)
    slope = torch.zeros_like(scores)
    slope[index, rival], slope[index, ref] = 1.0, -1.0
    pull = torch.zeros(size, scores.shape[1], device=scores.device)
    pull[members] = (near * (1 - near) / SOFT).unsqueeze(1) * state.root[members] * slope
    pull = state.adjacency @ pull
    every = torch.arange(size, device=members.device)
    direct, worth = torch.empty(2, many, size, device=scores.device)
    for i in range(many):
        after, mine, others = state.flip(members[i].expand(size), every)
        direct[i] = margins(after + off[i], ref[i].expand(size)) - now[i]
        worth[i] = (others * pull).sum(1) + mine @ pull[members[i]]
    gained = torch.sigmoid((now.unsqueeze(1) + direct) / SOFT) - near.unsqueeze(1)
    worth += gained
    worth[:, members] += gained[:, members].T  # both ends are members
    worth[index, members] = direct[index, members] = -torch.inf
    found = [worth.topk(min(EACH, size - 1), 1).indices, direct.topk(min(EACH // 3, size - 1), 1).indices]
    best = worth.flatten().topk(min(most, worth.numel() - many)).indices
    pairs = [(members.unsqueeze(1).expand_as(f).flatten(), f.flatten()) for f in found]
    a, b = (torch.cat(p) for p in zip(*pairs, (members[best // size], best % size), strict=True))
    key = torch.cat([torch.minimum(a, b) * size + torch.maximum(a, b), keep[keep >= 0], held[held >= 0]]).unique()
    return _exact(state, key, scores, off, now)


def _exact(state, key: Tensor, scores: Tensor, off: Tensor, now: Tensor) -> Effects:
    """What each flip does to its ends and to the members around them; of one that is held, what it did."""
    model = state.model
    a, b = key // model.size, key % model.size
    after_a, relay_a, relay_b = state.flip(a, b)
    after_b, _, _ = state.flip(b, a)
    owner, who, gain = [], [], []
    for node, other, after, relay in ((a, b, after_a, relay_a), (b, a, after_b, relay_b)):
        own = (model.place[node] >= 0).nonzero()[:, 0]
        i = model.place[node][own]
        flip, j, change = state.beside(node, other, relay)
        owner += [own, flip]
        who += [i, j]
        gain += [
            margins(after[own] + off[i], model.ref[i]) - now[i],
            margins(scores[j] + change, model.ref[j]) - now[j],
        ]
    own, member, value = torch.cat(owner), torch.cat(who), torch.cat(gain)
    value = torch.where(among(key, state.held.sort().values)[own], -value, value) * model.scale
    order, nth = largest(value.abs(), own, len(key), WIDTH)
    table = torch.zeros(len(key), WIDTH, dtype=torch.int64, device=key.device)
    gains = torch.zeros(len(key), WIDTH, device=key.device)
    table[own[order], nth], gains[own[order], nth] = member[order], value[order]
    return Effects(key, table, gains)


def mend(
    table: Effects, genes: Tensor, margin: Tensor, budget: int, drop: Tensor, soft: Tensor, chance: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Sets that lose some flips, those that carry least first, by chance, and are filled up by the table.

    Args:
        genes: keys (P, E), -1 for none; margin: of the members there, (P, M); drop: int64 (P,), how many go at least.
        soft: (P, 1), the size of margins that count as near; chance: uniforms (P, E + 1 + K).

    Returns:
        keys (P, budget), and the margins that are expected.
    """
    rows, places = torch.arange(len(genes), device=genes.device), genes.shape[1]
    deep, each = soft.unsqueeze(2), rows.unsqueeze(1)
    margin = margin.clone()

    def worth(who: Tensor, gain: Tensor, sign: float) -> Tensor:
        now = margin[each, who.flatten(1)].view(who.shape)
        return sign * (torch.sigmoid((now + sign * gain) / deep) - torch.sigmoid(now / deep)).sum(2)

    def move(who: Tensor, gain: Tensor) -> None:
        margin.scatter_add_(1, who.flatten(1), gain.flatten(1))

    who, gain = table.of(genes)
    real = genes >= 0
    spare = chance[:, :places] * chance[:, places : places + 1]
    carries = torch.where(real, worth(who, gain, -1.0) + 0.8 * spare, torch.inf)
    gone = carries.argsort(1).argsort(1) < torch.maximum(drop, real.sum(1) - budget).unsqueeze(1)
    move(who, -gain * (gone & real).unsqueeze(2))
    genes = torch.where(gone, -1, genes).sort(1, descending=True).values[:, :budget]
    count = (genes >= 0).sum(1)
    many = len(table.key)
    taste = 0.7 + 0.3 * chance[:, places + 1 : places + 1 + many]
    value = worth(table.who.expand(len(genes), -1, -1), table.gain.expand(len(genes), -1, -1), 1.0) * taste
    held = torch.searchsorted(table.key, genes.contiguous()).clamp_max(many - 1)
    held = torch.where(table.key[held] == genes, held, many)
    used = torch.zeros(len(genes), many + 1, dtype=torch.bool, device=genes.device).scatter(1, held, True)[:, :-1]
    room = int((budget - count).max())
    short = value.masked_fill(used, -torch.inf).topk(min(many, SHORT + 2 * room), 1).indices
    key, who, gain = table.key[short], table.who[short], table.gain[short]
    taste, used = taste.gather(1, short), used.gather(1, short)
    for _ in range(room):
        best, pick = (worth(who, gain, 1.0) * taste).masked_fill(used, -torch.inf).max(1)
        able = (count < budget) & best.isfinite()
        genes[rows[able], count[able]] = key[rows, pick][able]
        used[rows, pick] = True
        move(who[rows, pick], gain[rows, pick] * able.unsqueeze(1))
        count = count + able
    return genes.sort(1, descending=True).values, margin
