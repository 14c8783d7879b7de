"""A Field on node features: real numbers added to the features of one node, or of the nodes beside it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from advgym.core import rng
from advgym.core.batch import pick
from advgym.core.field import FieldBatch
from advgym.core.goals import ClassGoal, Goal
from advgym.core.norms import largest
from advgym.core.task import Spec, Task
from advgym.core.victim import Victim
from advgym.envs.graph.data.datasets import sbm
from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.perturb.view import node_summary
from advgym.envs.graph.show import frames, neighbourhood
from advgym.envs.graph.tasks.nodes import adapted, apart, data_and_victim, known_labels, lacking, public, surrogate_of
from advgym.envs.graph.victims.recipes import node_victim
from advgym.errors import AdvgymError
from advgym.lib.given import check_radius
from advgym.lib.options import Options, takes

ELEMENTS = 1 << 16  # most features of one lane that can be moved


class NodeFieldBatch(FieldBatch):
    """B target nodes of one graph; a perturbation (G, F) is added to the features of G nodes of each lane.

    Args:
        graph: the clean graph; target: int64 (B,).
        nodes: int64 (B, G), whose features are moved; -1 is padding.
        known: int64 (N,) the labels an attacker knows, -1 elsewhere; only for `view`.
        kwargs: radius, norm, low and high of `FieldBatch`.
    """

    shown = "graph target nodes summary"

    def __init__(
        self, ids: Tensor, labels: Tensor, graph: Graph, target: Tensor, nodes: Tensor, known: Tensor, classes: int,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        on = (nodes >= 0).unsqueeze(2)
        x = torch.where(on, graph.x[nodes.clamp_min(0)], float(np.clip(0.0, kwargs["low"], kwargs["high"])))
        super().__init__(ids, labels, x, support=on.expand_as(x), **kwargs)
        self.graph, self.target, self.nodes = graph, target, nodes
        self.summary = node_summary(graph, target, known, classes)

    def widened(self, factor: float) -> FieldBatch:
        """The same samples in a ball of `factor` times the radius."""
        return self.like(**vars(FieldBatch.widened(self, factor)))

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> Any:
        """`GraphRows` whose probe is the change of features."""
        target = pick(self.target, rows)
        none = target.new_full((len(target), 0, 2), -1)
        change = torch.where(pick(self.nodes, rows).unsqueeze(2) >= 0, form - pick(self.x, rows), 0.0)
        return GraphRows(self.graph, target, none, probe=change, probe_nodes=pick(self.nodes, rows), probes="cells")

    def view(self) -> dict[str, Tensor]:
        """`node`: see `node_summary`; `clean` (B, G, F): the features that can be moved."""
        return {"node": self.summary, "clean": self.x}


# -- data and victims -------------------------------------------------------------------------------------------------
def gaussian(size: int = 300, blocks: int = 3, features: int = 16, apart: float = 0.5, seed: int = 7) -> NodeData:
    """The stochastic block model with normal features: N(c, 1) around a centre c of each block; synthetic.

    The coordinates of centres are drawn from N(0, apart).
    """
    data = sbm(size, blocks, seed=seed)
    draw = np.random.default_rng([2, seed])
    centre = apart * draw.normal(size=(blocks, features))
    x = torch.from_numpy((centre[data.labels.numpy()] + draw.normal(size=(size, features))).astype(np.float32))
    return replace(data, graph=Graph(size, data.graph.pairs, x))


def gaussian_victim(name: str, model: str = "gcn", **recipe: Any) -> Victim:
    """A node classifier on the block model with normal features (or on another dataset), trained if it is missing."""
    dataset = str(recipe.pop("dataset", "sbm"))
    if dataset != "sbm":
        return node_victim(name, dataset=dataset, model=model, **recipe)
    return node_victim(name, model=model, data=gaussian(), **recipe)


# -- the task ---------------------------------------------------------------------------------------------------------
class Moved(Options):
    """Of `features`."""

    eps: Annotated[float, Meta(gt=0, description="the radius, in the units of the features")]
    norm: Literal["linf", "l2", "l1", "l0"]
    influence: Annotated[bool, Meta(description="neighbours are moved, and the target stays as it is")]
    nodes: Annotated[int, Meta(ge=1, description="the most neighbours that are moved, those of smallest degree")]


@takes(Moved)
def features(spec: Spec, options: Moved) -> Task:
    """Real numbers added to the features of the target, or with `influence` of its neighbours.

    The messages of neighbours of small degree weigh most. Features stay between the least and the largest of the clean
    graph, as in GRB (Zheng et al. 2021).
    """
    drawn = spec.row.get("features") == "gaussian" and spec.samples is None and spec.dataset is None
    if drawn:
        data, victim = gaussian(), spec.load_victim()
    else:
        data, victim = data_and_victim(spec, knowledge_by_edges=False)
    eps, norm, influence = options.eps, options.norm, options.influence
    most = options.nodes if influence else 1
    if most * data.graph.features > ELEMENTS:
        raise AdvgymError(
            f"{most} nodes of {data.graph.features} features are more than {ELEMENTS} numbers: ask for fewer nodes"
        )
    known, dealt = known_labels(data), apart(data)
    low, high = float(data.graph.x.min()), float(data.graph.x.max())
    check_radius(
        "eps",
        eps,
        most=largest(norm, most * data.graph.features, high - low),
        hint=f" Features lie between {low:g} and {high:g}.",
    )

    def deal(split: str, ids: list[int], device: Any) -> NodeFieldBatch:
        graph, identity = data.graph.to(device), torch.tensor(ids, dtype=torch.int64, device=device)
        target = dealt[split].to(device)[identity]
        nodes = beside(graph, target, most) if influence else target.unsqueeze(1)
        return NodeFieldBatch(
            identity, data.labels.to(device)[target], graph, target, nodes, known.to(device), data.classes, radius=eps,
            norm=norm, low=low, high=high,
        )  # fmt: skip

    goal = ClassGoal(data.classes, spec.threat.goal, data.class_names)
    return Task(
        spec.name, victim, goal, spec.threat, {split: len(nodes) for split, nodes in dealt.items()}, deal,
        context=public(data), randomise=randomise, line=partial(line, goal=goal),
        surrogate=surrogate_of(spec, data), adapt=adapted, notes=data.notes, lacks=lacking(dealt),
        show=partial(picture, labels=data.labels, goal=goal), draw=partial(frame, labels=data.labels),
        offers=frozenset({"graph", "target"}),
    )  # fmt: skip


def beside(graph: Graph, target: Tensor, most: int) -> Tensor:
    """Up to `most` neighbours of each target, of smallest degree first: int64 (n, most), -1 is padding."""
    owner, near = graph.neighbours(target)
    order = (owner * (2 * graph.size) + graph.count[near]).argsort(stable=True)
    owner, near = owner[order], near[order]
    count = graph.count[target]
    place = torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner]
    out = torch.full((len(target), most), -1, dtype=torch.int64, device=target.device)
    keep = place < most
    out[owner[keep], place[keep]] = near[keep]
    return out


def randomise(inputs: GraphRows, rate: float, keys: Tensor) -> GraphRows:
    """Normal noise of standard deviation `rate` on the features that can be moved; keyed."""
    assert inputs.probe is not None and inputs.probe_nodes is not None
    noise = rate * rng.normal(0, keys, tuple(inputs.probe.shape[1:]), 46)
    return replace(inputs, probe=inputs.probe + noise * (inputs.probe_nodes >= 0).unsqueeze(2))


def _flipless(batch: NodeFieldBatch) -> Any:
    return SimpleNamespace(graph=batch.graph, target=batch.target, labels=batch.labels, key="pair")


def line(batch: NodeFieldBatch, row: int, form: Tensor, *, goal: Goal) -> str:
    """For example `node 5 (block 1): features of 1 node moved, by at most 0.25`."""
    change = (form - batch.x[row]).detach()
    moved = int((change != 0).any(1).sum())
    head = neighbourhood.line_node(_flipless(batch), row, form.new_full((0, 2), -1).long(), goal=goal).removesuffix(
        "no flips"
    )
    most = float(change.abs().max()) if change.numel() else 0.0
    return f"{head}features of {moved} node{'s' * (moved != 1)} moved, by at most {most:.3g}"


def picture(batch: NodeFieldBatch, row: int, form: Tensor, before: Tensor, after: Tensor, **kwargs: Any) -> str:
    """The neighbourhood of the target; its edges are the clean ones."""
    none = form.new_full((0, 2), -1).long()
    return neighbourhood.show_node(_flipless(batch), row, none, before, after, **kwargs)


def frame(batch: NodeFieldBatch, row: int, form: Tensor, *, labels: Tensor) -> Any:
    """The same as a frame."""
    return frames.draw_node(_flipless(batch), row, form.new_full((0, 2), -1).long(), labels=labels)
