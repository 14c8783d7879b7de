"""Cora-ML (Bojchevski & Guennemann 2018) in the inductive splits of Gosch et al. (2023) and EvA (2026)."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from advgym.core import rng
from advgym.envs.graph.data.folders import data_folder
from advgym.envs.graph.data.interchange import read_npz
from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.inputs.graphs import Graph, check_features, content_hash
from advgym.errors import DataError

CORA_ML_SHA256 = "94fe12c2d5ee8054ab219916ea092d6285f51a80975a13d631301163195e094b"  # of edges, features and labels
PER_CLASS, SHARE = 20, 0.1
_SPELLING = re.compile(r"cora-ml(?:#([0-9]{1,9}))?")


def load(name: str) -> NodeData:
    """Cora-ML in an inductive split: "cora-ml" or "cora-ml#SPLIT", a number that the split is drawn by (0 without).

    Raises:
        DataError: for another spelling, or files that are missing or not the public ones.
    """
    found = _SPELLING.fullmatch(name)
    if found is None:
        raise DataError(f"the inductive splits of Cora-ML are spelled cora-ml#0, cora-ml#1, ..., not {name!r}")
    path = data_folder("cora-ml", "graph", "npz", "cora_ml.npz")
    size, pairs, x, labels = read_npz(path, largest_component=True)
    if x is None:
        raise DataError(f"{path} holds no features (attr_*)")
    graph = Graph(size, pairs, check_features(x))
    if (digest := content_hash(graph, labels)) != CORA_ML_SHA256:
        raise DataError(f"{path} is not the public Cora-ML (SHA-256 of its content {digest[:12]}...)")
    return NodeData(graph, labels, int(labels.max()) + 1, split(labels, int(found[1] or 0)))


def split(labels: Tensor, seed: int, per_class: int = PER_CLASS, share: float = SHARE) -> dict[str, Tensor]:
    """Disjoint node ids, each list ascending: `per_class` of each class for "train" and "val", "test" by shares.

    Of the test nodes every class gets its part of `share` of all labelled nodes, rounded to the nearest whole node.

    Raises:
        DataError: where a class has too few nodes.
    """
    parts: dict[str, list[Tensor]] = {"train": [], "val": [], "test": []}
    for label in sorted(set(labels[labels >= 0].tolist())):
        nodes = (labels == label).nonzero()[:, 0]
        tested = round(share * len(nodes))
        if len(nodes) < 2 * per_class + tested:
            raise DataError(f"class {label} has {len(nodes)} nodes; the split needs {2 * per_class + tested} of it")
        drawn = nodes[rng.bits(seed, nodes, stream=46).argsort()]
        for name, part in zip(parts, drawn.split([per_class, per_class, len(nodes) - 2 * per_class]), strict=True):
            parts[name].append(part[:tested] if name == "test" else part)
    return {name: torch.cat(part).sort().values for name, part in parts.items()}
