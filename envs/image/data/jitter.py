"""New images from old ones: a small keyed turn, scale and shift of each, on the same levels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core import rng

TURN = 10.0  # degrees, either way
SCALE = 0.07  # larger or smaller by this share
SHIFT = 0.05  # of the width or height, either way


def jittered(levels: Tensor, top: int, seed: int, keys: Tensor) -> Tensor:
    """Images uint8 (n, C, H, W) with levels 0 to `top`, each under an affine map drawn by (seed, key).

    Bilinear, in float64, rounded back to whole levels; what comes from outside is black.
    """
    u = rng.uniform(seed, keys, (4,), 2).double() * 2 - 1
    angle, zoom, move = u[:, 0] * math.radians(TURN), 1 + u[:, 1] * SCALE, u[:, 2:] * 2 * SHIFT
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = (torch.stack([cos, -sin, move[:, 0]], 1), torch.stack([sin, cos, move[:, 1]], 1))
    grid = F.affine_grid(torch.stack(rows, 1), list(levels.shape), align_corners=False)
    moved = F.grid_sample(levels.double(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved.round().clamp(0, top).to(torch.uint8)
