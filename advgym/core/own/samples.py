"""The caller's own data as lists of pairs or of rows, which every domain reads: `objects.toml` says which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from advgym.core.own.known import PARTS, Known, known, refuse, table
from advgym.errors import DataError

MODELS = ("pipeline", "transformers", "keras", "onnx", "estimator", *PARTS)  # kinds that answer, or belong to what does


def read_samples(samples: Any, given: str = "samples") -> Any:
    """Samples as a list of pairs or of mappings, from what people have; what a domain reads by itself stays.

    Args:
        samples: a data frame (pandas, polars), a `datasets.Dataset`, a `TensorDataset` or another map-style data set of
            torch, a `DataLoader`, a tuple (X, y) of arrays or lists, or what the domain's documentation says.
        given: the argument that errors name.

    Raises:
        DataError: for what has no length, is of several splits or is no data, with what to pass.
    """
    if samples is None or isinstance(samples, str | bytes | Path):
        return samples
    row = known(samples)
    if row is not None:
        return _recognised(samples, row, given)
    if isinstance(samples, Iterator):
        return list(samples)
    if isinstance(samples, tuple) and len(samples) == 2:
        return _of_two(samples, given)
    return samples


def _recognised(samples: Any, row: Known, given: str) -> Any:
    if row.kind in MODELS:
        raise DataError(f"{given}= is {row.what}, no data: it goes in as victim=")
    if row.kind == "splits":
        names = ", ".join(f"data[{name!r}]" for name in samples)
        raise DataError(f"{given}= is {row.what}: pass one of them, {names}")
    if row.instead:
        raise DataError(str(refuse(row, given)))
    if row.kind == "domain's":
        return samples
    if row.kind == "datasets":
        _check_tokens(list(samples.column_names), given)
        return samples
    if row.kind == "frame":
        return _frame(samples, given)
    if row.kind == "loader":
        return _loader(samples, given)
    if row.kind == "torch data":
        if hasattr(samples, "get_metadata"):  # of torchaudio, which the domain reads from its files
            return samples
        return _torch_data(samples, given)
    return samples


def _check_tokens(columns: Sequence[str], given: str) -> None:
    lower = {str(c).lower() for c in columns}
    if lower & set(table().columns["ready"]) and not lower & set(table().columns["plain"]):
        raise DataError(
            f"{given}= has the columns {', '.join(map(str, columns))}: tokens, no texts. Pass the data from before "
            "they were tokenised; a victim reads texts"
        )


def _frame(frame: Any, given: str) -> list[dict[str, Any]]:
    columns = [str(c) for c in frame.columns]
    _check_tokens(columns, given)
    if not len(frame):
        raise DataError(f"{given}= is a data frame without rows")
    if len(set(columns)) < len(columns):
        raise DataError(f"{given}= is a data frame with two columns of one name: {', '.join(columns)}")
    rows = frame.to_dicts() if hasattr(frame, "to_dicts") else frame.to_dict("records")
    return [{str(k): v for k, v in row.items()} for row in rows]


def _torch_data(data: Any, given: str) -> list[Any]:
    if not hasattr(data, "__len__"):
        raise DataError(f"{given}= is a data set without a length: pass so many of its samples as a list")
    items = [data[i] for i in range(len(data))]
    if items and isinstance(items[0], Tensor | np.ndarray):
        raise DataError(f"{given}= holds inputs without labels: want (input, label) in each item")
    if items and isinstance(items[0], tuple | list) and len(items[0]) == 1:
        raise DataError(f"{given}= is a TensorDataset of one tensor: want inputs and labels, TensorDataset(X, y)")
    return items


def _loader(loader: Any, given: str) -> list[Any]:
    """Its data set in order where batches are only collated; else its batches taken apart."""
    if type(loader).__module__.startswith("torch_geometric"):
        return list(loader.dataset)
    row = known(loader.dataset)
    if row is not None and row.instead:
        raise DataError(f"{given}= is a DataLoader of {row.what}: {row.instead}")
    if getattr(loader.collate_fn, "__name__", "") in ("default_collate", "default_convert"):
        return list(read_samples(loader.dataset, given))
    if type(loader.sampler).__name__ != "SequentialSampler":
        raise DataError(
            f"{given}= is a DataLoader that draws an order ({type(loader.sampler).__name__}) and has a collate_fn of "
            "its own: samples keep their numbers over runs, so make it with shuffle=False"
        )
    out: list[Any] = []
    for batch in loader:
        if isinstance(batch, Mapping):
            _check_tokens(list(batch), given)
            out += [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        elif isinstance(batch, tuple | list) and len(batch) == 2:
            out += zip(*batch, strict=True)
        else:
            raise DataError(f"{given}= is a DataLoader of {type(batch).__name__}; want batches (inputs, labels)")
    return out


# -- (X, y) ----------------------------------------------------------------------------------------------------------
def _of_two(samples: tuple[Any, Any], given: str) -> Any:
    """(X, y) as pairs; a tuple that holds two samples stays as it is."""
    x, y = samples
    if any(hasattr(x, name) for name in table().wholes["attributes"]):
        return samples
    if any(isinstance(v, tuple | str | bytes | Mapping) or not _sized(v) for v in samples):
        return samples
    if getattr(y, "ndim", 1) != 1 or not all(_single(v) for v in y):
        return samples
    if not isinstance(x, Tensor | np.ndarray) and all(isinstance(v, tuple) for v in x):
        return samples
    if len(x) != len(y):
        if len(x) == 2 and not all(_single(v) for v in x):
            return samples
        raise DataError(f"{given}= is {len(x)} inputs and {len(y)} labels; want as many of both")
    both = isinstance(x, list) and isinstance(y, list) and len(x) == 2
    if both and all(isinstance(v, str) for v in (*x, *y)):
        raise DataError(
            f"{given}=({x!r}, {y!r}) may be two samples, or two texts and their labels: write {given}=list(zip(X, y))"
        )
    if both and all(isinstance(v[0], str) and _number(v[1]) for v in (x, y)):
        return samples  # ["good", 1], ["bad", 0]
    return list(zip(_values(x), _values(y), strict=True))


def _sized(value: Any) -> bool:
    return hasattr(value, "__len__") and isinstance(value, Iterable)


def _single(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | np.generic) or getattr(value, "ndim", 1) == 0 or value is None


def _number(value: Any) -> bool:
    return _single(value) and not isinstance(value, str)


def _values(column: Any) -> Iterable[Any]:
    """The entries of a column in order, whatever its index."""
    entries: Iterable[Any] = column.tolist() if known(column) is not None and hasattr(column, "tolist") else column
    return entries
