"""Images in other forms: folders of classes, tables, columns of `datasets`, arrays, PIL; channels are found."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.errors import DataError
from advgym.lib.extras import need

FILES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
IMAGE, LABEL = ("image", "img", "file", "file_name", "path", "pixel_values"), ("label", "labels", "class", "fine_label")
CHANNELS = (1, 3, 4)


def pairs(samples: Any, given: str) -> tuple[Iterable[Any], list[str]]:
    """(the (image, label) pairs of anything that holds them, names of classes or []).

    Args:
        samples: a folder with a folder for each class, a .csv or .jsonl table with columns image and label (paths are
            relative to it), a split of `datasets`, a pair of arrays (images, labels), or the pairs themselves.
        given: the argument that errors name.

    Raises:
        DataError: for paths and tables that hold none.
    """
    if isinstance(samples, str | Path):
        where = Path(samples).expanduser()
        if where.is_dir():
            return _folder(where, given)
        if where.suffix.lower() in (".csv", ".jsonl") and where.is_file():
            return _table(where, given), []
        raise DataError(
            f"{given}={str(samples)!r} is no folder of images by class, and no .csv or .jsonl table of them"
        )
    if hasattr(samples, "features") and hasattr(samples, "column_names"):
        return _columns(samples, given)
    if isinstance(samples, tuple | list) and len(samples) == 2 and all(_is_array(v) for v in samples):
        x, y = samples
        if getattr(x, "ndim", 0) >= 3 and getattr(y, "ndim", 0) == 1:
            if len(x) != len(y):
                raise DataError(f"{given}= is {len(x)} images and {len(y)} labels; want as many of both")
            return zip(x, y, strict=True), []
    if isinstance(samples, list) and samples and isinstance(samples[0], Mapping):
        return _rows(samples, given), []
    if not isinstance(samples, Iterable) and hasattr(samples, "__getitem__") and hasattr(samples, "__len__"):
        return (samples[i] for i in range(len(samples))), []  # a torch Dataset
    return samples, []


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _folder(where: Path, given: str) -> tuple[Iterable[Any], list[str]]:
    classes = sorted(p.name for p in where.iterdir() if p.is_dir())
    found = [
        (path, nth)
        for nth, name in enumerate(classes)
        for path in sorted((where / name).iterdir())
        if path.suffix.lower() in FILES
    ]
    if not found:
        raise DataError(
            f"{given}={str(where)!r} holds no images: want a folder for each class with files {', '.join(FILES)} in it"
        )
    return ((opened(path), nth) for path, nth in found), classes


def _table(where: Path, given: str) -> Iterator[Any]:
    with where.open(newline="", encoding="utf-8") as file:
        try:
            rows = list(csv.DictReader(file)) if where.suffix == ".csv" else [json.loads(t) for t in file if t.strip()]
        except (csv.Error, ValueError) as error:
            raise DataError(f"{where} cannot be read as a table: {error}") from None
    for i, row in enumerate(rows):
        image, label = (_of(row, names, f"row {i} of {where}") for names in (IMAGE, LABEL))
        yield opened(where.parent / str(image)), label


def _rows(samples: Iterable[Any], given: str) -> Iterator[Any]:
    """Of mappings, as a data frame's rows: an image or the path of one, and its class."""
    for i, row in enumerate(samples):
        image, label = (_of(row, names, f"{given.removesuffix('s')} {i}") for names in (IMAGE, LABEL))
        yield opened(Path(image)) if isinstance(image, str | Path) else image, label


def _of(row: Any, names: tuple[str, ...], what: str) -> Any:
    key = next((n for n in names if isinstance(row, Mapping) and row.get(n) is not None), None)
    if key is None:
        have = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
        raise DataError(f"{what} has none of the columns {', '.join(names)}; it has {have}")
    return row[key]


def _columns(samples: Any, given: str) -> tuple[Iterable[Any], list[str]]:
    """A split of `datasets`: its image column, and the names of its class column."""
    columns = list(samples.column_names)
    kinds = {c: type(samples.features[c]).__name__ for c in columns}
    image = next((c for c in columns if kinds[c] == "Image"), None) or next((c for c in IMAGE if c in columns), None)
    label = next((c for c in columns if kinds[c] == "ClassLabel"), None) or next(
        (c for c in LABEL if c in columns), None
    )
    if image is None or label is None:
        lacks = "an image column" if image is None else "a column of classes"
        raise DataError(f"{given}= is a dataset with columns {', '.join(columns)}: it lacks {lacks}")
    names = list(getattr(samples.features[label], "names", None) or [])
    return ((row[image], row[label]) for row in samples), names


def opened(path: Path) -> Any:
    """The PIL image in a file.

    Raises:
        DataError: where it is missing, is no image, or PIL is not installed.
    """
    images = need("PIL.Image", f"{path}, an image file,")
    try:
        with images.open(path) as image:
            image.load()
            return image
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from None


def as_pixels(image: Any, notes: set[str]) -> Tensor:
    """One image as float32, (C, H, W) or (H, W) as it came; bytes become fractions, what was changed goes into `notes`.

    Bytes (uint8, PIL) are divided by 255. Channels are taken to be last where the first axis cannot be channels and the
    last one can, or where the image is of bytes or PIL's and both can.

    Raises:
        TypeError, ValueError: for what is no array.
    """
    if hasattr(image, "convert") and hasattr(image, "mode"):
        if image.mode not in ("L", "RGB"):
            notes.add(f"images of mode {image.mode} are read as RGB")
            image = image.convert("RGB")
        image = np.array(image)
    x = image.detach().cpu() if isinstance(image, Tensor) else torch.as_tensor(np.asarray(image))
    bytes_ = x.dtype == torch.uint8
    if x.dim() == 3 and x.shape[2] in CHANNELS and (x.shape[0] not in CHANNELS or (bytes_ and x.shape[1] > 4)):
        x = x.permute(2, 0, 1)
        notes.add("images have their channels last: they are moved to the front")
    if bytes_:
        notes.add("images are bytes: they are divided by 255")
        return x.to(torch.float32) / 255
    return x.to(torch.float32)
