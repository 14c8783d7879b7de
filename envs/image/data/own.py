"""The caller's own images: those that are attacked, and with `train=` others to train on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from advgym.core.task import Spec
from advgym.envs.image.data import sets as data
from advgym.errors import DataError
from advgym.lib.given import names_of


class Part(NamedTuple):
    """A split of the caller's images, as it is called in errors."""

    pixels: Tensor  # float32 (N, C, H, W) in [0, 1]
    labels: Tensor  # int64 (N,)
    what: str

    def check_labels(self, classes: int, victim: str) -> None:
        """Refuse a label that the victim has no score for."""
        beyond = (self.labels >= classes).nonzero().flatten().tolist()
        if beyond:
            raise DataError(
                f"{self.what} {beyond[0]} has the label {int(self.labels[beyond[0]])}, but victim {victim!r} scores "
                f"{classes} classes"
            )


def read_own(spec: Spec) -> dict[str, Part]:
    """The splits of a task of the caller's images: "test", and "train" where there is `train=`."""
    names = names_of(spec.victim)
    test = Part(*data.own(spec.samples, names), "sample")
    if spec.train is None:
        return {"test": test}
    if isinstance(spec.train, str | Path):
        images = data.load(str(spec.train), "train")
        train = Part(images.pixels(slice(None)), images.labels, "train")
    else:
        train = Part(*data.own(spec.train, names, "train"), "train")
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise DataError(
            f"images of train= are {tuple(train.pixels.shape[1:])}, but those of samples= are "
            f"{tuple(test.pixels.shape[1:])}: one shape per task"
        )
    return {"train": train, "test": test}


def rounding(parts: dict[str, Part], lattice: int) -> float:
    """How far the lattice moves any pixel."""
    return max(float((data.canonical(p.pixels, lattice) - p.pixels).abs().max()) for p in parts.values())


def rounded(parts: dict[str, Part], lattice: int | None) -> dict[str, tuple[Tensor, Tensor]]:
    """(pixels on the lattice, labels) of each split."""
    return {split: (data.canonical(p.pixels, lattice), p.labels) for split, p in parts.items()}


def most_label(parts: dict[str, Part]) -> int:
    """The largest label there is."""
    return int(torch.cat([p.labels for p in parts.values()]).max())
