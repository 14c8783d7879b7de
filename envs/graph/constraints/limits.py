"""The options of a task that keep its attacks unnoticeable, read from its constraint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated

from msgspec import Meta
from torch import Tensor

from advgym.envs.graph.constraints.cooccurrence import cooccurrence
from advgym.envs.graph.constraints.stealth import admissible
from advgym.envs.graph.inputs.graphs import Graph
from advgym.errors import AdvgymError
from advgym.lib.options import Options


@dataclass(frozen=True)
class Limits:
    """What a valid perturbation must keep besides its number of edits; see `stealth.admissible`.

    Attributes:
        degree_test: Lambda stays below it (Nettack has 0.004); 0 does not ask.
        singletons: nodes may lose their last edge.
        connected: the graph may not fall apart further.
        per_node: most flips at one node; 0 does not ask.
        cooccurrence: features are added only where Nettack's test allows it.
    """

    degree_test: float = 0.0
    singletons: bool = True
    connected: bool = False
    per_node: int = 0
    cooccurrence: bool = False

    @property
    def narrow(self) -> int:
        """Cells of a lane that masks may ask about one by one: components and power laws are looked at as a whole."""
        if self.connected or self.degree_test:
            return 1024
        return 8192 if self.edges or self.cooccurrence else 0

    @property
    def edges(self) -> bool:
        """Whether anything is asked of flips of edges."""
        return bool(self.degree_test or not self.singletons or self.connected or self.per_node)

    def admits(self, graph: Graph, flips: Tensor | None = None, cells: Tensor | None = None) -> Tensor | None:
        """Which rows of changes keep them: bool (n,), or None where nothing is asked of these changes."""
        flips, cells = (flips if self.edges else None), (cells if self.cooccurrence else None)
        if flips is None and cells is None:
            return None
        return admissible(
            graph, flips, cells, degree_test=self.degree_test or None, singletons=self.singletons,
            connected=self.connected, per_node=self.per_node or None,
            cooccurrence=cooccurrence(graph) if cells is not None else None,
        )  # fmt: skip


class Unnoticed(Options, kw_only=True):
    """Options of tasks that flip edges; see `Limits`."""

    singletons: Annotated[bool, Meta(description="nodes may lose their last edge")] = True
    degree_test: Annotated[
        float, Meta(ge=0, description="the largest Lambda of the degree test, as 0.004; 0 does not ask")
    ] = 0.0
    connected: Annotated[bool, Meta(description="the graph may not fall apart further")] = False
    per_node: Annotated[int, Meta(ge=0, description="the most flips at one node; 0 does not ask")] = 0


Flips = Annotated[int, Meta(ge=1, description="the most undirected flips")]
Targets = Annotated[int, Meta(ge=0, description="how many members, 0 for all")]
Influence = Annotated[bool, Meta(description="the target itself stays as it is")]
Cooccurrence = Annotated[bool, Meta(description="features are added only where Nettack's test allows it")]


def limits_of(options: Options, senseless: Mapping[str, str] | None = None) -> Limits:
    """The limits among a task's options; those that it does not name are not asked.

    Args:
        senseless: limits that say nothing about this kind of perturbation, and why not.

    Raises:
        AdvgymError: for a limit that says nothing, naming the option.
    """
    for name, why in (senseless or {}).items():
        if getattr(options, name):
            raise AdvgymError(f"{name} says nothing here: {why}")
    return Limits(**{f.name: getattr(options, f.name) for f in fields(Limits) if hasattr(options, f.name)})
