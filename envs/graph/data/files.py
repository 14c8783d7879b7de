"""One file of a graph as a dataset: `dataset=FILE` of networkx, Nettack, Pro-GNN or PyG. Nothing is unpickled."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta

from advgym.envs.graph.data.interchange import READERS, read_csr, read_graph, undirected
from advgym.envs.graph.data.labelled import NodeData, halves
from advgym.envs.graph.data.own import assemble, own_graph
from advgym.errors import DataError
from advgym.lib.options import Options, read

KINDS = (".npz", *READERS, ".pt", ".safetensors")
NAMES = {"x": ("x", "features"), "y": ("y", "labels", "label"), "edge_index": ("edge_index", "edges"),
         "adj_t": ("adj_t", "adj")}  # fmt: skip
PARTS = {"train": "idx_train", "val": "idx_val", "test": "idx_test"}  # as Pro-GNN's splits are written
SAVED = "save its tensors: torch.save({'x': data.x, 'edge_index': data.edge_index, 'y': data.y}, path), or .npz"


class Spelled(Options):
    """Behind the question mark of a path."""

    labels: Annotated[str, Meta(description="a file of `node label` lines, or an .npz with labels and features")] = ""
    splits: Annotated[str, Meta(description="Pro-GNN's JSON: idx_train, idx_val, idx_test")] = ""
    largest_component: Annotated[bool, Meta(description="the others are left out")] = False


def is_file(name: str) -> bool:
    """Whether this names a file that is there, options behind a question mark aside."""
    try:
        return Path(name.partition("?")[0]).expanduser().is_file()
    except (OSError, ValueError):
        return False


def read_nodes(name: str) -> NodeData:
    """A graph of one file.

    `.graphml`, `.edgelist`, `.adjlist` (a further .gz is fine); `.npz` of CSR parts (Nettack, DeepRobust), of plain
    arrays (`edge_index` or a dense `adj`, `x`, `y`, the three masks), or of scipy's `save_npz`, an adjacency alone
    (Pro-GNN's attacked graphs); `.pt` and `.safetensors` of tensors by PyG's names.

    Args:
        name: a path, and behind a question mark `labels=` (a text file of `node label` lines, or an `.npz` whose labels
            and features are those of these nodes), `splits=` (Pro-GNN's JSON: idx_train, idx_val, idx_test) and
            `largest_component=1`, joined by `&`. Without splits half of each class is for training.

    Raises:
        DataError: for a file that is missing or malformed, and for one that only unpickling could read.
    """
    path, options = _spelling(name)
    largest, labels = options.largest_component, options.labels or None
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix in READERS:
        data = own_graph(read_graph(path, labels, largest_component=largest))
    elif suffix == ".npz":
        data = _npz(path, labels, largest)
    elif suffix in (".pt", ".safetensors"):
        data = own_graph(_namespace(_tensors(path), path))
    else:
        raise DataError(f"cannot tell the format of {path}: want {', '.join(KINDS)}")
    if options.splits:
        data = replace(data, nodes=_splits(Path(options.splits), data))
    elif torch.equal(data.nodes["train"], data.nodes["test"]):
        data = replace(data, nodes=halves(data.labels), notes=(*data.notes, "half of each class is for training"))
    return data


def _spelling(name: str) -> tuple[Path, Spelled]:
    path, _, rest = name.partition("?")
    given = dict(part.partition("=")[::2] for part in rest.split("&") if part)
    return Path(path).expanduser(), read(Spelled, given, "a graph's file")


# -- npz --------------------------------------------------------------------------------------------------------------
def _npz(path: Path, labels: str | None, largest: bool) -> NodeData:
    held = _arrays(path)
    if "adj_indptr" in held:
        size, pairs, x, y, notes = read_csr(path, largest_component=largest)
    elif {"format", "shape", "data"} <= set(held):
        size, pairs, x, y, notes = _scipy(path, labels)
    else:
        if largest:
            raise DataError(f"{path} is of plain arrays: largest_component is for files of CSR parts and networkx")
        return own_graph(_namespace(held, path))
    return assemble(size, pairs, x, [None if v == -1 else v for v in y.tolist()], [None] * size, notes=notes)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; those of Python objects stay shut."""
    out: dict[str, np.ndarray] = {}
    try:
        with np.load(path, allow_pickle=False) as held:
            for name in held.files:
                with contextlib.suppress(ValueError):  # of objects
                    out[name] = held[name]
    except Exception as error:  # zip files break in many ways
        reason = "it is no archive of arrays" if "pickle" in str(error) else getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path} as .npz: {reason}") from None
    return out


def _scipy(path: Path, labels: str | None) -> Any:
    """An adjacency alone, with the labels and features of another file."""
    import scipy.sparse

    try:
        matrix = scipy.sparse.load_npz(path).tocoo()
    except Exception as error:
        raise DataError(f"{path} is not a sparse matrix as scipy.sparse.save_npz writes it: {error}") from None
    if labels is None:
        raise DataError(
            f"{path} holds an adjacency alone (scipy): name the file of its labels and features, as in "
            f"dataset='{path}?labels=cora.npz'"
        )
    size, pairs, notes = undirected(matrix, np.ones(matrix.shape[0], dtype=bool))
    if not labels.endswith(".npz"):
        raise DataError(f"labels={labels}: an adjacency has no names of nodes, so its labels come from an .npz file")
    whole = read_csr(labels)
    for found in (whole, read_csr(labels, largest_component=True)):  # attacked graphs are of the largest component
        if found[0] == size:
            return size, pairs, found[2], found[3], (*notes, *found[4])
    raise DataError(f"{path} has {size} nodes, {labels} has {whole[0]} (its largest component {found[0]})")


# -- tensors by name ---------------------------------------------------------------------------------------------------
def _tensors(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(str(path)))
        held = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # a foreign file may raise anything
        line = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read without running what is in it ({line}): {SAVED}") from None
    held = held[0] if isinstance(held, (tuple, list)) and held and isinstance(held[0], dict) else held
    held = held.get("_store", held) if isinstance(held, dict) else held
    if not isinstance(held, dict):
        raise DataError(f"{path} holds {type(held).__name__}, no tensors by name: {SAVED}")
    return held


def _namespace(held: dict[str, Any], path: Path) -> SimpleNamespace:
    """What PyG would call the arrays of a file."""
    found = {}
    for key, names in NAMES.items():
        name = next((n for n in names if n in held), None)
        if name is not None:
            value = held[name]
            if key == "adj_t" and isinstance(value, np.ndarray):
                value = torch.from_numpy(np.asarray(value))
            found[key] = value
    if "edge_index" not in found and "adj_t" not in found:
        there = ", ".join(sorted(map(str, held))) or "nothing"
        raise DataError(f"{path} holds {there}; want edge_index (or adj), x and y")
    for name in ("train_mask", "val_mask", "test_mask", "edge_weight", "edge_attr", "num_nodes"):
        if name in held:
            found[name] = held[name]
    return SimpleNamespace(**found)


def _splits(path: Path, data: NodeData) -> dict[str, torch.Tensor]:
    try:
        held = json.loads(path.read_text())
        found = {split: torch.tensor(held[key], dtype=torch.int64) for split, key in PARTS.items() if key in held}
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is not a JSON table of idx_train, idx_val and idx_test: {error}") from None
    for split in ("train", "test"):
        if split not in found or not len(found[split]):
            raise DataError(f"{path} names no nodes under {PARTS[split]}")
    every = torch.cat(list(found.values()))
    if not bool(((every >= 0) & (every < data.graph.size)).all()) or len(every.unique()) < len(every):
        raise DataError(f"{path} names a node twice, or one that is not among the {data.graph.size} of the graph")
    return {split: nodes[data.labels[nodes] >= 0] for split, nodes in found.items()}
