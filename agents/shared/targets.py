"""What attacks on one node of a public graph share: the graph, the lanes' targets, edits from scores of nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from advgym.agents.shared.common import choose
from advgym.errors import AdvgymError


@dataclass(frozen=True)
class PublicGraph:
    """The clean graph that `env.context` shows, and the target of every lane.

    Attributes:
        size: number of nodes N.
        keys: int64 (2m,) sorted, source * N + end of both directions of every edge.
        degree: float32 (N,).
        target: int64 (lanes,).
        direct: edits start at the target; else at its neighbours.
    """

    size: int
    keys: Tensor
    degree: Tensor
    target: Tensor
    direct: bool

    @classmethod
    def of(cls, size: int, edges: Tensor, target: Tensor, *, direct: bool = False) -> PublicGraph:
        """Of `edge_index` int64 (2, 2m)."""
        keys = (edges[0] * size + edges[1]).sort().values
        return cls(size, keys, torch.bincount(edges[0], minlength=size).float(), target, direct)

    def has(self, a: Tensor, b: Tensor) -> Tensor:
        """Whether the clean edge a - b exists; any shape, broadcast."""
        wanted = a * self.size + b
        at = torch.searchsorted(self.keys, wanted.contiguous()).clamp_max(max(len(self.keys) - 1, 0))
        return self.keys[at] == wanted if len(self.keys) else torch.zeros_like(wanted, dtype=torch.bool)

    def beside(self, node: Tensor) -> Tensor:
        """Bool (lanes, N): the clean neighbours of one node per lane, int64 (lanes,)."""
        return self.has(node.unsqueeze(1), torch.arange(self.size, device=node.device).unsqueeze(0))

    def pair(self, source: Tensor, other: Tensor) -> Tensor:
        """The edits (..., 2) that flip source - other, as the table writes them; -1 where a node is -1."""
        a, b = torch.broadcast_tensors(source, other)
        low, high = (a, b) if self.direct else (torch.minimum(a, b), torch.maximum(a, b))
        return torch.where(((a >= 0) & (b >= 0)).unsqueeze(-1), torch.stack([low, high], -1), -1)

    def sum_neighbours(self, value: Tensor) -> Tensor:
        """Of values (N, ...): the sum over each node's clean neighbours."""
        out = torch.zeros_like(value)
        return out.index_add_(0, self.keys // self.size, value[self.keys % self.size])


def edges_anywhere(env) -> bool:
    """Whether edits are flips of any edge of one public graph: a global attack."""
    context = env.context or {}
    if env.kind != "edits" or "edge_index" not in context or env.table.key != "pair":
        return False
    sites = env.table.site_mask()
    return env.table.sites == int(context["num_nodes"]) and bool((sites.sum(1) == env.table.sites - 1).all())


def public_graph(env) -> PublicGraph | None:
    """The graph of an environment whose edits flip edges around one node per lane; None for any other.

    Call it after reset. The target is the node that no cell of the lane's table joins two others without: the one site
    of a direct attack, and under influence the one node that no edit may touch.
    """
    context = env.context or {}
    if env.kind != "edits" or "edge_index" not in context or env.table.key != "pair":
        return None
    size, table = int(context["num_nodes"]), env.table
    if table.sites != size or table.choices != size:
        return None
    sites = table.site_mask()
    first = sites.to(torch.int8).argmax(1)
    touched = sites | table.choice_mask(first)
    direct = bool((sites.sum(1) == 1).all())
    if not direct and not bool(((~touched).sum(1) == 1).all()):
        return None  # edits anywhere: no lane has a target of its own
    target = first if direct else (~touched).to(torch.int8).argmax(1)
    return PublicGraph.of(size, context["edge_index"].to(target.device), target, direct=direct)


def target_graph(env, name: str) -> PublicGraph:
    """`public_graph`, or an error that says what the attack of that name plays."""
    graph = public_graph(env)
    if graph is None:
        raise AdvgymError(f"{name} flips edges around one node of a public graph: play tasks such as graph/sbm-edge")
    return graph


def node_features(env) -> Tensor | None:
    """Public features of all nodes, float32 (N, F), or None.

    Large graphs do not repeat them in the context; there they are read off the clean inputs, which
    `env.threat.apply` shows to anyone.
    """
    x = (env.context or {}).get("x")
    if x is None:
        x = getattr(getattr(env.threat.apply(env.threat.null()), "graph", None), "x", None)
    return None if x is None else x.to(env.device, torch.float32)


def known_labels(env, obs: dict) -> Tensor | None:
    """Labels that the attacker knows, int64 (N,), -1 for the others; None where the task publishes none.

    From `context["labels"]`, else from the last columns of `site_features`, which tell the class where it is known.
    """
    labels = (env.context or {}).get("labels")
    if labels is not None:
        known = torch.as_tensor(labels, device=env.device)
        return known if bool((known >= 0).any()) else None
    shown = obs.get("site_features")
    if shown is None or shown.shape[2] <= 6:
        return None
    one = shown[0, :, 6:]
    known = torch.where(one.sum(1) > 0, one.argmax(1), -1)
    return known if bool((known >= 0).any()) else None


def estimate_labels(graph: PublicGraph, x: Tensor | None, known: Tensor, ridge: float = 1.0) -> Tensor:
    """A class for every node, int64 (N,): known ones stay, the others by ridge regression on features sent two hops.

    The attacker's own linear surrogate (SGC: Wu et al. 2019) in closed form; it asks nobody. Without features every
    node is its own feature, which makes it label propagation.
    """
    train = (known >= 0).nonzero().squeeze(1)
    classes = int(known.max()) + 1
    scale = (graph.degree + 1).rsqrt().unsqueeze(1)

    def send(value: Tensor) -> Tensor:
        value = scale * value
        return scale * (value + graph.sum_neighbours(value))

    one = torch.nn.functional.one_hot(known[train], classes).float()
    if x is None:
        near = torch.zeros(graph.size, classes, device=known.device)
        near[train] = one
        score = send(send(near)) / send(send((known >= 0).float().unsqueeze(1))).clamp_min(1e-12)
    else:
        sent = send(send(x / x.sum(1, keepdim=True).clamp_min(1)))
        own = sent[train].double()
        gram = own @ own.T
        level = ridge * gram.diagonal().mean().clamp_min(1e-12)
        eye = torch.eye(len(train), dtype=gram.dtype, device=gram.device)
        dual = torch.linalg.solve(gram + level * eye, one.double() - one.double().mean(0))
        score = sent @ (own.T @ dual).float() + one.mean(0)
    return torch.where(known >= 0, known, score.argmax(1))


def add_first_valid(env, state: Tensor, edits: Tensor) -> Tensor:
    """`state` (lanes, E, 2) with the first of edits (lanes, k, 2) that is new and within the threat model.

    Lanes without one stay as they are.
    """
    lane = torch.arange(len(state), device=state.device)
    whole = env.threat.compose(state.unsqueeze(1).expand(-1, edits.shape[1], -1, -1), edits)
    more = (whole[..., 0] >= 0).sum(2) > (state[..., 0] >= 0).sum(1, keepdim=True)
    good = more & (edits[..., 0] >= 0) & env.threat.check(whole)
    return choose(good.any(1), whole[lane, good.to(torch.int8).argmax(1)], state)


def advance(env, state: Tensor, edits: Tensor) -> Tensor | None:
    """`state` with the first valid of edits (lanes, k, 2) in each lane, asked about, but not under transfer.

    None where no lane has one.
    """
    new = add_first_valid(env, state, edits)
    if torch.equal(new, state):
        return None
    if env.knowledge != "transfer" and not env.done:
        offer(env, new)
    return new


def best_pairs(graph: PublicGraph, source: Tensor, score: Tensor, k: int = 8) -> Tensor:
    """The k edits of highest score that flip source (lanes,) - any node: (lanes, k, 2), -1 where a score is -inf."""
    top, at = score.topk(min(k, score.shape[1]), 1)
    return graph.pair(source.unsqueeze(1), torch.where(top.isfinite(), at, -1))


def draw_source(graph: PublicGraph, u: Tensor) -> Tensor:
    """Where the next edge starts, int64 (lanes,): the target, or one of its neighbours by uniforms (lanes, N)."""
    if graph.direct:
        return graph.target
    return torch.where(graph.beside(graph.target), u, -1.0).argmax(1)


def offer(env, p: Tensor) -> dict:
    """Propose one perturbation per lane, whatever `env.proposals` is; returns the observation."""
    if env.proposals is not None:
        wide = env.threat.null().unsqueeze(1).repeat(1, env.proposals, 1, 1)
        wide[:, 0] = p
        p = wide
    return env.step(p)[0]


def play_blind(env, draw: Callable[[], Tensor], tries: int) -> Tensor:
    """`tries` sets (lanes, E, 2) that nothing but the public graph chose, each for one query; the last is handed in."""
    p = draw()
    for nth in range(tries):
        if env.done or env.knowledge == "transfer":  # the surrogate's answers would change nothing
            break
        p = draw() if nth else p
        offer(env, p)
    return p
