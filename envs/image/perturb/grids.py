"""Grids of vectors: how rough they are, and a look-up between their knots."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def roughness(theta: Tensor) -> Tensor:
    """The mean length of the differences of neighbours on a grid: theta (n, D, *grid) -> float32 (n,).

    Neighbours are one knot apart along one axis. A seminorm: 0 for what is the same everywhere.
    """
    lengths = [
        torch.linalg.vector_norm(theta.diff(dim=axis), dim=1).flatten(1)
        for axis in range(2, theta.dim())
        if theta.shape[axis] > 1
    ]
    return torch.cat(lengths, 1).mean(1) if lengths else theta.new_zeros(len(theta))


def looked_up(table: Tensor, at: Tensor) -> Tensor:
    """Multilinear values of a table (n, D, K) or (n, D, K, K, K) at places in [0, 1]: at (n, C, H, W) -> (n, D, H, W).

    C is 1 or 3, the number of the table's axes; the first place is along its first axis.
    """
    n, _, height, width = at.shape
    at = at.clamp(0, 1) * 2 - 1
    if table.dim() == 3:
        grid = torch.stack([at[:, 0], torch.zeros_like(at[:, 0])], 3)
        return F.grid_sample(table.unsqueeze(2), grid, mode="bilinear", padding_mode="border", align_corners=True)
    grid = at.flip(1).permute(0, 2, 3, 1).unsqueeze(1)  # grid_sample names the last axis first
    found = F.grid_sample(table, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return found.view(n, table.shape[1], height, width)
