"""The first-order gain of every candidate edge, by dot products instead of candidate edges in the forward pass.

For a pair (a, b) of a two-layer model, with M the messages, G the cotangent of the pre-activations, gamma that of the
pooled activations and c the degree factors,

    dL/dA_ab = c_a c_b (gamma . act_b [a is the target] + G_a . M_b + G_b . M_a) + g_a + g_b

where g is the derivative by the degree. One clean backward serves all pairs: nothing of size N x N is ever made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgym.envs.graph.models.two_hop import Pass

PAIRS = 1 << 20  # entries of two-hop gathers held at once


class PairProbe(torch.autograd.Function):
    """Identity on the scores; its backward gives the probe (n, G, N) the derivative by each pair's adjacency."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, probe: Tensor, done: Pass) -> Tensor:
        ctx.done = done
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        with torch.no_grad():
            gains = pair_gradients(ctx.done, cotangent) if ctx.needs_input_grad[1] else None
        return cotangent, gains, None


def pair_gradients(done: Pass, cotangent: Tensor) -> Tensor:
    """Derivatives by the adjacency of every (probe node, node), float (n, G, N).

    Pairs that hold the target are covered where the target is the probe node.
    """
    rows, t, w = done.rows, done.tables, done.weights
    graph, v, dtype = rows.graph, rows.target, cotangent.dtype
    n, size, width = len(rows), graph.size, done.touched.shape[1]
    lane = torch.arange(n, device=v.device)
    gamma = cotangent @ w.w2.T
    c = t.scale.expand(n, size).clone()
    d_row, d_col = done.on.nonzero(as_tuple=True)
    d_node = done.node[d_row, d_col]
    c[d_row, d_node] = done.scale[d_row, d_col]
    c_v = done.scale[:, 0]
    # All (row, node) that feed the target: first D, then its other neighbours.
    row = torch.cat([d_row, done.owner])
    node = torch.cat([d_node, done.near])
    link = torch.cat([done.new[d_row, 0, d_col], (done.near_weight > 0).to(dtype)])
    act = torch.cat([done.act[d_row, d_col], done.near_act])
    hidden = torch.cat([done.hidden[d_row, d_col], done.near_hidden])
    to_d = torch.cat([done.new[d_row, d_col], done.near_adjacent])  # A' + I from each to the nodes of D
    feeds = link != 0
    row, node, link, act, hidden, to_d = (z[feeds] for z in (row, node, link, act, hidden, to_d))
    own = c[row, node]
    answer = (gamma[row] * act).sum(1)
    g_hidden = (c_v[row] * link * own).unsqueeze(1) * (gamma[row] * (hidden > 0) if w.relu else gamma[row])
    # dL/dc, then dL/d(degree).
    g_scale = torch.zeros(n, size, dtype=dtype, device=v.device)
    g_scale[lane, v] += (gamma * done.pooled).sum(1)
    g_scale.index_put_((row, node), c_v[row] * link * answer, accumulate=True)
    g_scale.index_put_((row, node), (g_hidden * (hidden - w.b1)).sum(1) / own, accumulate=True)
    sends = own.unsqueeze(1) * g_hidden
    _two_hop(g_scale, done, row, node, sends)
    for j in range(width):
        value = to_d[:, j] * (sends * done.message[row, j]).sum(1) * done.on[row, j]
        g_scale.index_put_((row, done.node[row, j]), value, accumulate=True)
    g_degree = -0.5 * g_scale * c**3

    probes = rows.probe_nodes
    assert probes is not None
    at = probes.clamp_min(0)
    where = torch.full((n, size), -1, dtype=torch.int64, device=v.device)
    where[row, node] = torch.arange(len(row), device=v.device)
    place = where.gather(1, at)
    g_at = torch.where((place >= 0).unsqueeze(2), g_hidden[place.clamp_min(0)], 0.0)  # G of the probe nodes
    message_at = t.message[at]
    out = g_at @ t.message.T  # G_a . M_b
    if rows.cells is not None:  # messages of D that features moved
        for j in range(width):
            on, col = done.on[:, j], done.node[:, j]
            message_at = torch.where(
                ((at == col.unsqueeze(1)) & on.unsqueeze(1)).unsqueeze(2), done.message[:, j].unsqueeze(1), message_at
            )
            moved = (g_at @ done.message[:, j].unsqueeze(2)).squeeze(2)
            out[lane[on], :, col[on]] = moved[on]
    back = (g_hidden.unsqueeze(1) * message_at[row]).sum(2)  # G_b . M_a, nonzero only where b feeds the target
    spread = torch.zeros(n, size, at.shape[1], dtype=dtype, device=v.device)
    spread.index_put_((row, node), back, accumulate=True)
    out += spread.transpose(1, 2)
    out += (at == v.unsqueeze(1)).unsqueeze(2) * _answers(done, gamma).unsqueeze(1)
    out *= c.gather(1, at).unsqueeze(2) * c.unsqueeze(1)
    out += g_degree.gather(1, at).unsqueeze(2) + g_degree.unsqueeze(1)
    return out * (probes >= 0).unsqueeze(2)


def _two_hop(g_scale: Tensor, done: Pass, row: Tensor, node: Tensor, sends: Tensor) -> None:
    """Add to dL/dc what reaches it through clean edges of the feeding nodes to nodes outside D."""
    graph, t = done.rows.graph, done.tables
    total = graph.count[node].cumsum(0)
    if not len(total):
        return
    part = ((total - graph.count[node]) // PAIRS).cpu()
    sizes = torch.unique_consecutive(part, return_counts=True)[1].tolist()
    for r, u, s in zip(row.split(sizes), node.split(sizes), sends.split(sizes), strict=True):
        owner, far = graph.neighbours(u)
        outside = ~(done.touched[r[owner]] == far.unsqueeze(1)).any(1)
        value = (s[owner] * t.message[far]).sum(1) * outside
        g_scale.index_put_((r[owner], far), value, accumulate=True)
        # The node's own loop, where it is outside D.
        alone = ~(done.touched[r] == u.unsqueeze(1)).any(1)
        g_scale.index_put_((r, u), (s * t.message[u]).sum(1) * alone, accumulate=True)


def _answers(done: Pass, gamma: Tensor) -> Tensor:
    """Gamma . act_b of every node b in each row's perturbed graph, (n, N)."""
    graph, t, w = done.rows.graph, done.tables, done.weights
    clean = t.scale.unsqueeze(1) * t.summed + w.b1
    out = gamma @ (torch.relu(clean) if w.relu else clean).T
    # Nodes beside D move with it, then D itself.
    d_row, d_col = done.on.nonzero(as_tuple=True)
    owner, near = graph.neighbours(done.node[d_row, d_col])
    pairs = (d_row[owner] * graph.size + near).unique()
    row, node = pairs // graph.size, pairs % graph.size
    for r, u in zip(row.split(PAIRS // 16), node.split(PAIRS // 16), strict=True):
        hidden, _ = done._elsewhere(r, u)
        out[r, u] = (gamma[r] * (torch.relu(hidden) if w.relu else hidden)).sum(1)
    out[d_row, done.node[d_row, d_col]] = (gamma[d_row] * done.act[d_row, d_col]).sum(1)
    return out
