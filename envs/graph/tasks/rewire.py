"""Degree-preserving rewiring around one node: an edit exchanges the ends of two edges.

A slot is a direction of an edge of the clean graph. The edit (a -> b, c -> d) puts a - d and c - b in the place of
a - b and c - d: every degree stays what it was, and no count of degrees, edges or loops tells that anything happened.
Swaps are written in slots of the clean graph. One that would move an edge twice, or double a new one, does nothing: the
swap of the smaller site goes first, so a set of swaps is one graph in whatever order it is written.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor

from advgym.core.batch import pick
from advgym.core.goals import ClassGoal, Goal
from advgym.core.task import Spec, Task
from advgym.envs.graph import measures
from advgym.envs.graph.constraints.limits import Cooccurrence, Unnoticed, limits_of
from advgym.envs.graph.inputs.graphs import ragged
from advgym.envs.graph.inputs.rows import GraphRows, randomise_edges
from advgym.envs.graph.perturb.batches import PROBES, VIEW, NodeBatch, trim
from advgym.envs.graph.perturb.dense import best_pairs
from advgym.envs.graph.show import frames, neighbourhood
from advgym.envs.graph.tasks.nodes import adapted, apart, data_and_victim, dealer, lacking, public, surrogate_of
from advgym.errors import AdvgymError
from advgym.lib.options import takes

TABLE = 1 << 24  # gains held at once
SENSELESS = {"cooccurrence": "it is a test of features, and swaps of edges change none"}
SIGNS = (-1.0, -1.0, 1.0, 1.0)  # of a swap's four pairs: two edges go, two come


class RewireBatch(NodeBatch):
    """B target nodes of one graph; site is a slot that leaves the target, choice any slot of the graph.

    Legal: the four ends are distinct where they must be and neither new edge exists in the clean graph. Any set of
    legal swaps from different sites is valid; `active` says which of them do something.

    Args:
        args, kwargs: see `NodeBatch`; `edits` counts swaps.
    """

    shown = "open slots_from slots_to"

    key = "site"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        graph = self.graph
        self.slots_from, self.slots_to = graph.keys // graph.size, graph.idx
        self.sites = self.choices = len(graph.keys)
        self.open = self._open_sites()
        self.limit = torch.minimum(self.limit, self.open.sum(1)).clamp_min(1)
        if hasattr(self, "site_features"):
            del self.site_features
        if self.sites * 5 <= VIEW:
            self.site_features = self._slot_features()

    def _open_sites(self) -> Tensor:
        """Bool (B, sites): slots of each target with at least one legal partner."""
        graph = self.graph
        lane, slot = ragged(graph.start[self.target], graph.count[self.target])
        every = torch.arange(self.sites, device=slot.device)
        step = max(1, TABLE // max(self.sites, 1))
        some = [self._fits(part.unsqueeze(1), every).any(1) for part in slot.split(step)]
        out = torch.zeros(len(self.target), self.sites, dtype=torch.bool, device=slot.device)
        if len(slot):
            out[lane, slot] = torch.cat(some)
        return out

    def _slot_features(self) -> Tensor:
        """(B, sites, 5): starts at the target, ends beside it, log degrees of both ends, they share a neighbour."""
        graph, target = self.graph, self.target.unsqueeze(1)
        start, end = self.slots_from, self.slots_to
        own, near = start == target, graph.has(end, target)
        every = torch.arange(graph.size, device=end.device)
        common = (graph.has(start.unsqueeze(1), every) & graph.has(end.unsqueeze(1), every)).any(1)
        fixed = torch.stack([graph.degree[start].log1p(), graph.degree[end].log1p(), common.float()], 1)
        fixed = fixed.expand(len(target), -1, -1)
        return torch.cat([torch.stack([own.float(), near.float()], 2), fixed], 2)

    # -- what exists ----------------------------------------------------------------------------------------------
    def _fits(self, site: Tensor, choice: Tensor) -> Tensor:
        """Whether two slots can be swapped in the clean graph; broadcast."""
        a, b, c, d = self.ends(site, choice)
        apart = (a != d) & (c != b) & (a != c) & (b != d)
        return apart & ~self.graph.has(a, d) & ~self.graph.has(c, b)

    def ends(self, site: Tensor, choice: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The nodes (a, b, c, d) of swaps a -> b, c -> d."""
        return self.slots_from[site], self.slots_to[site], self.slots_from[choice], self.slots_to[choice]

    def legal(self, site: Tensor, choice: Tensor, rows: Tensor | None = None) -> Tensor:
        return (self.slots_from[site] == self._rows(rows).unsqueeze(1)) & self._fits(site, choice)

    def site_mask(self, rows: Tensor | None = None) -> Tensor:
        return pick(self.open, rows)

    def choice_mask(self, sites: Tensor, rows: Tensor | None = None) -> Tensor:
        own = self.slots_from[sites] == self._rows(rows)
        every = torch.arange(self.choices, device=sites.device)
        return self._fits(sites.unsqueeze(1), every) & own.unsqueeze(1)

    def pairs(self, form: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs (n, 4E, 2), low end first, that swaps flip, and whether each entry is one: -1 at padding."""
        real = form[..., 0] >= 0
        a, b, c, d = self.ends(*form.clamp_min(0).unbind(2))
        both = torch.stack([torch.cat([a, c, a, c], 1), torch.cat([b, d, d, b], 1)], 2).sort(2).values
        real = real.repeat(1, 4)
        return torch.where(real.unsqueeze(2), both, -1), real

    def active(self, form: Tensor) -> Tensor:
        """Bool (n, E): swaps that share no pair with an active one of a smaller site."""
        n, many = form.shape[:2]
        pairs, real = self.pairs(form)
        order = torch.where(form[..., 0] >= 0, form[..., 0], self.sites).argsort(1)
        key = torch.where(real, pairs[..., 0] * self.graph.size + pairs[..., 1], -1).view(n, 4, many)
        key = key.gather(2, order.unsqueeze(1).expand(-1, 4, -1))
        same = (key.view(n, 4, 1, many, 1) == key.view(n, 1, 4, 1, many)).flatten(1, 2).any(1)
        on = key[:, 0] >= 0
        for e in range(1, many):
            on[:, e] &= ~(same[:, e, :e] & on[:, :e]).any(1)
        return torch.zeros_like(on).scatter(1, order, on)

    def admissible(self, form: Tensor, rows: Tensor | None = None) -> Tensor | None:
        return self.limits.admits(self.graph, self._flips(form)) if self.limits.edges else None

    # -- what it does ---------------------------------------------------------------------------------------------
    def _flips(self, form: Tensor) -> Tensor:
        """(n, 4E, 2): the pairs of active swaps."""
        return torch.where(self.active(form).repeat(1, 4).unsqueeze(2), self.pairs(form)[0], -1)

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> GraphRows:
        return GraphRows(self.graph, self._rows(rows), self._flips(trim(form)))

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> GraphRows:
        return GraphRows(self.graph, self._rows(rows), self._flips(form), weights.repeat(1, 4))

    # -- ranking: a swap gains what its four pairs gain ------------------------------------------------------------
    def _near(self, rows: Tensor | None) -> Tensor:
        """Nodes within two hops of each target, nearest first: int64 (n, G), -1 is padding.

        The gradient of a pair with neither end here is zero for two-layer models, and taken for zero for others, or
        where more nodes are near than fit.
        """
        graph, target = self.graph, self._rows(rows)
        lane = torch.arange(len(target), device=target.device)
        owner, near = graph.neighbours(target)
        step, far = graph.neighbours(near)
        n, size = len(target), graph.size
        key = torch.cat([lane * size + target, owner * size + near, owner[step] * size + far])
        hop = torch.cat([torch.zeros_like(lane), torch.ones_like(near), torch.full_like(far, 2)])
        order = (key * 3 + hop).argsort()
        key, hop = key[order], hop[order]
        first = torch.ones_like(key, dtype=torch.bool)
        first[1:] = key[1:] != key[:-1]
        key, hop = key[first], hop[first]
        order = ((key // size) * 3 + hop).argsort(stable=True)
        lane, node = (key // size)[order], (key % size)[order]
        count = torch.bincount(lane, minlength=n)
        place = torch.arange(len(lane), device=lane.device) - (count.cumsum(0) - count)[lane]
        cap = max(1, min(PROBES // size, int(count.max()) if n else 1))
        out = torch.full((n, cap), -1, dtype=torch.int64, device=target.device)
        keep = place < cap
        out[lane[keep], place[keep]] = node[keep]
        return out

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[GraphRows, list[Tensor]]:
        near, x = self._near(rows), self.inputs(form, rows)
        leaf = torch.zeros(*near.shape, self.graph.size, device=near.device, requires_grad=True)
        return GraphRows(self.graph, x.target, x.flips, probe=leaf, probe_nodes=near, probes="pairs"), [leaf]

    def rank_by(
        self, form: Tensor, grads: list[Tensor | None], k: int, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        near, target, n = self._near(rows), self._rows(rows), len(form)
        grad = torch.zeros(*near.shape, self.graph.size, device=form.device) if grads[0] is None else grads[0]
        place = torch.full((n, self.graph.size + 1), -1, dtype=torch.int64, device=form.device)
        place.scatter_(
            1, torch.where(near >= 0, near, self.graph.size), torch.arange(near.shape[1]).to(near).expand_as(near)
        )
        edits = torch.full((n, k, 2), -1, dtype=torch.int64, device=form.device)
        gains = torch.full((n, k), -torch.inf, device=form.device)
        used, real = self.pairs(trim(form))
        for i in range(n):
            start = self.graph.start[target[i]]
            slot = torch.arange(int(start), int(start + self.graph.count[target[i]]), device=form.device)
            held = used[i][real[i]]
            found = [self._best(part, grad[i], place[i], held, k) for part in slot.split(max(1, TABLE // self.choices))]
            if not found:
                continue
            pair, gain = torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])
            top, at = gain.topk(min(k, len(gain)))
            edits[i, : len(top)], gains[i, : len(top)] = pair[at], top
        return torch.where(gains.isfinite().unsqueeze(2), edits, -1), gains

    def _best(self, slot: Tensor, grad: Tensor, place: Tensor, held: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best swaps of the slots `slot` (m,) with any other, none of whose pairs is `held`: (k, 2), (k,)."""
        every = torch.arange(self.choices, device=slot.device)
        a, b, c, d = torch.broadcast_tensors(*self.ends(slot.unsqueeze(1), every.unsqueeze(0)))
        size = self.graph.size
        shut = torch.cat([held[:, 0] * size + held[:, 1], held[:, 1] * size + held[:, 0]])
        gain, closed = torch.zeros(a.shape, device=slot.device), ~self._fits(slot.unsqueeze(1), every)
        for sign, (x, y) in zip(SIGNS, ((a, b), (c, d), (a, d), (c, b)), strict=True):
            here, there = place[x], place[y]
            value = torch.where(here >= 0, grad[here.clamp_min(0), y], grad[there.clamp_min(0), x] * (there >= 0))
            gain = gain + sign * value
            if len(shut):
                closed = closed | torch.isin(x * size + y, shut)
        pairs, value = best_pairs(gain.masked_fill(closed, -torch.inf).view(1, -1), self.choices, k)
        return torch.stack([slot[pairs[0, :, 0].clamp_min(0)], pairs[0, :, 1]], 1), value[0]


# -- the task -------------------------------------------------------------------------------------------------------
class Swaps(Unnoticed, kw_only=True):
    """Of `swaps`, each of which is two flips at each of its four ends."""

    edits: Annotated[int, Meta(ge=1, description="the most swaps of two edges")]
    cooccurrence: Cooccurrence = False


@takes(Swaps)
def swaps(spec: Spec, options: Swaps) -> Task:
    """Degree-preserving swaps of edges, one end of each pair of edges at the target.

    `degree_test` and `singletons` hold whatever is asked: no degree moves.
    """
    data, victim = data_and_victim(spec, knowledge_by_edges=True)
    limits = limits_of(options, SENSELESS)
    if limits.per_node == 1:
        raise AdvgymError("a swap flips two pairs at each of its ends: per_node is 0 or at least 2, not 1")
    dealt = apart(data)
    deal = dealer(data, dealt, RewireBatch, edits=options.edits, limits=limits)
    goal = ClassGoal(data.classes, spec.threat.goal, data.class_names)
    return Task(
        spec.name, victim, goal, spec.threat, {split: len(nodes) for split, nodes in dealt.items()}, deal,
        context=public(data), randomise=randomise_edges, line=partial(line, goal=goal),
        show=partial(picture, labels=data.labels, goal=goal), draw=partial(frame, labels=data.labels),
        columns=measures.columns(),
        surrogate=surrogate_of(spec, data), adapt=adapted, notes=data.notes, lacks=lacking(dealt),
        offers=frozenset({"graph", "target"}),
    )  # fmt: skip


def _as_flips(batch: RewireBatch, form: Tensor) -> tuple[Any, Tensor]:
    """The batch and the form as those of a task of edge flips, for pictures."""
    pairs = batch.inputs(form.unsqueeze(0), torch.tensor([0], device=form.device)).flips[0]
    twin = SimpleNamespace(graph=batch.graph, target=batch.target, labels=batch.labels, key="pair")
    return twin, pairs[pairs[:, 0] >= 0]


def line(batch: RewireBatch, row: int, form: Tensor, *, goal: Goal) -> str:
    """For example `node 5 (block 1): -(5,9) -(70,71) +(5,71) +(9,70)`."""
    twin, flips = _as_flips(batch, form)
    return neighbourhood.line_node(twin, row, flips, goal=goal)


def picture(batch: RewireBatch, row: int, form: Tensor, before: Tensor, after: Tensor, **kwargs: Any) -> str:
    """The neighbourhood of the target with the moved edges."""
    twin, flips = _as_flips(batch, form)
    return neighbourhood.show_node(twin, row, flips, before, after, **kwargs)


def frame(batch: RewireBatch, row: int, form: Tensor, *, labels: Tensor) -> Any:
    """The same as a frame."""
    twin, flips = _as_flips(batch, form)
    return frames.draw_node(twin, row, flips, labels=labels)
