"""Graph datasets: embedded (karate club, stochastic block models) and real (Planetoid, MUTAG, PROTEINS)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advgym.envs.graph.data import cora_ml
from advgym.envs.graph.data.files import KINDS, is_file, read_nodes
from advgym.envs.graph.data.folders import data_folder
from advgym.envs.graph.data.labelled import NodeData, WholeData, halves
from advgym.envs.graph.inputs.graphs import Graph, check_features, check_pairs
from advgym.errors import DataError, unknown
from advgym.lib.content import stamp
from advgym.lib.drawn import SPLIT, read_drawn
from advgym.lib.weights import data_dir

CORA = ["theory", "reinforcement learning", "genetic algorithms", "neural networks", "probabilistic methods",
        "case based", "rule learning"]  # fmt: skip
# The public files, so that a damaged or foreign copy is refused before its pickles are opened.
CORA_SHA256 = "0ce1f9117972bdd087a19062d3decca8abfdfef042468c282c2b977642e057dd"
PROTEINS_LARGEST = 128


# -- embedded -------------------------------------------------------------------------------------------------------
def karate() -> NodeData:
    """Zachary's karate club (1977) with PyG's four communities; every other node of each class is for training."""
    from torch_geometric.datasets import KarateClub

    data = KarateClub()[0]
    graph = Graph(34, check_pairs(data.edge_index, 34), data.x.to(torch.float32))
    return NodeData(graph, data.y, 4, halves(data.y), [f"community {c}" for c in "ABCD"])


def sbm(
    size: int = 300, blocks: int = 3, features: int = 48, inside: float = 0.04, outside: float = 0.006,
    on: float = 0.2, noise: float = 0.1, seed: int = 7,
) -> NodeData:  # fmt: skip
    """A stochastic block model with binary features; synthetic.

    Edges appear with probability `inside` within a block and `outside` between blocks; a feature is on with
    probability `on` for nodes of the block that owns it and `noise` for others. A fifth of each block trains.
    """
    rng = np.random.default_rng(seed)
    label = np.sort(np.arange(size) % blocks)
    same = label[:, None] == label[None, :]
    draw = np.triu(rng.random((size, size)), 1)
    edge = np.triu(draw < np.where(same, inside, outside), 1)
    owner = np.arange(features) % blocks
    x = rng.random((size, features)) < np.where(owner[None, :] == label[:, None], on, noise)
    pairs = torch.from_numpy(np.argwhere(edge).astype(np.int64))
    labels = torch.from_numpy(label.astype(np.int64))
    graph = Graph(size, pairs, torch.from_numpy(x.astype(np.float32)))
    order = torch.from_numpy(rng.permutation(size))
    rank = (labels[order].unsqueeze(1) == torch.arange(blocks)).cumsum(0).gather(1, labels[order].unsqueeze(1))[:, 0]
    train = order[rank <= size // blocks // 5].sort().values
    test = torch.tensor(sorted(set(range(size)) - set(train.tolist())))
    return NodeData(graph, labels, blocks, {"train": train, "test": test}, [f"block {b}" for b in range(blocks)])


def drawn_sbm(seed: int, count: int) -> NodeData:
    """Another graph of the same model; `count` of its test nodes, in a drawn order, are the split "hidden"."""
    data = sbm(seed=seed)
    test = data.nodes["test"]
    if count > len(test):
        raise DataError(f"a graph of 'sbm' has {len(test)} test nodes; {count} are more")
    order = torch.from_numpy(np.random.default_rng([1, seed]).permutation(len(test)))
    return replace(data, nodes={**data.nodes, SPLIT: test[order[:count]]})


# -- real -----------------------------------------------------------------------------------------------------------


def planetoid(folder: Path, name: str, sha256: str | None = None) -> NodeData:
    """A Planetoid citation graph (Sen et al. 2008) in the public split (Yang et al. 2016).

    Features keep their values. Where all are 0 or 1 (words of a bag, as in Cora and CiteSeer) a model sees each row
    divided by its sum, as is the custom; weighted ones (the TF-IDF of PubMed) it sees as they are.

    The raw files are pickles: they are opened by PyG's own reader, and for a known dataset only when their hash is the
    published files'.
    """
    from torch_geometric.io import read_planetoid_data

    suffixes = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
    found = hashlib.sha256()
    for suffix in suffixes:
        path = folder / f"ind.{name}.{suffix}"
        if not path.is_file():
            raise DataError(f"no file {path}: the raw Planetoid files of {name!r} belong there")
        found.update(path.read_bytes())
    if sha256 is not None and found.hexdigest() != sha256:
        raise DataError(
            f"the files {folder}/ind.{name}.* are not the public ones (SHA-256 {found.hexdigest()[:12]}...)"
        )
    try:
        data = read_planetoid_data(str(folder), name)
    except Exception as error:  # a foreign pickle may raise anything
        raise DataError(f"{folder} does not hold Planetoid files of {name!r}: {error}") from None
    x, labels = check_features(data.x), data.y
    binary = bool(((x == 0) | (x == 1)).all())
    graph = Graph(len(x), check_pairs(data.edge_index, len(x)), x, row_norm=binary)
    nodes = {s: getattr(data, f"{s}_mask").nonzero()[:, 0] for s in ("train", "val", "test")}
    notes = ("a model sees each row of features, which are 0 and 1, divided by its sum",) if binary else ()
    return NodeData(graph, labels, int(labels.max()) + 1, nodes, CORA if name == "cora" else None, notes)


def read_wholes(path: Path, largest: int | None = None) -> WholeData:
    """Graphs from a text file: their number, then for each `n label` and n lines `tag m neighbour_1 ... neighbour_m`.

    What follows the neighbours on a line (attributes) is not read. Every fifth graph of each class is for testing.

    Args:
        path: the file.
        largest: graphs of more nodes are left out, before they are split: adjacencies are stored padded.
    """

    def whole(line: str) -> list[int]:
        words = line.split()
        return [int(v) for v in (words[: 2 + max(int(words[1]), 0)] if len(words) > 1 else words)]

    try:
        text = [line for line in path.read_text().splitlines() if line.strip()]
        numbers, words = [whole(line) for line in text], [len(line.split()) for line in text]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; tasks on 'karate' and 'sbm' need no files") from None
    except ValueError as error:
        raise DataError(f"{path} is not a file of graphs: {error}") from None
    graphs: list[tuple[int, list[int], list[tuple[int, int]]]] = []
    more = False
    try:
        at = 1
        for g in range(numbers[0][0]):
            n, label = numbers[at]
            lines = numbers[at + 1 : at + 1 + n]
            more = more or any(words[at + 1 + i] > len(line) for i, line in enumerate(lines))
            if len(lines) != n:
                raise DataError(f"{path} ends inside graph {g}")
            edges = [(i, j) for i, line in enumerate(lines) for j in line[2 : 2 + line[1]]]
            try:
                check_pairs(torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T, n)
            except DataError as error:
                raise DataError(f"{path}, graph {g}: {error}") from None
            if largest is None or n <= largest:
                graphs.append((label, [line[0] for line in lines], edges))
            at += 1 + n
    except (IndexError, ValueError):
        raise DataError(f"{path} is not a file of graphs: line {at + 1} is not 'nodes label'") from None
    if not graphs:
        raise DataError(f"{path} holds no graph" + ("" if largest is None else f" of at most {largest} nodes"))
    tags = sorted({t for _, ts, _ in graphs for t in ts})
    names = sorted({label for label, _, _ in graphs})
    most = max(len(ts) for _, ts, _ in graphs)
    x, adjacency = torch.zeros(len(graphs), most, len(tags)), torch.zeros(len(graphs), most, most)
    for g, (_, ts, edges) in enumerate(graphs):
        x[g, torch.arange(len(ts)), torch.tensor([tags.index(t) for t in ts])] = 1.0
        if edges:
            i, j = torch.tensor(edges).T
            adjacency[g, i, j] = 1.0
    labels = torch.tensor([names.index(label) for label, _, _ in graphs])
    count = torch.tensor([len(ts) for _, ts, _ in graphs])
    rank = torch.zeros_like(labels)
    for label in range(len(names)):
        own = labels == label
        rank[own] = torch.arange(int(own.sum()))
    test = rank % 5 == 4
    split = {"train": (~test).nonzero()[:, 0], "test": test.nonzero()[:, 0]}
    class_names = ["not mutagenic", "mutagenic"] if path.stem == "MUTAG" else [f"class {v}" for v in names]
    notes = ["attributes behind the neighbours of a node are not read"] if more else []
    if len(graphs) < numbers[0][0]:
        notes.append(f"{numbers[0][0] - len(graphs)} graphs have more than {largest} nodes: left out")
    return WholeData(x, adjacency, count, labels, len(names), split, class_names, tuple(notes))


def load_nodes(name: str) -> NodeData:
    """A node classification dataset: "karate", "sbm", "cora", a folder of raw Planetoid files, or one file of a graph.

    "sbm#SEED:COUNT" is another graph of the same model, with the split "hidden" besides; `files.read_nodes` says which
    files. Kept while name and files stay the same.
    """
    files = re.split(r"[?&]|=", name)  # of a path with options, see `files.read_nodes`
    return _load_nodes(name, tuple(stamp(part) for part in files if "/" in part or "." in part), data_dir())


@lru_cache(maxsize=8)
def _load_nodes(name: str, written: tuple[Any, ...], root: Path | None) -> NodeData:
    if name == "cora-ml" or name.startswith("cora-ml#"):
        return cora_ml.load(name)
    drawn = read_drawn(name)
    if drawn and drawn.name == "sbm":
        return drawn_sbm(drawn.seed, drawn.count)
    if name == "karate":
        return karate()
    if name == "sbm":
        return sbm()
    if name == "cora":
        return planetoid(data_folder(name, "graph", "planetoid", "Cora", "raw"), "cora", CORA_SHA256)
    found = Path(name)
    if found.is_dir():
        raw = found / "raw" if (found / "raw").is_dir() else found
        stems = sorted({p.name.split(".")[1] for p in raw.glob("ind.*.x")})
        if len(stems) != 1:
            raise DataError(f"{raw} holds no Planetoid dataset (ind.NAME.x and its seven companions)")
        return planetoid(raw, stems[0])
    if is_file(name):
        return read_nodes(name)
    ways = f"a folder of raw Planetoid files, or one file of a graph ({', '.join(KINDS)})"
    if "/" in name:
        raise DataError(f"no such file or folder: {name}. A dataset's path is {ways}")
    raise unknown("dataset", name, ["karate", "sbm", "cora"], f"A path works too: {ways}.")


def load_wholes(name: str) -> WholeData:
    """A graph classification dataset by name or path; kept while name and file stay the same."""
    return _load_wholes(name, stamp(name), data_dir())


@lru_cache(maxsize=4)
def _load_wholes(name: str, written: tuple[Any, ...], root: Path | None) -> WholeData:
    """A graph classification dataset: "mutag", "proteins", or the path of a text file of graphs.

    Of "proteins" (Borgwardt et al. 2005), 1,113 graphs of up to 620 nodes, the 1,070 of at most 128 nodes are kept:
    every adjacency is padded to the largest.
    """
    if name == "mutag":
        return read_wholes(data_folder(name, "graph", "mutag", "MUTAG.txt"))
    if name == "proteins":
        return read_wholes(data_folder(name, "graph", "mutag", "PROTEINS.txt"), PROTEINS_LARGEST)
    if "/" in name or Path(name).is_file():
        return read_wholes(Path(name))
    raise unknown("dataset", name, ["mutag", "proteins"], "The path of a text file of graphs works too.")
