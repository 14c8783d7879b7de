"""A PyG module of known convolutions, read through sums over neighbours, so that all pairs are ranked at once.

PyG's layers take an edge list. A gradient by pairs that are no edges needs those pairs in the list, so a module as it
is can only be asked about a block of them. A GCNConv and a SAGEConv are sums over neighbours, though: with their
weights, the same sums over an `Adjacency` leave behind what ranks every pair (`Tape`), and nothing is listed. A module
that reads edges in any other way is noticed: while it is asked so, it is given an edge list that is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.victims.modules import call
from advgym.errors import AdvgymError


class OtherEdgesError(Exception):
    """A layer was given other edges than those of the graph, or a weight of its own."""


def convolutions(model: Any) -> list[nn.Module]:
    """The module's convolutions if all that passes messages is known here, else none."""
    if not isinstance(model, nn.Module):
        return []
    passing = [m for m in model.modules() if hasattr(m, "message_and_aggregate") or hasattr(m, "propagate")]
    return passing if all(_known(m) for m in passing) else []


def _known(m: nn.Module) -> bool:
    """PyG's own class, not one derived from it, with settings that are sums or means over neighbours."""
    kind = type(m)
    plain = kind.__name__ in RULES and kind.__module__.startswith("torch_geometric.nn.conv.")
    if not plain or getattr(m, "flow", "source_to_target") != "source_to_target" or getattr(m, "_explain", None):
        return False
    if any(len(hooks) for name, hooks in vars(m).items() if name.endswith("_hooks") and hasattr(hooks, "__len__")):
        return False
    if kind.__name__ == "GCNConv":
        return bool(getattr(m, "normalize", False)) and getattr(m, "aggr", "add") in ("add", "sum")
    return getattr(m, "aggr", "") == "mean"


def _gcn(m: Any, adjacency: Adjacency, x: Tensor) -> Tensor:
    """Â h with h = x W, Â the symmetrically normalised A' + I, and the bias.

    Without weights, as victims are asked for a verdict, PyG's loops are of weight 1 with `improved=True` as well.
    """
    loop = 1.0 if m.add_self_loops else 0.0
    h = _node_first(m.lin(x), adjacency)
    degree = adjacency.degree.to(h.dtype) + loop
    scale = torch.where(degree > 0, degree.clamp_min(1e-12).rsqrt(), 0.0).unsqueeze(2)
    sent = scale * h
    out = _graph_first(scale * (adjacency.sum(sent) + loop * sent))
    return out if m.bias is None else out + m.bias


def _sage(m: Any, adjacency: Adjacency, x: Tensor) -> Tensor:
    """W1 mean of the neighbours' x + W2 x."""
    sent = m.lin(x).relu() if m.project and hasattr(m, "lin") else x
    total = adjacency.sum(_node_first(sent, adjacency))
    mean = total / adjacency.degree.to(total.dtype).clamp_min(1).unsqueeze(2)
    out = m.lin_l(_graph_first(mean))
    if m.root_weight:
        out = out + m.lin_r(x)
    return F.normalize(out, p=2.0, dim=-1) if m.normalize else out


RULES: dict[str, Callable[[Any, Adjacency, Tensor], Tensor]] = {"GCNConv": _gcn, "SAGEConv": _sage}


def _node_first(h: Tensor, adjacency: Adjacency) -> Tensor:
    """(n * N, H), graph after graph, to (N, n, H)."""
    return h.view(adjacency.n, adjacency.size, -1).transpose(0, 1)


def _graph_first(h: Tensor) -> Tensor:
    return h.transpose(0, 1).flatten(0, 1)


def scores(model: nn.Module, x: Tensor, adjacency: Adjacency, name: str = "own") -> Tensor:
    """Scores (n * N, C) of n perturbed graphs, graph after graph, as `model` gives them; x (n * N, F).

    Raises:
        OtherEdgesError: where the module's layers are given other edges than it was given.
    """
    nothing = torch.empty(2, 0, dtype=torch.int64, device=x.device)
    try:
        with _over(convolutions(model), adjacency, nothing):
            return call(model, x, nothing, None, name)
    except AdvgymError as error:
        if isinstance(error.__cause__, OtherEdgesError):
            raise error.__cause__ from None
        raise


@contextmanager
def _over(layers: list[nn.Module], adjacency: Adjacency, edges: Tensor) -> Iterator[None]:
    """Within it the layers sum over `adjacency` wherever they are given `edges`."""

    def forward(m: nn.Module, x: Any, edge_index: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        if (
            edge_index is not edges
            or not isinstance(x, Tensor)
            or any(v is not None for v in (*args, *kwargs.values()))
        ):
            raise OtherEdgesError
        return RULES[type(m).__name__](m, adjacency, x)

    try:
        for m in layers:
            m.forward = partial(forward, m)
        yield
    finally:
        for m in layers:
            vars(m).pop("forward", None)
