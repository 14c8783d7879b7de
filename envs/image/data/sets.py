"""Images with labels: the embedded digits, folders of IDX files (MNIST), and the caller's own."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from advgym.core import rng
from advgym.envs.image.data import readers
from advgym.envs.image.data.jitter import jittered
from advgym.errors import AdvgymError, DataError, unknown
from advgym.lib import drawn
from advgym.lib.content import file_digest, stamp
from advgym.lib.given import class_of, inside
from advgym.lib.weights import data_dir

DATASETS = ("digits", "mnist")
DIGITS_TEST = 450  # of 1797
MOST_BYTES = 1 << 31  # an IDX header that promises more is not believed
MNIST = "c9591945c6ef0c1a"  # digest of the four public files, gzipped
_PARTS = {"train": "train", "test": "t10k"}
_WORKS = "dataset= takes 'digits' (embedded), 'mnist' (under ADVGYM_DATA) or a folder of MNIST-like IDX files"


class Images(NamedTuple):
    """Images as whole levels: pixel value = level / top."""

    levels: Tensor  # uint8 (N, C, H, W)
    labels: Tensor  # int64 (N,)
    top: int  # the level of white: 16 for the digits, 255 for bytes

    def pixels(self, index: Tensor | slice, lattice: int | None = None) -> Tensor:
        """float32 (n, C, H, W) in [0, 1], rounded onto `lattice` where that is another than the images' own."""
        return canonical(self.levels[index].to(torch.float32) / self.top, lattice)

    def take(self, index: Tensor) -> Tensor:
        """The images at `index`, as a victim sees them."""
        return self.pixels(index)


def canonical(x: Tensor, lattice: int | None) -> Tensor:
    """The nearest values k / lattice; x itself without a lattice."""
    return torch.round(x * lattice) / lattice if lattice else x


def sizes(dataset: str) -> dict[str, int]:
    """Samples in each split; only the labels are read."""
    if found := drawn.read_drawn(dataset):
        return {**sizes(found.name), drawn.SPLIT: found.count}
    return {split: len(labels(dataset, split)) for split in _PARTS}


def top(dataset: str) -> int:
    """The level of white: 16 for the digits, 255 for IDX files."""
    return 16 if dataset.partition("#")[0] == "digits" else 255


def labels(dataset: str, split: str) -> Tensor:
    """True labels of a split, int64 (N,)."""
    if found := drawn.read_drawn(dataset):
        return load(dataset, split).labels if split == drawn.SPLIT else labels(found.name, split)
    if dataset == "digits":
        return load(dataset, split).labels
    where = folder(dataset)
    return _idx_labels(where, split, stamp(where))


def load(dataset: str, split: str) -> Images:
    """A split of a dataset by name or folder, read once per process.

    `NAME#SEED:COUNT` has the split "hidden" besides: test images, each turned, scaled and shifted a little by the seed.

    Raises:
        AdvgymError: for a name that is none of `DATASETS`.
        DataError: for files that are missing or malformed, by name.
    """
    if found := drawn.read_drawn(dataset):
        return _drawn(found) if split == drawn.SPLIT else load(found.name, split)
    if dataset == "digits":
        return _digits()[split]
    where = folder(dataset)
    return _idx_images(where, split, stamp(where))


def content(dataset: str) -> dict[str, str]:
    """What a recipe says beside a dataset's name: the digest of its files, unless the name stands for them.

    The name does for what is embedded, and for "mnist" where the files are the public ones, or none are there.
    """
    name = drawn.read_drawn(dataset).name if "#" in dataset else dataset  # type: ignore[union-attr]
    if name == "digits" or (name == "mnist" and data_dir() is None):
        return {}
    where = folder(name)
    stems = [f"{part}-{kind}" for part in _PARTS.values() for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    try:
        found = file_digest(*(_file(where, stem) for stem in stems))
    except DataError:
        if name == "mnist":
            return {}
        raise
    return {} if name == "mnist" and found == MNIST else {"content": found}


@cache
def _digits() -> dict[str, Images]:
    """Handwritten digits (Alpaydin & Kaynak 1998; `digits.md`): 1797 images of 8x8, levels 0 to 16."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as found:
        levels = torch.from_numpy(found["levels"]).unsqueeze(1)
        truth = torch.from_numpy(found["labels"]).to(torch.int64)
    # Ordered by our own keyed generator: the same split with every version of numpy.
    order = rng.bits(0, torch.arange(len(levels)), (), 1).argsort()
    parts = {"test": order[:DIGITS_TEST], "train": order[DIGITS_TEST:]}
    return {split: Images(levels[index], truth[index], 16) for split, index in parts.items()}


@lru_cache(maxsize=8)
def _drawn(found: drawn.Drawn) -> Images:
    clean, keys = load(found.name, "test"), torch.arange(found.count)
    order = rng.bits(found.seed, torch.arange(len(clean.labels)), (), 1).argsort()
    index = order[keys % len(order)]
    levels = jittered(clean.levels[index], clean.top, found.seed, keys)
    return Images(levels, clean.labels[index], clean.top)


def folder(dataset: str) -> Path:
    """Where a dataset's IDX files are: 'mnist' under $ADVGYM_DATA, or a local path."""
    if dataset == "mnist":
        root = data_dir()
        if root is None:
            raise DataError(
                "MNIST is not embedded: set ADVGYM_DATA to a folder that holds image/mnist/train-images-idx3-ubyte.gz "
                f"and its three companions. {_WORKS}."
            )
        return root / "image" / "mnist"
    path = Path(dataset).expanduser()
    if path.is_dir():
        return path
    if path.name != dataset or path.exists():
        raise DataError(f"{dataset} is not a folder. {_WORKS}.")
    raise unknown("dataset", dataset, DATASETS, f"{_WORKS}.")


@lru_cache(maxsize=16)
def _idx_labels(where: Path, split: str, written: tuple[Any, ...]) -> Tensor:
    path = _file(where, f"{_PARTS[split]}-labels-idx1-ubyte")
    return torch.from_numpy(read_idx(path, 1)).to(torch.int64)


@lru_cache(maxsize=8)
def _idx_images(where: Path, split: str, written: tuple[Any, ...]) -> Images:
    path = _file(where, f"{_PARTS[split]}-images-idx3-ubyte")
    pixels, truth = read_idx(path, 3), _idx_labels(where, split, written)
    if len(pixels) != len(truth):
        raise DataError(f"{path} holds {len(pixels)} images, but its labels' file {len(truth)} labels")
    return Images(torch.from_numpy(pixels).unsqueeze(1), truth, 255)


def _file(where: Path, stem: str) -> Path:
    for path in (where / f"{stem}.gz", where / stem):
        if path.is_file():
            return path
    raise DataError(f"no {stem}.gz (nor {stem}) in {where}. {_WORKS}.")


def read_idx(path: Path, dims: int) -> np.ndarray:
    """The uint8 array of an IDX file (LeCun, Cortes & Burges 1998), gzip or not, with `dims` axes.

    The header's sizes are checked before the body is unpacked; a file that is too short or too long is refused.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped:
                return _parse_idx(raw, path, dims)
            with gzip.GzipFile(fileobj=raw) as unzipped:
                return _parse_idx(unzipped, path, dims)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as an IDX file: {error}") from None


def _parse_idx(file: BinaryIO, path: Path, dims: int) -> np.ndarray:
    head = file.read(4 + 4 * dims)
    want = bytes([0, 0, 8, dims])  # 8: unsigned bytes
    if head[:4] != want:
        raise DataError(f"{path} starts with {head[:4].hex(' ')}, not with an IDX header of bytes ({want.hex(' ')})")
    shape = tuple(int.from_bytes(head[at : at + 4], "big") for at in range(4, 4 + 4 * dims, 4))
    size = math.prod(shape)
    if len(head) < 4 + 4 * dims or not 0 < size <= MOST_BYTES:
        raise DataError(f"{path} promises an array of shape {shape}, which no IDX file here has")
    body = file.read(size + 1)
    if len(body) != size:
        raise DataError(f"{path} is {'truncated' if len(body) < size else 'too long'}: {shape} needs {size} bytes")
    return np.frombuffer(body, np.uint8).reshape(shape).copy()


def own(
    samples: Any, names: Sequence[str] = (), given: str = "samples", notes: set[str] | None = None
) -> tuple[Tensor, Tensor]:
    """The caller's samples, (image, label) pairs, as float32 (N, C, H, W) and int64 (N,).

    Images are tensors, arrays or PIL images: values in [0, 1] (float noise beyond it is clamped away) or bytes, all of
    one shape; labels whole numbers of any kind, or `names` of classes. What else holds such pairs: `readers.pairs`.

    Args:
        given: the argument that errors name.
        notes: what was changed of the images, in words, goes in here.
    """
    one = given.removesuffix("s")
    notes = set() if notes is None else notes
    samples, classes = readers.pairs(samples, given)
    by_name = bool(classes) and set(classes) <= set(names)
    pixels: list[Tensor] = []
    truth: list[int] = []
    most = 0.0
    if not isinstance(samples, Iterable):
        raise DataError(f"{given}= is {type(samples).__name__}; want a list of (image, label) pairs")
    for i, sample in enumerate(samples):
        try:
            image, label = sample
            x = readers.as_pixels(image, notes)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{one} {i} is not a pair (image, label): {error}; of two arrays it is list(zip(images, labels))"
            ) from None
        x = x.unsqueeze(0) if x.dim() == 2 else x
        if x.dim() != 3 or x.numel() == 0:
            raise DataError(f"{one} {i} has an image of shape {tuple(x.shape)}; want (C, H, W) or (H, W)")
        if pixels and x.shape != pixels[0].shape:
            raise DataError(
                f"{one} {i} is {tuple(x.shape)}, but {one} 0 is {tuple(pixels[0].shape)}: one shape per task"
            )
        fits = inside(x, 0.0, 1.0)
        if fits is None:
            low, high = float(x.min()), float(x.max())
            raise DataError(
                f"{one} {i} has pixels from {low:g} to {high:g}; want values in [0, 1] (bytes: divide by 255)"
            )
        try:
            truth.append(class_of(classes[label] if by_name else label, names))
        except AdvgymError as error:
            raise DataError(f"{one} {i} has the label {label!r}: {error}") from None
        most = max(most, float(fits.max()))
        pixels.append(fits)
    if not pixels:
        raise DataError(f"{given}= is empty; want a list of (image, label) pairs")
    if 0 < most <= 1 / 255 + 1e-9 and any("bytes" in note for note in notes):
        raise DataError(f"{given}= are bytes of 0 and 1 alone: were they fractions? Give them as float32 in [0, 1]")
    return torch.stack(pixels), torch.tensor(truth)
