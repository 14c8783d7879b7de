"""Simplified gradient attack: gradients inside a small subgraph (Li et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.targets import (  # fmt: skip
    PublicGraph,
    advance,
    estimate_labels,
    known_labels,
    node_features,
    target_graph,
)
from advgym.lib.settings import NATURAL

MOST = 4096  # edits ranked per lane and step


@register_agent("sga", kind="edits", knowledge="transfer", needs=("edges", "target"), allowed={"attackers": NATURAL})
def attack(env, *, attackers=0, seed=0):
    """The largest gradient inside the subgraph of the target's two hops and its attacker nodes (Li et al. 2020).

    The loss is the paper's, the scores of the likeliest wrong class less those of the predicted one (its temperature
    scales every gradient alike). The attacker nodes are the members of that class whose new edge to the target has the
    largest gradient; later steps choose among the edges to them and the edges of the subgraph alone. Members are known
    where labels are public or can be estimated from them (`estimate_labels`), else any node may be an attacker node.

    Args:
        env: Edits that flip edges around one node.
        attackers: attacker nodes per lane; 0 for as many as edits, as the paper.
        seed: unused, the attack draws nothing.
    """
    obs, _ = env.reset(seed=seed)
    aim, wrong = margin_aim(env, obs)
    graph, state = target_graph(env, "sga"), env.threat.null()
    steps = int(env.table.limit.max())
    k = min(graph.size * (1 if graph.direct else 8), MOST)
    inside = None
    for _ in range(steps):
        if env.done:
            break
        found, gains = env.rank(state, cotangent=aim, k=k)
        found = torch.where(gains.isfinite().unsqueeze(2), found, -1)
        if inside is None:
            inside = subgraph(graph, found, members(env, graph, obs, wrong), attackers or steps)
        found = _front(torch.where(_allowed(graph, found, inside).unsqueeze(2), found, -1), 32)
        new = advance(env, state, found)
        if new is None:
            break
        state = new
    return state


def margin_aim(env, obs: dict) -> tuple[Tensor | None, Tensor | None]:
    """(cotangent (lanes, classes) towards the likeliest wrong class, that class (lanes,)); None: the goal's own."""
    if env.threat.model.goal != "untargeted" or "scores" not in obs:
        return None, None
    scores, ref = obs["scores"].detach(), obs["output"]
    if env.proposals is not None:
        scores, ref = scores[:, 0], ref[:, 0]
    if scores.dim() != 2 or scores.shape[1] < 2 or ref.dim() != 1:
        return None, None
    own = torch.nn.functional.one_hot(ref.clamp_min(0), scores.shape[1])
    wrong = scores.masked_fill(own.bool(), -torch.inf).argmax(1)
    return (torch.nn.functional.one_hot(wrong, scores.shape[1]) - own).to(scores.dtype), wrong


def members(env, graph: PublicGraph, obs: dict, wrong: Tensor | None) -> Tensor | None:
    """Bool (lanes, N): nodes taken for members of the wrong class; None where nothing public tells."""
    known = known_labels(env, obs)
    if known is None or wrong is None:
        return None
    return estimate_labels(graph, node_features(env), known) == wrong.unsqueeze(1)


def subgraph(graph: PublicGraph, found: Tensor, member: Tensor | None, many: int) -> tuple[Tensor, Tensor]:
    """(two-hop ball bool (lanes, N), attacker nodes bool (lanes, N)) from edits (lanes, k, 2), best first."""
    near = graph.beside(graph.target)
    ball = near | (graph.sum_neighbours(near.float().T).T > 0)
    ball.scatter_(1, graph.target.unsqueeze(1), True)
    a, b = found.clamp_min(0).unbind(2)
    starts = torch.zeros_like(near).scatter(1, graph.target.unsqueeze(1), True) if graph.direct else near
    other = torch.where(starts.gather(1, a), b, a)
    new = (found[..., 0] >= 0) & ~graph.has(a, b)
    if member is not None:
        new &= member.gather(1, other)
    place = new.long().cumsum(1)
    attacker = torch.zeros_like(ball, dtype=torch.int64)
    attacker.scatter_add_(1, other, (new & (place <= many)).long())
    return ball, attacker > 0


def _allowed(graph: PublicGraph, found: Tensor, inside: tuple[Tensor, Tensor]) -> Tensor:
    """Bool (lanes, k): edits that cut an edge of the ball, or join it to an attacker node."""
    ball, attacker = inside
    a, b = found.clamp_min(0).unbind(2)
    there = graph.has(a, b)
    joins = attacker.gather(1, a) | attacker.gather(1, b)
    return (found[..., 0] >= 0) & torch.where(there, ball.gather(1, a) & ball.gather(1, b), joins)


def _front(found: Tensor, many: int) -> Tensor:
    """The first `many` edits that are there, in order."""
    order = (found[..., 0] < 0).to(torch.int8).argsort(dim=1, stable=True)[:, :many]
    return found.gather(1, order.unsqueeze(2).expand(-1, -1, 2))
