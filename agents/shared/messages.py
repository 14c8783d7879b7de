"""What flips of edges do to the scores of many nodes, learned from answers alone: a linear model of messages.

Every node v has a vector F_v that it sends and a vector H_v of its own. With the normalised adjacency Â' of the
perturbed graph (self-loops added; Kipf & Welling 2017) the scores of all nodes are

    Z = Â' (Â' F + H) + b

F, H and b know nothing of features or weights of the victim. A graph that answers for a hundred nodes gives a hundred
equations a class, so a few hundred graphs determine what matters; what the model cannot say (a ReLU, attention, a
defense) ends up in H near the sets that were asked last. The effect of one more flip has a closed form.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

WEIGHT = 1e-3  # of the penalty on F and H


class Messages:
    """The model of one lane.

    Attributes:
        size: nodes N; members: int64 (M,); ref: int64 (M,), their clean answers.
        place: int64 (N,), the index of a node among the members, -1 for others.
        sent, own: F and H, float (N, C); bias: b, (C,). In units of `scale`.
    """

    def __init__(self, edges: Tensor, size: int, members: Tensor, scores: Tensor, ref: Tensor) -> None:
        """`edges` int64 (2, m), both directions; `scores` (M, C) of the clean graph."""
        self.size, self.members, self.ref = size, members, ref
        device = members.device
        self.keys = (edges[0] * size + edges[1]).sort().values
        self.degree = torch.bincount(edges[0], minlength=size).float()
        self.place = torch.full((size,), -1, device=device)
        self.place[members] = torch.arange(len(members), device=device)
        self.scale = scores.std().clamp_min(1e-6)
        classes = scores.shape[1]
        self.sent = torch.zeros(size, classes, device=device, requires_grad=True)
        self.own = torch.zeros(size, classes, device=device, requires_grad=True)
        self.bias = (scores.mean(0) / self.scale).clone().requires_grad_()
        self._adam = torch.optim.Adam([self.sent, self.own, self.bias])
        self._matrix = matrix(self.keys, size)

    def has(self, a: Tensor, b: Tensor) -> Tensor:
        """Whether the clean graph has the edges a - b."""
        return among(a * self.size + b, self.keys)

    def scores(self, genes: Tensor) -> Tensor:
        """What the model says of n sets of flips, int64 keys (n, E), -1 for none: (n, M, C), in units of `scale`."""
        n, size = len(genes), self.size
        row, e = (genes >= 0).nonzero(as_tuple=True)
        a, b = genes[row, e] // size, genes[row, e] % size
        change = 1 - 2 * self.has(a, b).float()
        to, come = torch.cat([a * n + row, b * n + row]), torch.cat([b * n + row, a * n + row])
        change = torch.cat([change, change])
        degree = self.degree.repeat_interleave(n).index_add(0, to, change).view(size, n, 1)
        root = (degree + 1).rsqrt()

        def propagate(h: Tensor) -> Tensor:
            h = root * h
            flat = h.reshape(size * n, -1)
            out = (self._matrix @ h.reshape(size, -1)).view(size * n, -1)
            out = out.index_add(0, to, change.unsqueeze(1) * flat.index_select(0, come))
            return root * (out.view(h.shape) + h)

        hidden = propagate(self.sent.unsqueeze(1)) + self.own.unsqueeze(1)
        return (propagate(hidden) + self.bias)[self.members].transpose(0, 1)

    def learn(self, genes: Tensor, scores: Tensor, rate: float) -> float:
        """One step of Adam towards the answers (n, M, C) to sets (n, E); returns the mean squared error before it."""
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.zero_grad()
        with torch.enable_grad():
            error = (self.scores(genes) - scores / self.scale).square().mean()
            (error + WEIGHT * (self.sent.square().mean() + self.own.square().mean())).backward()
        self._adam.step()
        return float(error.detach())

    def at(self, genes: Tensor) -> State:
        """The model at one set of flips, int64 (E,)."""
        return State(self, genes)


class State:
    """The propagation model at one perturbed graph, and what one more flip does there."""

    def __init__(self, model: Messages, genes: Tensor) -> None:
        size, flips = model.size, genes[genes >= 0]
        self.model, self.held = model, flips
        both = torch.cat([flips, flips % size * size + flips // size])
        old = among(both, model.keys)
        kept = model.keys[~among(model.keys, both.sort().values)]
        self.keys = torch.cat([kept, both[~old]]).sort().values
        self.source, self.target = self.keys // size, self.keys % size
        adjacency = matrix(self.keys, size)
        degree = torch.bincount(self.source, minlength=size)
        self.count, self.start = degree, degree.cumsum(0) - degree
        self.up, self.down = (degree + 2.0).rsqrt().unsqueeze(1), degree.clamp_min(1).float().rsqrt().unsqueeze(1)
        self.root = root = (degree + 1.0).rsqrt().unsqueeze(1)
        self.adjacency, self.sent, self.own = adjacency, model.sent.detach(), model.own.detach()
        self.out = root * self.sent  # what a node sends in the first sum
        self.total = adjacency @ self.out + self.out
        self.relay = root * (root * self.total + self.own)  # and in the second
        self.second = adjacency @ self.relay + self.relay
        self.around = adjacency @ (root * root)

    @property
    def scores(self) -> Tensor:
        """The members' scores, (M, C), in units of `scale`."""
        who = self.model.members
        return self.root[who] * self.second[who] + self.model.bias.detach()

    def flip(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of n flips a - b: (a's scores after it, the change of what a relays, of what b relays), (n, C) each.

        Exact but for common neighbours of a and b.
        """
        gone = among(a * self.model.size + b, self.keys).unsqueeze(1)
        root_a, root_b = torch.where(gone, self.down[a], self.up[a]), torch.where(gone, self.down[b], self.up[b])
        from_b = torch.where(gone, -self.out[b], root_b * self.sent[b])
        from_a = torch.where(gone, -self.out[a], root_a * self.sent[a])
        less_a, less_b = root_a - self.root[a], root_b - self.root[b]
        new_a = root_a * (root_a * (self.total[a] + less_a * self.sent[a] + from_b) + self.own[a])
        new_b = root_b * (root_b * (self.total[b] + less_b * self.sent[b] + from_a) + self.own[b])
        around = self.around[a] - torch.where(gone, self.root[b].square(), 0.0)
        come = torch.where(gone, -self.relay[b], new_b)
        second = self.second[a] + new_a - self.relay[a] + come + around * less_a * self.sent[a]
        return root_a * second + self.model.bias.detach(), new_a - self.relay[a], new_b - self.relay[b]

    def beside(self, node: Tensor, other: Tensor, change: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How members next to `node` change when it flips an edge to `other` and relays `change` (n, C) more.

        Returns:
            (flip, index of the member, change of its scores (m, C)).
        """
        count = self.count[node]
        flip = torch.repeat_interleave(torch.arange(len(node), device=node.device), count)
        nth = torch.arange(len(flip), device=node.device) - (count.cumsum(0) - count)[flip] + self.start[node][flip]
        near = self.target[nth]
        who = self.model.place[near]
        real = (who >= 0) & (near != other[flip])
        flip, near, who = flip[real], near[real], who[real]
        a, root = node[flip], self.root[near]
        gone = among(a * self.model.size + other[flip], self.keys).unsqueeze(1)
        less = torch.where(gone, self.down[a], self.up[a]) - self.root[a]
        return flip, who, root * (change[flip] + root.square() * less * self.sent[a])


def among(value: Tensor, ascending: Tensor) -> Tensor:
    """Whether values are among ascending ones."""
    if not len(ascending):
        return torch.zeros_like(value, dtype=torch.bool)
    at = torch.searchsorted(ascending, value.contiguous()).clamp_max(len(ascending) - 1)
    return ascending[at] == value


def matrix(keys: Tensor, size: int) -> Tensor:
    """Ones at ascending keys a * size + b, as a sparse matrix."""
    start = torch.searchsorted(keys, torch.arange(size + 1, device=keys.device) * size)
    ones = torch.ones(len(keys), device=keys.device)
    with torch.sparse.check_sparse_tensor_invariants(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(start, keys % size, ones, (size, size))
