"""Node injection: new nodes, their edges and their binary features, against many nodes of one graph at once.

The clean graph carries I isolated nodes without features, which change no answer of a model that reads neighbours. Node
N + i has two sites: i takes its edges (the choice is a node), I + i its features (the choice is a feature). Scenario
and budgets by node follow GRB (Zheng et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor

from advgym.core.batch import pick
from advgym.core.edits import EditsBatch
from advgym.core.goals import ClassGoal, Goal
from advgym.core.task import Spec, Task
from advgym.envs.graph.constraints.injected import Words, busiest_old, columns, degree_prefix, first_at_old, nth
from advgym.envs.graph.constraints.limits import Cooccurrence, Limits, Targets, Unnoticed, limits_of
from advgym.envs.graph.constraints.powerlaw import degree_test_of
from advgym.envs.graph.inputs.adjacency import Tape
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.inputs.graphs import Graph, check_binary
from advgym.envs.graph.inputs.pairs import top_pairs
from advgym.envs.graph.perturb.batches import trim
from advgym.envs.graph.perturb.dense import best_pairs
from advgym.envs.graph.perturb.global_batch import GlobalGoal
from advgym.envs.graph.tasks.many_nodes import SEEDS, members
from advgym.envs.graph.tasks.nodes import adapted, data_and_victim, public, surrogate_of
from advgym.lib.options import takes

SPARE = 2  # a relaxed perturbation holds up to so many times the features


def extended(graph: Graph, many: int) -> Graph:
    """The graph with `many` isolated nodes without features behind the others; its names, if any, get `new 0` ..."""
    names = None if graph.names is None else [*graph.names, *(f"new {i}" for i in range(many))]
    x = torch.cat([graph.x, graph.x.new_zeros(many, graph.features)])
    return Graph(graph.size + many, graph.pairs, x, row_norm=graph.row_norm, names=names)


@dataclass(frozen=True)
class InjectedRows(GlobalRows):
    """`GlobalRows` whose injected nodes' features can be ranked: `probe` zeros (n, I, F) of `probe_nodes` (n, I)."""

    probe: Tensor | None = None
    probe_nodes: Tensor | None = None
    probes: str = "cells"

    def graphs(self, index: Tensor) -> InjectedRows:
        """The graphs at `index`, int64 (m,), with all their members."""
        few = super().graphs(index)
        assert isinstance(few, InjectedRows)
        probe, nodes = (None if v is None else v[index] for v in (self.probe, self.probe_nodes))
        return replace(few, probe=probe, probe_nodes=nodes)


class InjectionBatch(EditsBatch):
    """B copies of one graph with I injected nodes; sites are 2 I, choices max(N + I, F), the key is the cell.

    An edge between two injected nodes belongs to the later one: its choice is the earlier.

    Args:
        ids: int64 (B,), which seed each lane is; labels: int64 (B, M).
        graph: the extended graph; nodes: int64 (M,), the members.
        many: I; degree, features: most edges and features of one injected node.
        limits: what keeps them unnoticeable; no edge of the clean graph goes, so nothing is cut off or falls apart.
    """

    shown = "graph nodes many members first caps limits"

    key = "cell"

    def __init__(
        self, ids: Tensor, labels: Tensor, graph: Graph, nodes: Tensor, *, many: int, degree: int, features: int,
        limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self.ids, self.labels, self.graph, self.nodes, self.many = ids, labels, graph, nodes, many
        self.first = graph.size - many  # N: the first injected node
        self.sites, self.choices = 2 * many, max(graph.size, graph.features)
        # A tuple, so that no lane's exchange takes it for a tensor by lane.
        self.caps = (min(degree, self.first), min(features, graph.features))
        self.limit = torch.full_like(ids, many * sum(self.caps))
        self.rows_max = many * (self.caps[0] + SPARE * self.caps[1])
        self.members, self.limits = len(nodes), limits or Limits()
        self.narrow = self.limits.narrow
        self._tape: Tape | None = None

    @property
    def price(self) -> int:
        """One: a graph answers for all of its nodes."""
        return 1

    # -- what exists ----------------------------------------------------------------------------------------------
    def legal(self, site: Tensor, choice: Tensor, rows: Tensor | None = None) -> Tensor:
        return torch.where(site < self.many, choice < self.first + site, choice < self.graph.features)

    def _caps(self) -> Tensor:
        """Most edits at each site, (sites,)."""
        edge = torch.arange(self.sites, device=self.ids.device) < self.many
        return torch.where(edge, self.caps[0], self.caps[1])

    def site_mask(self, rows: Tensor | None = None) -> Tensor:
        return (self._caps() > 0).expand(len(pick(self.ids, rows)), -1)

    def choice_mask(self, sites: Tensor, rows: Tensor | None = None) -> Tensor:
        every = torch.arange(self.choices, device=sites.device)
        return self.legal(sites.unsqueeze(1), every, rows) & (self._caps()[sites] > 0).unsqueeze(1)

    def mask(self, rows: Tensor | None = None) -> Tensor:
        site = torch.arange(self.sites, device=self.ids.device)
        return self.choice_mask(site).expand(len(pick(self.ids, rows)), -1, -1)

    def _count(self, p: Tensor) -> Tensor:
        """How many edits each site has, (n, sites)."""
        out = torch.zeros(len(p), self.sites + 1, dtype=torch.int64, device=p.device)
        at = torch.where(p[..., 0] >= 0, p[..., 0], self.sites)
        return out.scatter_add_(1, at, torch.ones_like(at))[:, : self.sites]

    def room(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        return self._count(p) < self._caps()

    def admissible(self, form: Tensor, rows: Tensor | None = None) -> Tensor | None:
        ok, limits = (self._count(form) <= self._caps()).all(1), self.limits
        if not (limits.per_node or limits.degree_test or limits.cooccurrence):
            return ok
        flips, cells = self._split(form)
        if limits.per_node:
            ok &= busiest_old(flips, self.first) <= limits.per_node
        if limits.degree_test:
            ok &= degree_test_of(self.graph).incremental(flips, self.graph) < limits.degree_test
        if limits.cooccurrence:
            ok &= ~Words(self.graph, cells).refused().any(1)
        return ok

    def _feasible(self, p: Tensor, rows: Tensor | None) -> Tensor:
        """The first edits of each site, as many as it may have; of these the first that keep each limit."""
        site, limits = torch.where(p[..., 0] >= 0, p[..., 0], self.sites), self.limits
        caps = torch.cat([self._caps(), self._caps().new_zeros(1)])
        p = torch.where((nth(site) < caps[site]).unsqueeze(2), p, -1)
        edge, cell = (p[..., 0] >= 0) & (p[..., 0] < self.many), p[..., 0] >= self.many
        if limits.per_node:
            edge &= first_at_old(self._split(p)[0], self.first, limits.per_node)
        if limits.degree_test:
            flips = torch.where(edge.unsqueeze(2), self._split(p)[0], -1)
            edge &= degree_prefix(self.graph, flips, limits.degree_test)
        if limits.cooccurrence:
            cell &= Words(self.graph, self._split(p)[1]).kept()
        return torch.where((edge | cell).unsqueeze(2), p, -1)

    # -- what it does ---------------------------------------------------------------------------------------------
    def _split(self, form: Tensor) -> tuple[Tensor, Tensor]:
        """(pairs, cells) of edits, int64 (n, E, 2) each, -1 where an edit is the other kind."""
        site, choice = form.unbind(2)
        edge, cell = (site >= 0) & (site < self.many), site >= self.many
        node = torch.where(edge, site, site - self.many) + self.first
        both = torch.stack([node, choice], 2)
        flips, cells = (torch.where(part.unsqueeze(2), both, -1) for part in (edge, cell))
        return flips, cells

    def _parts(self, form: Tensor, weights: Tensor | None) -> InjectedRows:
        form = trim(form)
        flips, cells = self._split(form)
        flips, cell = trim(flips), cells[..., 0] >= 0
        if weights is not None:
            weights = weights[:, : form.shape[1]]
        return InjectedRows(
            self.graph, self.nodes, flips, None if weights is None else weights[:, : flips.shape[1]],
            cells=cells if bool(cell.any()) else None,
            cell_weights=weights if bool(cell.any()) else None,
        )  # fmt: skip

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> GlobalRows:
        return self._parts(form, None)

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> GlobalRows:
        return self._parts(form, weights)

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[GlobalRows, list[Tensor]]:
        return self._leaves(self._parts(form, None))

    def relaxed_leaves(
        self, form: Tensor, weights: Tensor, rows: Tensor | None = None
    ) -> tuple[GlobalRows, list[Tensor]]:
        return self._leaves(self._parts(form, weights))

    def _leaves(self, x: InjectedRows) -> tuple[GlobalRows, list[Tensor]]:
        """The inputs with a tape for edges and a probe for features; `rank_by` reads both."""
        device = x.flips.device
        self._tape = Tape(device)
        leaf = torch.zeros(x.many, self.many, self.graph.features, device=device, requires_grad=True)
        new = torch.arange(self.first, self.graph.size, device=device).expand(x.many, -1)
        return replace(x, tape=self._tape, probe=leaf, probe_nodes=new), [self._tape.leaf, leaf]

    def rank_by(
        self, form: Tensor, grads: list[Tensor | None], k: int, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        edits = torch.full((len(form), 2 * k, 2), -1, dtype=torch.int64, device=form.device)
        gains = torch.full((len(form), 2 * k), -torch.inf, device=form.device)
        tape, self._tape = self._tape, None
        assert tape is not None
        room = self.room(form)
        edge_room, cell_room = room[:, : self.many], room[:, self.many :]
        new = torch.arange(self.many, device=form.device)
        for i in range(len(form)):
            p = form[i][(form[i, :, 0] >= 0) & (form[i, :, 0] < self.many)]
            held = torch.stack([p[:, 0] + self.first, p[:, 1]], 1)
            # An edge between two injected nodes needs room at the later one.
            late, early = (v.flatten() for v in torch.meshgrid(new[~edge_room[i]], new, indexing="ij"))
            full = torch.stack([late, early], 1)[early < late] + self.first
            start = new[edge_room[i]] + self.first
            if len(start) and tape.entries and self.caps[0]:
                closed = torch.cat([held, full])
                found, gain = top_pairs(self.graph, *tape.factors(i), k, closed=closed, rows=start)
                edits[i, : len(found)] = torch.stack([found[:, 1] - self.first, found[:, 0]], 1)
                gains[i, : len(gain)] = gain.float()
        if grads[1] is not None and self.caps[1]:
            gain = grads[1].masked_fill(~cell_room.unsqueeze(2), -torch.inf)
            lane, e = (form[..., 0] >= self.many).nonzero(as_tuple=True)
            shut = torch.full((len(lane),), -torch.inf, device=form.device)
            gain = gain.index_put((lane, form[lane, e, 0] - self.many, form[lane, e, 1]), shut)
            cells, value = best_pairs(gain.flatten(1), self.graph.features, k)
            edits[:, k:] = torch.where(cells[..., :1] >= 0, cells + torch.tensor([self.many, 0]).to(cells), -1)
            gains[:, k:] = value
        top, at = gains.topk(k, 1)
        some = top.isfinite().unsqueeze(2)
        return torch.where(some, edits.gather(1, at.unsqueeze(2).expand(-1, -1, 2)), -1), top

    def view(self) -> dict[str, Tensor]:
        """`members` int64 (B, M): the target nodes."""
        return {"members": self.nodes.expand(len(self.ids), -1)}


# -- the task ---------------------------------------------------------------------------------------------------------
class Injected(Unnoticed, kw_only=True):
    """Of `nodes`; `per_node` bounds the injected edges at one old node, `cooccurrence` is of each injected node."""

    nodes: Annotated[int, Meta(ge=1, description="how many are injected")]
    degree: Annotated[int, Meta(ge=1, description="the most edges of each")]
    features: Annotated[int, Meta(ge=0, description="the most features of each, 0: as many as a clean node's mean")] = 0
    targets: Targets = 0
    cooccurrence: Cooccurrence = False


@takes(Injected)
def nodes(spec: Spec, options: Injected) -> Task:
    """Injected nodes against all test nodes that the victim has right.

    The degree test is between the clean graph and the enlarged one. `connected` and `singletons` hold whatever is
    asked: no edge goes. The context tells `injected`, `degree` and `features` besides the clean graph.
    """
    data, victim = data_and_victim(spec, knowledge_by_edges=True)
    check_binary(data.graph.x, data.graph.names)
    many, degree = options.nodes, options.degree
    on = options.features or max(1, round(float(data.graph.x.sum(1).mean())))
    limits = limits_of(options)
    chosen = members(data, victim, data.nodes["test"], options.targets)
    graph, labels = extended(data.graph, many), data.labels[chosen]

    def deal(split: str, ids: list[int], device: Any) -> InjectionBatch:
        lanes = torch.tensor(ids, dtype=torch.int64, device=device)
        wide = labels.to(device).expand(len(ids), -1)
        return InjectionBatch(
            lanes, wide, graph.to(device), chosen.to(device), many=many, degree=degree, features=on,
            limits=limits,
        )  # fmt: skip

    inner = ClassGoal(data.classes, spec.threat.goal, data.class_names)
    goal = GlobalGoal(inner, len(chosen), None if options.targets else len(chosen) / len(data.nodes["test"]))
    context = {**public(data), "injected": many, "degree": degree, "features": on}
    return Task(
        spec.name, victim, goal, spec.threat, {"test": SEEDS}, deal, context=context, line=line,
        show=partial(show, labels=data.labels, goal=goal.inner), columns=columns(),
        surrogate=surrogate_of(spec, data), adapt=adapted, notes=data.notes,
        offers=frozenset({"graph", "members", "injection"}),
    )  # fmt: skip


def line(batch: Any, row: int, form: Tensor, before: Tensor | None = None, after: Tensor | None = None) -> str:
    """For example `seed 0: 6 nodes with 18 edges and 30 features, 41 of 201 members turned`."""
    used = form[form[:, 0] >= 0]
    edge = used[:, 0] < batch.many
    new = len((used[:, 0] % batch.many).unique()) if len(used) else 0
    words = f"seed {int(batch.ids[row])}: {new} nodes with {int(edge.sum())} edges and {int((~edge).sum())} features"
    if before is None or after is None:
        return words
    return f"{words}, {int((before != after).sum())} of {len(before)} members turned"


def show(batch: Any, row: int, form: Tensor, before: Tensor, after: Tensor, *, labels: Tensor, goal: Goal) -> str:
    """A table: for each injected node its edges by the class of their other end, and how many features it has."""
    classes = int(labels.max()) + 1
    used = form[form[:, 0] >= 0]
    head = "".join(f"<th>{escape(goal.describe(torch.tensor(c)))}</th>" for c in range(classes))
    lines = []
    for i in range(batch.many):
        ends = used[used[:, 0] == i, 1]
        old = ends[ends < batch.first].cpu()
        count = torch.bincount(labels[old].clamp_min(0), minlength=classes).tolist() if len(old) else [0] * classes
        on = int((used[:, 0] == batch.many + i).sum())
        cells = "".join(f"<td>{c or ''}</td>" for c in count)
        lines.append(f"<tr><th>new {i}</th>{cells}<td>{int((ends >= batch.first).sum()) or ''}</td><td>{on}</td></tr>")
    table = f"<tr><td></td>{head}<th>new nodes</th><th>features</th></tr>{''.join(lines)}"
    words = escape(line(batch, row, form, before, after))
    return (
        f'<figure><table aria-label="edges of injected nodes">{table}</table><figcaption>{words}</figcaption></figure>'
    )
