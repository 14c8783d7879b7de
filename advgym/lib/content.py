"""What data holds, in place of what it is called: digests of values, and stamps of files that may change."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

DIGITS = 16  # of a digest in a recipe


def digest(*values: Any) -> str:
    """Sixteen hex digits of the SHA-256 of nested values, by content.

    Tensors and arrays count with dtype and shape, modules by their parameters, dataclasses by their fields, objects by
    their `public()` arguments, or else by their public attributes.
    """
    found = hashlib.sha256()
    for part in _parts(values, ()):
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:DIGITS]


def _parts(value: Any, above: tuple[int, ...]) -> Iterator[bytes]:
    """The value as a sequence of byte strings; `above` holds the ids of what it lies in."""
    if isinstance(value, bytes):
        yield value
    elif value is None or isinstance(value, (bool, int, float, complex, str, Path)):
        yield f"{type(value).__name__} {value!r}".encode()
    elif isinstance(value, Tensor):
        value = value.detach().cpu()
        yield f"{value.dtype} {tuple(value.shape)} {value.layout}".encode()
        yield tensor_bytes(value.to_dense())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{value.dtype} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, np.generic):
        yield from _parts(value.item(), above)
    elif id(value) in above:
        yield b"the same again"
    else:
        inside = (*above, id(value))
        yield type(value).__name__.encode()
        for part in _inside(value):
            yield from _parts(part, inside)


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, nn.Module):
        value = value.state_dict()
    elif hasattr(value, "public"):
        value = value.public()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from (key, value[key])
    elif isinstance(value, (set, frozenset)):
        yield from sorted(value, key=repr)
    elif isinstance(value, (list, tuple, np.ndarray)):
        yield from value
    elif hasattr(value, "__dict__"):
        for name in sorted(k for k in vars(value) if not k.startswith("_")):
            yield from (name, vars(value)[name])
    else:
        yield repr(value)


def tensor_bytes(value: Tensor) -> bytes:
    """The bytes of a dense tensor on the CPU, of any dtype (numpy has no bfloat16)."""
    import torch

    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def file_digest(*paths: Path) -> str:
    """Sixteen hex digits of the SHA-256 of files, by name and content."""
    found = hashlib.sha256()
    for path in sorted(paths):
        data = path.read_bytes()
        found.update(f"{path.name} {len(data)} ".encode() + data)
    return found.hexdigest()[:DIGITS]


def stamp(name: Any) -> tuple[Any, ...]:
    """What tells whether a file, or the files of a folder, were written since: () for what is no path.

    Values read from files are kept in memory under their path and this.
    """
    if not isinstance(name, (str, Path)):
        return ()
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            files = sorted(p for p in (*path.glob("*"), *path.glob("raw/*")) if p.is_file())
        else:
            files = [path] if path.is_file() else []
        return tuple((p.name, s.st_size, s.st_mtime_ns) for p in files for s in [p.stat()])
    except (OSError, ValueError):
        return ()
