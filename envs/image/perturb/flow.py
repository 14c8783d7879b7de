"""A flow moves pixels: spatially transformed examples (Xiao et al. 2018)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core.kinds.mapped import MappedBatch
from advgym.envs.image.perturb.grids import roughness


class FlowBatch(MappedBatch):
    """B images; theta (2, H, W) says how many pixels down and to the right each pixel takes its value from.

    Its size is the longest displacement, in pixels, plus `smooth` times the mean difference of neighbours' (the flow
    loss of the paper): together a norm, so that a large move must be a smooth one.

    Args:
        smooth: weight of the roughness, at least 0.
    """

    shown = "smooth"

    def __init__(self, ids: Tensor, labels: Tensor, x: Tensor, *, smooth: float = 1.0, **kwargs: Any) -> None:
        super().__init__(ids, labels, x, (2, *x.shape[-2:]), norm="flow", **kwargs)
        self.smooth = smooth

    def render(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        """Bilinear, the border repeated."""
        x = self.clean(rows)[:, 0]
        return x + (warp(x, theta) - warp(x, torch.zeros_like(theta)))  # exactly x where nothing moves

    def measure(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        longest = torch.linalg.vector_norm(theta, dim=1).flatten(1).amax(1)
        return longest + self.smooth * roughness(theta)

    def unit(self, g: Tensor, rows: Tensor | None) -> Tensor:
        """Each pixel a whole pixel along its own gradient."""
        length: Tensor = torch.linalg.vector_norm(g, dim=1, keepdim=True)
        return g / length.clamp_min(1e-12)

    def words(self, row: int, theta: Tensor) -> str:
        """In a line."""
        longest = float(torch.linalg.vector_norm(theta, dim=0).max())
        return f"pixels moved by up to {longest:.2f}, {float(roughness(theta.unsqueeze(0))):.2f} apart"

    def view(self) -> dict[str, Tensor]:
        """`clean`: float32 (B, C, H, W)."""
        return {"clean": self.x}


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Images (n, C, H, W), each pixel with the value found `flow` (n, 2, H, W) pixels away."""
    height, width = x.shape[-2:]
    down, right = torch.meshgrid(
        torch.arange(height, dtype=x.dtype, device=x.device), torch.arange(width, dtype=x.dtype, device=x.device),
        indexing="ij",
    )  # fmt: skip
    scale = torch.tensor([max(width - 1, 1), max(height - 1, 1)], dtype=x.dtype, device=x.device) / 2
    at = torch.stack([right + flow[:, 1], down + flow[:, 0]], 3) / scale - 1
    return F.grid_sample(x, at, mode="bilinear", padding_mode="border", align_corners=True)
