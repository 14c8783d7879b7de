"""Nettack: greedy edits by the exact margin of a linear surrogate, degrees kept plausible (Zuegner et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.search.exhaustive import every_edit, exact_step, on_top
from advgym.agents.shared.common import choose
from advgym.agents.shared.targets import PublicGraph, public_graph
from advgym.errors import AdvgymError
from advgym.lib.settings import COUNT

LEAST = 2  # degrees below this are no part of the power law
CUTOFF = 0.004  # of the likelihood-ratio statistic, chi-square with one degree of freedom at p = 0.95


@register_agent(
    "nettack",
    kind="edits",
    knowledge="transfer",
    proposals=256,
    needs=("flips", "target"),
    allowed={"influencers": COUNT},
)
def attack(env, *, unnoticeable=True, influencers=5, seed=0):
    """Edit by edit the one that raises the margin most, every candidate evaluated exactly (Zuegner et al. 2018).

    The paper's linear surrogate is the task's surrogate under transfer knowledge (an SGC on the embedded and the Cora
    tasks); with more knowledge the victim itself is asked. An edge is a candidate while the degrees with it and the
    clean ones pass as draws from one power law, and the budget of edits is always used up. Where queries are too few
    for every candidate, those of largest first-order gain are evaluated.

    Args:
        env: Edits that flip edges around a node of a public graph, or features; of those every cell is a candidate.
        unnoticeable: the test of degrees. (The paper's test of co-occurring features is not made: features have none.)
        influencers: where edits may not touch the target, how many of its neighbours they start from: those of lowest
            degree, where the paper takes those of best first edit.
        seed: unused, the attack draws nothing.
    """
    obs, _ = env.reset(seed=seed)
    if "objective" not in obs:
        raise AdvgymError("nettack reads scores: knowledge='transfer' has a surrogate's, 'score' and up the victim's")
    graph, state = public_graph(env), env.threat.null()
    if graph is None and (env.table.key != "cell" or "edge_index" not in (env.context or {})):
        raise AdvgymError("nettack flips edges around a node, or features: play graph/sbm-edge or graph/sbm-feature")
    left, steps = int(obs["queries_left"].min()) - 1, int(env.table.limit.max())
    white = env.knowledge in ("transfer", "white-box")
    edits = every_edit(env, 1 << 16) if graph is None or graph.direct else _around(graph, env, influencers)
    test = Degrees(graph, len(state)) if graph is not None and unnoticeable else None
    for nth in range(steps):
        share = left // (steps - nth)
        if env.done or share < 1:
            break
        some = edits
        if white and int((edits[..., 0] >= 0).sum(1).max()) > share:
            found, gains = env.rank(state, k=max(share - 1, 1))
            some, left, share = torch.where(gains.isfinite().unsqueeze(2), found, -1), left - 1, max(share - 1, 1)
        want = None if test is None else test.passes(some)
        value, after = exact_step(env, state, some, share, want)
        left -= share - after
        top, at = value.max(1)
        go = top.isfinite()
        if not bool(go.any()):
            break
        state = choose(go, on_top(env, state, some, at.unsqueeze(1))[:, 0], state)
        if test is not None:
            lane = torch.arange(len(at), device=at.device)
            test.take(torch.where(go.unsqueeze(1), some[lane, at], -1))
    return state


def _around(graph: PublicGraph, env, influencers: int) -> Tensor:
    """Every edit between the target's neighbours of lowest degree and any node but the target: (lanes, M, 2)."""
    near = graph.beside(graph.target)
    rank = torch.where(near, graph.degree, torch.inf)
    low, at = rank.topk(min(influencers, graph.size), 1, largest=False)
    source = torch.where(low.isfinite(), at, -1)
    every = torch.arange(graph.size, device=at.device)
    other = every.expand(len(at), source.shape[1], -1)
    here = source.unsqueeze(2)
    twice = (other.unsqueeze(3) == source.view(len(at), 1, 1, -1)).any(3) & (other < here)  # met from the other end
    closed = (here < 0) | (other == here) | (other == graph.target.view(-1, 1, 1)) | twice
    return graph.pair(here, torch.where(closed, -1, other)).flatten(1, 2)


class Degrees:
    """The likelihood-ratio test that clean and perturbed degrees follow one power law (Bessi 2015), as lanes edit.

    Attributes:
        degree: float32 (lanes, N), of the perturbed graphs.
        count, logs: float64 (lanes,), how many degrees are at least LEAST, and the sum of their logarithms.
    """

    def __init__(self, graph: PublicGraph, lanes: int) -> None:
        self.graph, self.degree = graph, graph.degree.expand(lanes, -1).clone()
        count, logs = _tail(graph.degree)
        self.clean = count.sum(), logs.sum()
        self.count, self.logs = (v.expand(lanes).clone() for v in self.clean)

    def statistic(self, edits: Tensor) -> Tensor:
        """Lambda after each of edits (lanes, M, 2) on top of those taken: float64 (lanes, M)."""
        count, logs = self._after(edits)
        n, s = self.clean
        both = log_likelihood(n + count, s + logs)
        return -2 * both + 2 * (log_likelihood(n, s) + log_likelihood(count, logs))

    def passes(self, edits: Tensor) -> Tensor:
        """Bool (lanes, M): edits that nobody would notice."""
        return self.statistic(edits) < CUTOFF

    def take(self, edit: Tensor) -> None:
        """Enter one edit per lane, int64 (lanes, 2); -1 for none."""
        self.count, self.logs = (v.squeeze(1) for v in self._after(edit.unsqueeze(1)))
        a, b = edit.clamp_min(0).unbind(1)
        change = self._change(edit.unsqueeze(1)).squeeze(1).to(self.degree.dtype)
        for end in (a, b):
            self.degree.scatter_add_(1, end.unsqueeze(1), change.unsqueeze(1))

    def _change(self, edits: Tensor) -> Tensor:
        """+1 for a new edge, -1 for one that goes, 0 for padding; an attack never flips a pair twice."""
        a, b = edits.clamp_min(0).unbind(2)
        return torch.where(edits[..., 0] >= 0, 1 - 2 * self.graph.has(a, b).long(), 0)

    def _after(self, edits: Tensor) -> tuple[Tensor, Tensor]:
        count, logs = self.count.unsqueeze(1), self.logs.unsqueeze(1)
        change = self._change(edits)
        for end in edits.clamp_min(0).unbind(2):
            before = self.degree.gather(1, end)
            (c0, s0), (c1, s1) = _tail(before), _tail(before + change)
            count, logs = count + c1 - c0, logs + s1 - s0
        return count, logs


def _tail(degree: Tensor) -> tuple[Tensor, Tensor]:
    """(1, log d) of degrees in the power law, 0 of others: float64."""
    inside = degree >= LEAST
    return inside.double(), torch.where(inside, degree.double().clamp_min(1).log(), 0.0)


def log_likelihood(count: Tensor, logs: Tensor) -> Tensor:
    """Of `count` degrees whose logarithms sum to `logs`, under their best power law from LEAST on: float64.

    With alpha = 1 + n / (S - n log(d_min - 1/2)): n log alpha + n alpha log d_min - (alpha + 1) S.
    """
    least = torch.tensor(float(LEAST), dtype=torch.float64)
    alpha = 1 + count / (logs - count * (least - 0.5).log()).clamp_min(1e-12)
    return count * alpha.log() + count * alpha * least.log() - (alpha + 1) * logs
