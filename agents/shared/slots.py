"""Tables of edits as slots: what population searches, beams and models of effects share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from advgym.agents.shared.common import fitness
from advgym.agents.shared.once import END, Known, repeated
from advgym.core.rng import mix

DENSE = 1 << 16  # larger tables are sampled


class Slots:
    """The cells of every lane's table, grouped in slots that hold at most one of them.

    A slot is a site where the table's key is the site, else every cell is a slot of its own. A set of edits is a
    position x, int64 (lanes, ..., slots): the index of a cell, -1 where the slot is clean.

    Args:
        env: an environment of Edits.
        draws: keyed random numbers, for tables that must be sampled.
        most: cells of a lane at most; a random part of larger tables is kept. 0 for all.

    Attributes:
        cells: int64 (lanes, M, 2), the edits, -1 for padding; some: bool (lanes, M).
        slot: int64 (lanes, M), the slot of each cell; `slots` for padding.
        start, count: int64 (lanes, slots): the cells of slot d are start[d] to start[d] + count[d] - 1.
    """

    def __init__(self, env, draws, most: int = 0) -> None:
        table = env.table
        self.limit, self.rows = table.limit, env.shape[0]
        if table.cells <= DENSE:
            cells, some = _dense(table)
        else:
            cells = env.threat.sample_edit(draws.uniform(most or 4096, 2))
            some = cells[..., 0] >= 0
        if table.key != "site" or table.cells > DENSE:
            some = some & ~_repeated(cells, some, table)
        if most and int(some.sum(1).max()) > most:
            rank = torch.where(some, draws.uniform(some.shape[1]), 2.0).argsort(dim=1).argsort(dim=1)
            some = some & (rank < most)
        cells, some = _packed(cells, some, table)
        self.cells, self.some = torch.where(some.unsqueeze(2), cells, -1), some
        by_site = table.key == "site"
        self.slots = table.sites if by_site else some.shape[1]
        nth = torch.arange(some.shape[1], device=some.device).expand_as(some)
        self.slot = torch.where(some, cells[..., 0] if by_site else nth, self.slots)
        self.count = torch.zeros(len(some), self.slots + 1, dtype=torch.int64, device=some.device)
        self.count.scatter_add_(1, self.slot, torch.ones_like(self.slot))
        self.count = self.count[:, : self.slots]
        self.start = self.count.cumsum(1) - self.count

    def take(self, rows: Tensor) -> Slots:
        """Those of some lanes alone, int64 (n,)."""
        twin = object.__new__(type(self))
        twin.__dict__.update({k: v[rows] if isinstance(v, Tensor) else v for k, v in self.__dict__.items()})
        return twin

    def clean(self, *lead: int) -> Tensor:
        """Positions without edits, (lanes, *lead, slots)."""
        return self.cells.new_full((len(self.cells), *lead, self.slots), -1)

    def edits(self, x: Tensor) -> Tensor:
        """Positions (lanes, Q, slots) as perturbations (lanes, Q, E, 2); what is beyond E is left out."""
        order = (x >= 0).to(torch.int8).argsort(dim=2, descending=True, stable=True)[..., : self.rows]
        cell = x.gather(2, order)
        lane = torch.arange(len(x), device=x.device).view(-1, 1, 1)
        edits = torch.where((cell >= 0).unsqueeze(3), self.cells[lane, cell.clamp_min(0)], -1)
        missing = self.rows - edits.shape[2]
        return edits if missing <= 0 else torch.cat([edits, edits.new_full((*edits.shape[:2], missing, 2), -1)], 2)

    def position(self, x: Tensor, p: Tensor) -> Tensor:
        """What is left of positions x (lanes, slots) in p (lanes, E, 2), the same edits less some rows."""
        order = (x >= 0).to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : self.rows]
        kept = torch.where(p[:, : order.shape[1], 0] >= 0, x.gather(1, order), -1)
        return torch.full_like(x, -1).scatter(1, order, kept)

    def put(self, x: Tensor, cell: Tensor) -> Tensor:
        """Positions (lanes, Q, slots) with one more cell each, int64 (lanes, Q); -1 changes nothing."""
        at = self.slot.gather(1, cell.clamp_min(0)).clamp_max(self.slots - 1).unsqueeze(2)
        new = torch.where(cell.unsqueeze(2) >= 0, cell.unsqueeze(2), x.gather(2, at))
        return x.scatter(2, at, new)

    def pick(self, weight: Tensor, u: Tensor) -> Tensor:
        """One index per row of weights (lanes, Q, n) >= 0 by uniforms (lanes, Q); -1 where all are 0."""
        total = weight.cumsum(2)
        at = torch.searchsorted(total, (u * total[..., -1]).unsqueeze(2), right=True).squeeze(2)
        return torch.where(total[..., -1] > 0, at.clamp_max(weight.shape[2] - 1), -1)

    def cell_of(self, slot: Tensor, u: Tensor) -> Tensor:
        """A random cell of each slot, int64 (lanes, Q) by uniforms of that shape; -1 for empty slots and slot -1."""
        at = slot.clamp_min(0)
        many = self.count.gather(1, at)
        cell = self.start.gather(1, at) + (u * many).long().clamp_max((many - 1).clamp_min(0))
        return torch.where((slot >= 0) & (many > 0), cell, -1)

    def trim(self, x: Tensor, u: Tensor) -> Tensor:
        """Positions with random edits dropped beyond the limit; u uniforms in x's shape."""
        rank = torch.where(x >= 0, u, 2.0).argsort(dim=2).argsort(dim=2)
        return torch.where(rank < self.limit.view(-1, 1, 1), x, -1)

    def free(self, x: Tensor) -> Tensor:
        """Bool (lanes, Q, M): cells that may come on top of x (lanes, Q, slots), in clean slots while there is room."""
        taken = torch.cat([x >= 0, x.new_zeros(*x.shape[:2], 1, dtype=torch.bool)], 2)
        room = (x >= 0).sum(2) < self.limit.unsqueeze(1)
        held = taken.gather(2, self.slot.unsqueeze(1).expand(-1, x.shape[1], -1))
        return self.some.unsqueeze(1) & ~held & room.unsqueeze(2)


def ask(env, want: Tensor, make: Callable[[Tensor], Tensor], merit: Callable[[dict], Tensor] = fitness) -> Tensor:
    """The merit of many perturbations per lane: (lanes, Q), -inf where it was not asked or not evaluated.

    Args:
        want: bool (lanes, Q), which to ask; they are packed, so that lanes with fewer do not wait.
        make: indices int64 (lanes, P) below Q to sets (lanes, P, E, 2); those that are not valid are not asked.
        merit: of an observation, (lanes, P).
    """
    out = torch.full(want.shape, -torch.inf, device=want.device)
    want = want & env.live.unsqueeze(1)
    many = int(want.sum(1).max()) if want.shape[1] else 0
    order = want.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :many]
    width = env.proposals
    for start in range(0, many, width):
        if env.done:
            break
        at = order[:, start : start + width]
        asked = want.gather(1, at)
        p = make(at)
        asked = asked & env.threat.check(p)
        if not bool(asked.any()):
            continue
        p = torch.where(asked.view(*asked.shape, *[1] * len(env.shape)), p, -1)
        if p.shape[1] < width:
            p = torch.cat([p, p.new_full((len(p), width - p.shape[1], *env.shape), -1)], 1)
        obs, *_ = env.step(p)
        value = torch.where(asked, merit(obs)[:, : at.shape[1]], -torch.inf)
        out.scatter_(1, at, value)
    return out


class Memory:
    """What a search has asked already, so that the same set is asked once: keys are sums of its cells' names."""

    def __init__(self, slots: Slots) -> None:
        index = torch.arange(slots.cells.shape[1] + 1, device=slots.cells.device)
        self.names = mix(index + 1)
        self.names[-1] = 0  # a clean slot, -1
        self.known = Known(len(slots.cells), index.device)

    def key(self, x: Tensor) -> Tensor:
        """Of positions (..., slots): int64 (...), in no way dependent on order."""
        return self.names[x].sum(-1)

    def ask(self, env, key: Tensor, want: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """As `ask`, but what is known is not asked, and equal keys int64 (lanes, Q) are asked once."""
        want = want & env.live.unsqueeze(1)
        key = torch.where(want, key, END)
        value = ask(env, want & ~repeated(key) & ~self.known.find(key)[0], make)
        self.known.add(key, value.isfinite(), value=value)
        known, at = self.known.find(key)
        return torch.where(known & want, self.known.answer("value", at), -torch.inf)


def _dense(table) -> tuple[Tensor, Tensor]:
    some = table.mask().flatten(1)
    at = torch.arange(some.shape[1], device=some.device)
    return torch.stack([at // table.choices, at % table.choices], 1).expand(len(some), -1, -1), some


def _repeated(cells: Tensor, some: Tensor, table) -> Tensor:
    """Bool (lanes, M): an earlier cell is the same edit (drawn twice, or the other order of an unordered pair)."""
    a, b = cells[..., 0], cells[..., 1]
    if table.key == "pair":
        a, b = torch.minimum(a, b), torch.maximum(a, b)
    name = torch.where(some, a * max(table.sites, table.choices) + b, -1)
    order = name.argsort(dim=1, stable=True)
    ordered = name.gather(1, order)
    same = torch.zeros_like(some)
    same[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.zeros_like(some).scatter(1, order, same)


def _packed(cells: Tensor, some: Tensor, table) -> tuple[Tensor, Tensor]:
    """Cells that exist first, in the order of the table."""
    most = max(int(some.sum(1).max()), 1)
    place = torch.where(some, cells[..., 0] * table.choices + cells[..., 1], torch.iinfo(torch.int64).max)
    order = place.argsort(dim=1, stable=True)[:, :most]
    return cells.gather(1, order.unsqueeze(2).expand(-1, -1, 2)), some.gather(1, order)
