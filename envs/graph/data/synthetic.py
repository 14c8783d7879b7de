"""Generated graphs of any size: stochastic block models without a table of all pairs."""

from __future__ import annotations

import numpy as np
import torch

from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.inputs.graphs import Graph
from advgym.errors import DataError


def sparse_sbm(
    size: int, edges: int, blocks: int = 8, inside: float = 0.8, features: int = 32, on: float = 0.2,
    noise: float = 0.1, train: float = 0.1, seed: int = 7,
) -> NodeData:  # fmt: skip
    """A stochastic block model with binary features, in time and memory of its edges; synthetic.

    Args:
        size: nodes; edges: undirected edges, exactly.
        inside: the share of edges within a block; the rest joins two different ones.
        on, noise: chances of a feature in nodes of the block that owns it, and in others.
        train: the share of nodes with known labels; the rest is for testing.

    Raises:
        DataError: for more edges than half of all pairs.
    """
    if not 0 <= edges <= size * (size - 1) // 4:
        raise DataError(f"{edges} edges among {size} nodes: at most {size * (size - 1) // 4}, half of all pairs")
    rng = np.random.default_rng(seed)
    label = np.sort(np.arange(size) % blocks)
    start = np.searchsorted(label, np.arange(blocks + 1))
    keys = np.empty(0, dtype=np.int64)
    while len(keys) < edges:
        many = int((edges - len(keys)) * 1.1) + 16
        a = rng.integers(0, size, many)
        own = rng.random(many) < inside
        near = start[label[a]] + (rng.random(many) * (start[label[a] + 1] - start[label[a]])).astype(np.int64)
        b = np.where(own, near, rng.integers(0, size, many))
        keep = (a != b) & (own | (label[a] != label[b]))
        low, high = np.minimum(a, b)[keep], np.maximum(a, b)[keep]
        _, first = np.unique(np.concatenate([keys, low * size + high]), return_index=True)
        keys = np.concatenate([keys, low * size + high])[np.sort(first)]  # in the order drawn
    keys = keys[:edges]
    pairs = torch.from_numpy(np.stack([keys // size, keys % size], 1))
    owner = np.arange(features) % blocks
    chance = np.where(owner[None, :] == label[:, None], on, noise).astype(np.float32)
    x = torch.from_numpy((rng.random((size, features), dtype=np.float32) < chance).astype(np.float32))
    order = torch.from_numpy(rng.permutation(size))
    cut = int(train * size)
    nodes = {"train": order[:cut].sort().values, "test": order[cut:].sort().values}
    names = [f"block {b}" for b in range(blocks)]
    return NodeData(Graph(size, pairs, x), torch.from_numpy(label.astype(np.int64)), blocks, nodes, names)
