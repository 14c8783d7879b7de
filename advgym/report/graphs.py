"""Attacked graphs to files and back: `.npz`, GraphML, node-link JSON; PyG and networkx. Nothing unpickles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from advgym.errors import AdvgymError, DataError
from advgym.lib.extras import need
from advgym.lib.files import write_atomic

FORMATS = {"npz": ".npz", "graphml": ".graphml", "json": ".json"}
KINDS = ("pyg", "networkx")


# -- out -------------------------------------------------------------------------------------------------------------
def write_graph(path: Path, item: dict[str, Any]) -> Path:
    """Write a graph (`edges`, `x`, `y`, `asked`, `names`) in the form that the path's ending says.

    `.npz` is the CSR form of Nettack and others, with the nodes asked about beside it (`asked`); features sparse.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        _write_npz(path, item)
    elif path.suffix == ".json":
        import networkx

        text = json.dumps(networkx.node_link_data(_networkx(item), edges="links"))
        write_atomic(path, text.encode())
    else:
        import networkx

        graph = _networkx(item)
        for node in graph:  # GraphML holds no lists
            graph.nodes[node]["x"] = " ".join(f"{v:g}" if v == round(v, 5) else repr(v) for v in graph.nodes[node]["x"])
        networkx.write_graphml(graph, path)
    return path


def _write_npz(path: Path, item: dict[str, Any]) -> None:
    size = len(item["x"])
    a, b = item["edges"].T
    source, target = np.concatenate([a, b]), np.concatenate([b, a])
    order = np.lexsort((target, source))
    node, feature = item["x"].nonzero()
    arrays = {
        **_csr("adj", source[order], target[order], np.ones(len(source), np.float32), (size, size)),
        **_csr("attr", node, feature, item["x"][node, feature], item["x"].shape),
        "labels": item["y"], "asked": item["asked"],
    }  # fmt: skip
    if item["names"]:
        arrays["names"] = np.array([str(name) for name in item["names"]])
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _csr(stem: str, row: Any, column: Any, value: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    pointer = np.concatenate([[0], np.bincount(row, minlength=shape[0]).cumsum()])
    return {
        f"{stem}_data": value,
        f"{stem}_indices": column,
        f"{stem}_indptr": pointer,
        f"{stem}_shape": np.array(shape),
    }


def _networkx(item: dict[str, Any]) -> Any:
    """With `x` and, where it is known, `label` on each node, and `asked` on those that the victim was asked about."""
    import networkx

    size = len(item["x"])
    names = item["names"] or list(range(size))
    out, asked = networkx.Graph(), set(item["asked"].tolist())
    labels = item["y"].tolist() if len(item["y"]) == size and len(asked) else [-1] * size
    for i, name in enumerate(names):
        out.add_node(name, x=item["x"][i].tolist(), **({"label": labels[i]} if labels[i] >= 0 else {}),
                     **({"asked": True} if i in asked else {}))  # fmt: skip
    if not asked and len(item["y"]) == 1:
        out.graph["label"] = int(item["y"][0])
    out.add_edges_from((names[a], names[b]) for a, b in item["edges"].tolist())
    return out


# -- in --------------------------------------------------------------------------------------------------------------
def load_graph(path: str | Path, kind: str = "pyg") -> Any:
    """A graph that `advgym export` wrote, as a PyG `Data` (edge_index in both directions, x, y, asked) or networkx.

    Args:
        path: ends in .npz, .json or .graphml.
        kind: "pyg" or "networkx".

    Raises:
        AdvgymError: for another kind.
        DataError: for a file that is missing or of another form.
    """
    if kind not in KINDS:
        raise AdvgymError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    where = Path(path)
    if where.suffix not in FORMATS.values():
        raise DataError(f"cannot tell the form of {where}: want {', '.join(FORMATS.values())}")
    try:
        item = _read_npz(where) if where.suffix == ".npz" else _read_networkx(where)
    except OSError as error:
        raise DataError(f"cannot read {where}: {error.strerror or error}") from None
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"{where} is no graph that `advgym export` wrote: {error}") from None
    return _networkx(item) if kind == "networkx" else _pyg(item)


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as held:
        size = int(held["adj_shape"][0])
        source = np.repeat(np.arange(size), np.diff(held["adj_indptr"]))
        target = held["adj_indices"]
        x = np.zeros(tuple(held["attr_shape"].tolist()), np.float32)
        x[np.repeat(np.arange(size), np.diff(held["attr_indptr"])), held["attr_indices"]] = held["attr_data"]
        once = source < target
        return {
            "edges": np.stack([source[once], target[once]], 1), "x": x, "y": held["labels"], "asked": held["asked"],
            "names": held["names"].tolist() if "names" in held.files else None,
        }  # fmt: skip


def _read_networkx(path: Path) -> dict[str, Any]:
    import networkx

    if path.suffix == ".json":
        graph = networkx.node_link_graph(json.loads(path.read_text(encoding="utf-8")), edges="links")
    else:
        graph = networkx.read_graphml(path)
    nodes = list(graph)
    place = {node: i for i, node in enumerate(nodes)}
    rows = [graph.nodes[n]["x"] for n in nodes]
    x = np.array([[float(v) for v in r.split()] if isinstance(r, str) else r for r in rows], np.float32)
    pairs = [sorted((place[a], place[b])) for a, b in graph.edges]
    asked = np.array([place[n] for n in nodes if graph.nodes[n].get("asked")], np.int64)
    y = np.array([graph.nodes[n].get("label", -1) for n in nodes], np.int64)
    if "label" in graph.graph:
        y = np.array([graph.graph["label"]], np.int64)
    plain = all(str(n) == str(i) for i, n in enumerate(nodes))
    edges = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return {"edges": edges, "x": x, "y": y, "asked": asked, "names": None if plain else nodes}


def _pyg(item: dict[str, Any]) -> Any:
    import torch

    need("torch_geometric", "a PyG Data")
    from torch_geometric.data import Data

    edges = torch.from_numpy(item["edges"]).to(torch.int64)
    both = torch.cat([edges, edges.flip(1)]).t()
    order = (both[0] * len(item["x"]) + both[1]).argsort()
    return Data(x=torch.from_numpy(item["x"]), edge_index=both[:, order].contiguous(), y=torch.from_numpy(item["y"]),
                asked=torch.from_numpy(item["asked"]))  # fmt: skip
