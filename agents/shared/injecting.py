"""What injection attacks share: who can be connected to whom, features chosen by site, sets that fit their rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advgym.errors import AdvgymError

MOST = 1 << 18  # edits that one ranking returns


@dataclass(frozen=True)
class Plan:
    """An injection task as `env.context` and the observation tell it.

    Attributes:
        many: injected nodes I; site i takes the edges of the i-th, site I + i its features.
        degree, features: most edges and features of one injected node.
        members: int64 (lanes, M), the target nodes.
        clean: float32 (N,), degrees of the clean graph.
    """

    many: int
    degree: int
    features: int
    members: Tensor
    clean: Tensor

    def degrees(self, state: Tensor) -> Tensor:
        """Degrees of existing nodes with the injected edges of `state` (lanes, E, 2): (lanes, N)."""
        out = self.clean.expand(len(state), -1).clone()
        edge = (state[..., 0] >= 0) & (state[..., 0] < self.many) & (state[..., 1] < len(self.clean))
        return out.scatter_add_(1, torch.where(edge, state[..., 1], 0), edge.float())

    def deal(self, order: Tensor, first: int, last: int) -> Tensor:
        """Edges of the injected nodes first ... last - 1 to members in turn: order (lanes, M) -> (lanes, edges, 2)."""
        each = min(self.degree, order.shape[1])
        site = torch.arange(first, last, device=order.device).repeat_interleave(each)
        at = torch.arange(len(site), device=order.device) % order.shape[1]
        node = self.members.gather(1, order[:, at])
        return torch.stack([site.expand_as(node), node], 2)


def plan_of(env, obs: dict, name: str = "this attack") -> Plan:
    """The plan of an environment that was reset, or an error that says what the attack of that name plays."""
    context = env.context or {}
    if env.kind != "edits" or "injected" not in context or "members" not in obs or "scores" not in obs:
        raise AdvgymError(f"{name} injects nodes and reads scores: play tasks such as graph/sbm-inject")
    edges = context["edge_index"].to(env.device)
    clean = torch.bincount(edges[0], minlength=int(context["num_nodes"])).float()
    many, degree, features = (int(context[k]) for k in ("injected", "degree", "features"))
    return Plan(many, degree, features, obs["members"], clean)


def by_gain(env, plan: Plan, state: Tensor, first: int, last: int, each: int) -> Tensor:
    """The `each` features of largest gain of each of the injected nodes first ... last - 1: (lanes, K, 2), -1 padded.

    Costs a query and a gradient.
    """
    found, gains = env.rank(state, k=min(MOST, env.table.cells))
    here = gains.isfinite() & (found[..., 0] >= plan.many + first) & (found[..., 0] < plan.many + last)
    site = torch.where(here, found[..., 0], env.table.sites)
    order = site.argsort(dim=1, stable=True)  # within a site they stay in order of gain
    ordered = site.gather(1, order)
    nth = torch.arange(site.shape[1], device=site.device) - torch.searchsorted(ordered, ordered.contiguous())
    keep = (nth < each) & (ordered < env.table.sites)
    some = torch.where(keep.unsqueeze(2), found.gather(1, order.unsqueeze(2).expand_as(found)), -1)
    return packed(some, (last - first) * each)


def packed(p: Tensor, rows: int) -> Tensor:
    """(lanes, rows, 2): the edits of p (lanes, m, 2) in their order, padding last."""
    if p.shape[1] < rows:
        p = torch.cat([p, p.new_full((len(p), rows - p.shape[1], 2), -1)], 1)
    order = (p[..., 0] < 0).to(torch.int8).argsort(dim=1, stable=True)[:, :rows]
    return p.gather(1, order.unsqueeze(2).expand(-1, -1, 2))


def joined(env, *parts: Tensor) -> Tensor:
    """One set of edits from several, as a proposal: (lanes, E, 2)."""
    return packed(torch.cat(parts, 1), env.shape[0])
