"""Public objects as frames: what a task shows of its samples, packed by the evaluator, made again by the agent's side.

Only the evaluator's objects travel this way, so the reading side may trust class names; nothing is ever unpickled.
Batches travel by the fields that they declare as shown, dataclasses by theirs, other objects by their `public()`
arguments.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from advgym.core.batch import Batch
from advgym.registry import load

_PLAIN = (type(None), bool, int, float, str, bytes)
Seen = dict[Any, tuple[int, Any]]  # the object is kept, so that its id stays its own


def pack(value: Any, sent: Seen | None = None) -> list[np.ndarray]:
    """Three byte arrays: a tree, a table of arrays, and what is in them.

    Args:
        sent: of a conversation: shared objects (a graph, a vocabulary) that the other side has already.

    Raises:
        TypeError: for an object that has no public form.
    """
    arrays: list[np.ndarray] = []
    tree = _tree(value, arrays, {}, sent)
    return [np.frombuffer(msgspec.msgpack.encode(tree), np.uint8), *_joined(arrays)]


def unpack(arrays: list[np.ndarray], kept: dict[int, Any] | None = None, device: str = "cpu") -> Any:
    """The object that `pack` saw, its tensors on `device`; `kept` holds the shared objects of a conversation."""
    tree = msgspec.msgpack.decode(arrays[0].tobytes())
    return _value(tree, _split(arrays[1:]), {}, {} if kept is None else kept, device)


def _joined(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """All arrays in one byte array, with a table of types and shapes: any number of them fits a frame."""
    table = [[a.dtype.str, list(a.shape)] for a in arrays]
    data = b"".join(np.ascontiguousarray(a).tobytes() + bytes(-a.nbytes % 8) for a in arrays)
    return [np.frombuffer(msgspec.msgpack.encode(table), np.uint8), np.frombuffer(data, np.uint8)]


def _split(parts: list[np.ndarray]) -> list[np.ndarray]:
    table, data = msgspec.msgpack.decode(parts[0].tobytes()), parts[1]
    out, at = [], 0
    for dtype, shape in table:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        out.append(data[at : at + size].view(dtype).reshape(shape))
        at += size + -size % 8
    return out


def _tree(value: Any, arrays: list[np.ndarray], seen: Seen, sent: Seen | None) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        return {"l" if isinstance(value, list) else "t": [_tree(v, arrays, seen, sent) for v in value]}
    if id(value) in seen:
        return {"r": seen[id(value)][0]}
    number = len(seen)
    seen[id(value)] = (number, value)
    if isinstance(value, Tensor | np.ndarray):
        arrays.append(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)
        return {"a": len(arrays) - 1, "n": number, "x": isinstance(value, Tensor)}
    if isinstance(value, dict):
        pairs = [[_tree(k, arrays, seen, sent), _tree(v, arrays, seen, sent)] for k, v in value.items()]
        return {"d": pairs, "n": number}
    shared = -1
    if sent is not None and hasattr(value, "public") and not hasattr(value, "take"):
        if id(value) in sent:
            return {"k": sent[id(value)][0], "n": number}
        shared = len(sent)
        sent[id(value)] = (shared, value)
    state = {k: _tree(v, arrays, seen, sent) for k, v in _public(value).items()}
    kind = type(value)
    return {"o": f"{kind.__module__}:{kind.__qualname__}", "n": number, "s": state, "h": shared}


def _public(value: Any) -> dict[str, Any]:
    if hasattr(value, "public"):
        found: dict[str, Any] = value.public()
        return found
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    raise TypeError(
        f"{type(value).__module__}.{type(value).__qualname__} has no public form: give it `public()`, the arguments "
        "that make it again, or keep it out of the batch and the context"
    )


def _value(tree: Any, arrays: list[np.ndarray], made: dict[int, Any], kept: dict[int, Any], device: str) -> Any:
    if not isinstance(tree, dict):
        return tree
    for key, kind in (("l", list), ("t", tuple)):
        if key in tree:
            return kind(_value(v, arrays, made, kept, device) for v in tree[key])
    if "r" in tree:
        return made[tree["r"]]
    number = tree["n"]
    if "k" in tree:
        made[number] = kept[tree["k"]]
    elif "a" in tree:
        array = arrays[tree["a"]]
        made[number] = torch.from_numpy(array.copy()).to(device) if tree["x"] else array
    elif "d" in tree:
        made[number] = {
            _value(k, arrays, made, kept, device): _value(v, arrays, made, kept, device) for k, v in tree["d"]
        }
    else:
        made[number] = _object(tree, arrays, made, kept, device)
    return made[number]


def _object(tree: Any, arrays: list[np.ndarray], made: dict[int, Any], kept: dict[int, Any], device: str) -> Any:
    kind = load(tree["o"])
    state = {k: _value(v, arrays, made, kept, device) for k, v in tree["s"].items()}
    if issubclass(kind, Batch):
        found = object.__new__(kind)
        found.__dict__.update(state)
    else:
        found = kind(**state)
    if tree["h"] >= 0:
        kept[tree["h"]] = found
    return found
