"""Cosines (DCT-II, orthonormal) over the last two axes of an image, or the only axis of a waveform."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=32)
def cosines(size: int, device: str = "cpu") -> Tensor:
    """The orthonormal basis (size, size), a frequency a row, ascending."""
    k = torch.arange(size, dtype=torch.float64).unsqueeze(1)
    i = torch.arange(size, dtype=torch.float64).unsqueeze(0)
    basis = (math.pi / size * (i + 0.5) * k).cos() * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis.float().to(device)


def low_sizes(shape: tuple[int, ...], share: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(axes that are no frequencies, how many of the lowest frequencies of each of the last one or two axes)."""
    axes = min(2, max(1, len(shape) - 1))
    cut = len(shape) - axes
    return tuple(shape[:cut]), tuple(max(1, math.ceil(n * share)) for n in shape[cut:])


def low_noise(draws, many: int, shape: tuple[int, ...], share: float) -> Tensor:
    """Normal noise (lanes, many, *shape) of the lowest `share` of the frequencies of each axis."""
    lead, sizes = low_sizes(shape, share)
    z = draws.normal(many, *lead, *sizes)
    if share >= 1:
        return z
    z = z @ cosines(shape[-1], str(z.device))[: sizes[-1]]
    if len(sizes) == 2:
        z = (z.transpose(-1, -2) @ cosines(shape[-2], str(z.device))[: sizes[0]]).transpose(-1, -2)
    return z
