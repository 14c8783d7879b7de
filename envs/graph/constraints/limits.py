"""The options of a task that keep its attacks unnoticeable, read from its constraint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from advgym.envs.graph.constraints.cooccurrence import cooccurrence
from advgym.envs.graph.constraints.stealth import admissible
from advgym.envs.graph.inputs.graphs import Graph
from advgym.errors import AdvgymError


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


def limits_of(options: Mapping[str, Any], senseless: Mapping[str, str] | None = None) -> Limits:
    """The limits among a constraint's options; those that it does not name are not asked.

    Args:
        senseless: limits that say nothing about this kind of perturbation, and why not.

    Raises:
        AdvgymError: for a value that is none, or a limit that says nothing, naming the option.
    """
    found: dict[str, Any] = {}
    for name, why in (senseless or {}).items():
        if options.get(name):
            raise AdvgymError(f"{name} says nothing here: {why}")
    for name in ("singletons", "connected", "cooccurrence"):
        if name in options:
            found[name] = flag(options, name)
    value = options.get("degree_test", 0.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise AdvgymError(f"degree_test is the largest Lambda, as in degree_test=0.004, or 0 for none, not {value!r}")
    many = options.get("per_node", 0)
    if isinstance(many, bool) or not isinstance(many, int) or many < 0:
        raise AdvgymError(f"per_node is the most flips at one node, or 0 for any number, not {many!r}")
    return Limits(degree_test=float(value), per_node=many, **found)


def count(options: Mapping[str, Any], name: str, least: int = 1, what: str = "") -> int:
    """An option that counts something; 0 where it is not named."""
    value = options.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise AdvgymError(f"{name} is a whole number of at least {least}{what and f' ({what})'}, not {value!r}")
    return value


def flag(options: Mapping[str, Any], name: str) -> bool:
    """An option that is on or off."""
    value = options.get(name, False)
    if not isinstance(value, (bool, int)):
        raise AdvgymError(f"{name} is true or false, not {value!r}")
    return bool(value)
