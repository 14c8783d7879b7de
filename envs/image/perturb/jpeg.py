"""JPEG coefficients: a change of the quantised cosine transform (Kang et al. 2019)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core.kinds.mapped import MappedBatch

SIDE = 8
# The example tables of the standard (ITU-T T.81, annex K), luminance and chrominance.
LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32,
)  # fmt: skip


class JpegBatch(MappedBatch):
    """B images; theta (C, rows, columns, 8, 8) is added to the quantised coefficients of each 8x8 block.

    The transform is linear, so the image itself is not compressed: what is added is the inverse transform of theta
    times the table. RGB goes through YCbCr, without subsampling; sides are padded to blocks. The size is the largest
    change of a coefficient, in steps of the table at `quality`.

    Args:
        quality: of the table, 1 to 100 (the scaling of libjpeg).
    """

    shown = "quality"

    def __init__(self, ids: Tensor, labels: Tensor, x: Tensor, *, quality: int = 75, **kwargs: Any) -> None:
        channels, height, width = x.shape[1:]
        shape = (channels, -(-height // SIDE), -(-width // SIDE), SIDE, SIDE)
        super().__init__(ids, labels, x, shape, norm="linf", **kwargs)
        self.quality = quality

    def render(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        x = self.clean(rows)[:, 0]
        return x + decoded(theta, self.quality)[..., : x.shape[-2], : x.shape[-1]]

    def words(self, row: int, theta: Tensor) -> str:
        """In a line."""
        moved = int((theta != 0).sum())
        return f"{moved} of {theta.numel()} coefficients moved by up to {float(theta.abs().max()):.3g} steps"

    def view(self) -> dict[str, Tensor]:
        """`clean`: float32 (B, C, H, W)."""
        return {"clean": self.x}


def tables(quality: int, channels: int) -> Tensor:
    """float32 (C, 8, 8): step sizes in levels of 255; chrominance from the second of three channels on."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    found = [[min(max(math.floor((v * scale + 50) / 100), 1), 255) for v in t] for t in (LUMA, CHROMA)]
    chosen = [found[1] if channels == 3 and c else found[0] for c in range(channels)]
    return torch.tensor(chosen, dtype=torch.float32).view(channels, SIDE, SIDE)


def basis() -> Tensor:
    """float32 (8, 8): the orthonormal cosine transform, a row for each frequency."""
    k, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    rows = torch.cos((2 * x + 1) * k * math.pi / (2 * SIDE)) * math.sqrt(2 / SIDE)
    rows[0] /= math.sqrt(2)
    return rows.float()


def decoded(theta: Tensor, quality: int) -> Tensor:
    """The change of the image, float32 (n, C, 8 rows, 8 columns) in [0, 1] units, of coefficients theta."""
    n, channels, down, across = theta.shape[:4]
    cosine = basis().to(theta)
    scaled = theta * tables(quality, channels).to(theta).view(1, channels, 1, 1, SIDE, SIDE) / 255
    blocks = torch.einsum("ki,ncrskl,lj->ncrisj", cosine, scaled, cosine)
    image = blocks.reshape(n, channels, down * SIDE, across * SIDE)
    if channels != 3:
        return image
    y, cb, cr = image.unbind(1)  # the linear part of JFIF's YCbCr
    return torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1)


def encoded(change: Tensor, quality: int) -> Tensor:
    """The coefficients (n, C, rows, columns, 8, 8) whose `decoded` is a change (n, C, H, W), padded with zeros."""
    n, channels, height, width = change.shape
    image = F.pad(change, (0, -width % SIDE, 0, -height % SIDE))
    if channels == 3:
        r, g, b = image.unbind(1)
        y = 0.299 * r + 0.587 * g + 0.114 * b
        image = torch.stack([y, (b - y) / 1.772, (r - y) / 1.402], 1)
    down, across = image.shape[-2] // SIDE, image.shape[-1] // SIDE
    cosine = basis().to(change)
    blocks = image.view(n, channels, down, SIDE, across, SIDE)
    scaled = torch.einsum("ki,ncrisj,lj->ncrskl", cosine, blocks, cosine)
    return scaled * 255 / tables(quality, channels).to(change).view(1, channels, 1, 1, SIDE, SIDE)
