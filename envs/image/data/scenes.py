"""Generated scenes with captions: a few shapes of one or two kinds in a 3x3 grid of cells; synthetic."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from advgym.core import rng
from advgym.errors import unknown

SIDE, CELL = 24, 8
COUNTS = ("one", "two", "three")
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 230), "yellow": (230, 210, 50)}
SHAPES = ("circle", "square", "triangle", "cross")
WORDS = (*COUNTS, *COLOURS, *SHAPES, *(f"{s}es" if s == "cross" else f"{s}s" for s in SHAPES), "and")
LENGTH = 8  # tokens of a caption: seven words at most, and an end
SIZES = {"train": 4000, "test": 400}
NAME = "scenes"


class Scenes(NamedTuple):
    """Levels and captions."""

    levels: Tensor  # uint8 (N, 3, 24, 24)
    captions: Tensor  # int64 (N, LENGTH), token i + 1 is WORDS[i], -1 after the end

    def pixels(self, index: Tensor | slice) -> Tensor:
        """float32 (n, 3, 24, 24) in [0, 1]."""
        return self.levels[index].to(torch.float32) / 255


def load(split: str) -> Scenes:
    """A split, drawn once per process."""
    if split not in SIZES:
        raise unknown("split", split, SIZES)
    return _drawn(split)


def tokens(words: list[str]) -> list[int]:
    """A caption's words as LENGTH tokens, padded with -1."""
    found = [WORDS.index(w) + 1 for w in words]
    return found + [-1] * (LENGTH - len(found))


@cache
def _drawn(split: str) -> Scenes:
    first = 0 if split == "train" else SIZES["train"]
    keys = torch.arange(first, first + SIZES[split])
    u = rng.bits(0, keys, (9,), 41)
    place = rng.bits(0, keys, (9,), 42).argsort(1)  # of the cells: which group's shapes fill the first
    noise = rng.normal(0, keys, (3, SIDE, SIDE), 43)
    masks = _masks()
    paint = torch.tensor(list(COLOURS.values()), dtype=torch.float32)
    ground = 20 + (u[:, 8] % 40).float()
    image = ground.view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE).clone()
    captions: list[list[int]] = []
    for n in range(len(keys)):
        words: list[str] = []
        at = 0
        groups = 1 + int(u[n, 0] % 2)
        first_kind = (int(u[n, 2] % len(COLOURS)), int(u[n, 3] % len(SHAPES)))
        step = 1 + int(u[n, 6] % (len(COLOURS) * len(SHAPES) - 1))
        other = (first_kind[0] * len(SHAPES) + first_kind[1] + step) % (len(COLOURS) * len(SHAPES))
        kinds = sorted([first_kind, divmod(other, len(SHAPES))][:groups])  # so that an image has one caption
        for nth, (colour, shape) in enumerate(kinds):
            count = 1 + int(u[n, 1 if nth == 0 else 5] % len(COUNTS))
            for cell in place[n, at : at + count].tolist():
                down, right = (CELL * v for v in divmod(cell, 3))
                image[n, :, down : down + CELL, right : right + CELL] = torch.where(
                    masks[shape], paint[colour].view(3, 1, 1), image[n, :, down : down + CELL, right : right + CELL]
                )
            at += count
            plural = len(SHAPES) if count > 1 else 0
            words += (["and"] if nth else []) + [
                COUNTS[count - 1], list(COLOURS)[colour], WORDS[len(COUNTS) + len(COLOURS) + shape + plural]
            ]  # fmt: skip
        captions.append(tokens(words))
    levels = (image + 6 * noise).round().clamp(0, 255).to(torch.uint8)
    return Scenes(levels, torch.tensor(captions))


def _masks() -> Tensor:
    """Bool (shapes, 8, 8)."""
    at = torch.arange(CELL) + 0.5 - CELL / 2
    y, x = at.view(-1, 1), at.view(1, -1)
    inside = (y.abs() <= 3) & (x.abs() <= 3)
    return torch.stack([
        x.square() + y.square() <= 9.5,
        inside,
        inside & (x.abs() <= (y + 3.5) / 2),
        inside & ((x.abs() <= 1) | (y.abs() <= 1)),
    ])  # fmt: skip
