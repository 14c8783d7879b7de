"""Meta-gradients of an attacker's own network: what one more flip does to a whole training run on a public graph.

The network is Metattack's, softmax(A_hat A_hat X W1 W2), fitted by momentum descent without chance (Zuegner &
Guennemann 2019). Descent never leaves W1 = W1_0 + Z_train' B, so with K = Z Z_train' and R = Z W1_0, Z = A_hat A_hat X,
a run is R + K B: small matrices, whatever the features. With G the gradient by Z and Q = G X', that by A_hat is
A_hat' Q + Q A_hat', which two sparse products give for all pairs of nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core import rng

LOSSES = ("self", "train", "both")
GRADIENTS = ("exact", "sum", "last")


@dataclass(frozen=True)
class Recipe:
    """Of the descent: steps, their size, momentum, hidden units, and the seed of the first weights."""

    steps: int = 100
    rate: float = 0.1
    momentum: float = 0.9
    hidden: int = 16
    seed: int = 0


class Meta:
    """The network and its training on one graph with some flips.

    Args:
        adjacency: (N, N) of the clean graph, 0 and 1, symmetric, no loops; its dtype is computed in.
        x: (N, F) features.
        known: int64 (N,) labels that the attacker has, -1 for the others.
    """

    def __init__(self, adjacency: Tensor, x: Tensor, known: Tensor, recipe: Recipe) -> None:
        dtype, device = adjacency.dtype, adjacency.device
        self.clean, self.recipe, self.known = adjacency, recipe, known
        self.train = (known >= 0).nonzero()[:, 0]
        self.x, classes = x.to(dtype), int(known.max()) + 1
        with torch.sparse.check_sparse_tensor_invariants(False):
            self.words = self.x.to_sparse_csr()
        self.truth = F.one_hot(known[self.train], classes).to(dtype)
        key = torch.tensor([recipe.seed], device=device)
        shapes = (x.shape[1], recipe.hidden), (recipe.hidden, classes)
        self.first, self.second = (
            ((rng.uniform(0, key, s, 54 + i)[0] * 2 - 1) * (6 / sum(s)) ** 0.5).to(dtype) for i, s in enumerate(shapes)
        )
        self.length = 1.0
        z = self._sent(adjacency)[2]
        self.length = max(float(z[self.train].norm(dim=1).mean()), 1e-12)
        guess = self._along(*self._small(z / self.length))[-1].argmax(1)
        self.labels = torch.where(known >= 0, known, guess)  # the self-training labels of the paper

    def _sent(self, adjacency: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(A_hat as a sparse matrix, d^-1/2 (N,), Z (N, F) with training rows of length 1 on average when clean)."""
        full = adjacency + torch.eye(len(adjacency), dtype=adjacency.dtype, device=adjacency.device)
        scale = full.sum(1).rsqrt()
        with torch.sparse.check_sparse_tensor_invariants(False):
            hat = (scale.unsqueeze(1) * full * scale).to_sparse_csr()
        return hat, scale, hat @ (hat @ self.x) / self.length

    def _small(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(K, R) of Z."""
        return z @ z[self.train].T, z @ self.first

    def _along(self, k: Tensor, r: Tensor, *, part: str = "exact") -> list[Tensor]:
        """Scores (N, C) of all nodes after each step, of which "exact" keeps the last; graphs as `part` asks."""
        recipe, second = self.recipe, self.second
        near, start = k[self.train], r[self.train]
        if part != "exact":
            near, start = near.detach(), start.detach()
        b, fast, found = torch.zeros_like(start), [torch.zeros_like(start), torch.zeros_like(second)], []
        for step in range(recipe.steps):
            read = start + near @ b
            error = (torch.softmax(read @ second, 1) - self.truth) / len(self.train)
            slopes = error @ second.T, read.T @ error
            fast = [recipe.momentum * v + g for v, g in zip(fast, slopes, strict=True)]
            b, second = b - recipe.rate * fast[0], second - recipe.rate * fast[1]
            if part == "sum" or step == recipe.steps - 1:
                found.append((r + k @ b) @ second)
        return found

    def loss(self, scores: Tensor, loss: str) -> Tensor:
        """What the attacker drives up: "self" of unlabelled nodes, "train" of labelled ones, or the mean of "both"."""
        parts = []
        if loss != "train":
            parts.append(F.cross_entropy(scores[self.known < 0], self.labels[self.known < 0]))
        if loss != "self":
            parts.append(F.cross_entropy(scores[self.train], self.known[self.train]))
        return torch.stack(parts).mean()

    def gains(self, adjacency: Tensor, *, loss: str = "self", gradient: str = "exact") -> Tensor:
        """First-order gain of one more flip of every pair of nodes, (N, N), symmetric; the diagonal means nothing.

        Args:
            adjacency: (N, N) after the flips so far.
            loss: one of LOSSES.
            gradient: "exact" goes through all steps of the training (Meta-Self, Meta-Train); "sum" adds up, over the
                steps, the gradients with the weights of that step held (A-Meta, eq. 10); "last" is that of the last
                step alone (eq. 9).
        """
        hat, scale, z = self._sent(adjacency)
        k, r = (v.requires_grad_() for v in self._small(z))
        along = self._along(k, r, part=gradient)
        by_k, by_r = torch.autograd.grad(torch.stack([self.loss(s, loss) for s in along]).sum(), (k, r))
        by_z = by_k @ z[self.train] + by_r @ self.first.T
        if gradient == "exact":  # else the weights, and with them their training rows, are held
            by_z.index_add_(0, self.train, by_k.T @ z)
        q = (self.words @ (by_z / self.length).T.contiguous()).T.contiguous()
        p = hat @ q + (hat @ q.T.contiguous()).T
        both = p + p.T
        node, other = adjacency.nonzero(as_tuple=True)
        by_scale = both.diagonal() * scale
        by_scale = by_scale.index_add(0, node, both[node, other] * scale[other])
        by_degree = -0.5 * scale**3 * by_scale
        slope = scale.unsqueeze(1) * both * scale + by_degree.unsqueeze(1) + by_degree
        return slope * (1 - 2 * adjacency)
