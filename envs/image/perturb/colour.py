"""A map of colours: every pixel of one colour is moved alike (ReColorAdv: Laidlaw & Feizi 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgym.core.kinds.mapped import MappedBatch
from advgym.envs.image.perturb.grids import looked_up, roughness

WHITE = (0.95047, 1.0, 1.08883)  # D65
RGB_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))


class ColourBatch(MappedBatch):
    """B images; theta holds a shift for each knot of a grid over the colours, and pixels are moved as theirs say.

    RGB: theta (3, K, K, K), shifts in CIELUV, coordinates in hundreds (L* in [0, 1], u* and v* in [-1, 1]), of knots
    in that space. One channel: theta (1, K), shifts of grey levels. Its size is the largest shift of a coordinate, plus
    `smooth` times the mean difference of neighbouring knots.

    Args:
        knots: K; smooth: weight of the roughness, at least 0.
    """

    shown = "smooth knots"

    def __init__(
        self, ids: Tensor, labels: Tensor, x: Tensor, *, knots: int = 8, smooth: float = 0.5, **kwargs: Any
    ) -> None:
        channels = x.shape[1]
        shape = (1, knots) if channels == 1 else (3, knots, knots, knots)
        super().__init__(ids, labels, x, shape, norm="colour", **kwargs)
        self.knots, self.smooth = knots, smooth

    def render(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        """Multilinear between knots."""
        x = self.clean(rows)[:, 0]
        if x.shape[1] == 1:
            return x + looked_up(theta, x)
        colour = luv(x)
        place = torch.stack([colour[:, 0], (colour[:, 1] + 1) / 2, (colour[:, 2] + 1) / 2], 1)
        return x + (rgb(colour + looked_up(theta, place)) - rgb(colour))  # exactly x where nothing moves

    def measure(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        return theta.abs().flatten(1).amax(1) + self.smooth * roughness(theta)

    def unit(self, g: Tensor, rows: Tensor | None) -> Tensor:
        return g.sign()

    def words(self, row: int, theta: Tensor) -> str:
        """In a line."""
        where = "grey levels" if len(theta) == 1 else "CIELUV colours"
        return f"{where} moved by up to {float(theta.abs().max()):.3f}"

    def view(self) -> dict[str, Tensor]:
        """`clean`: float32 (B, C, H, W)."""
        return {"clean": self.x}


def luv(x: Tensor) -> Tensor:
    """SRGB in [0, 1], (n, 3, H, W), to CIELUV in hundreds (CIE 1976; IEC 61966-2-1), float32."""
    linear = torch.where(x > 0.04045, ((x.clamp_min(1e-6) + 0.055) / 1.055) ** 2.4, x / 12.92)
    xyz = torch.einsum("ij,njhw->nihw", x.new_tensor(RGB_TO_XYZ), linear)
    y = xyz[:, 1] / WHITE[1]
    light = torch.where(y > (6 / 29) ** 3, 1.16 * y.clamp_min(1e-6) ** (1 / 3) - 0.16, (29 / 3) ** 3 * y / 100)
    below = (xyz[:, 0] + 15 * xyz[:, 1] + 3 * xyz[:, 2]).clamp_min(1e-6)
    u0, v0 = _white()
    u, v = 4 * xyz[:, 0] / below, 9 * xyz[:, 1] / below
    return torch.stack([light, 13 * light * (u - u0), 13 * light * (v - v0)], 1)


def rgb(colour: Tensor) -> Tensor:
    """The inverse of `luv`; colours that no screen has are left beyond [0, 1]."""
    light, u, v = colour[:, 0].clamp_min(1e-4), colour[:, 1], colour[:, 2]
    u0, v0 = _white()
    up, vp = u / (13 * light) + u0, (v / (13 * light) + v0).clamp_min(1e-2)
    y = torch.where(light > 0.08, ((light + 0.16) / 1.16) ** 3, light * 100 * (3 / 29) ** 3)
    xyz = torch.stack([y * 9 * up / (4 * vp), y, y * (12 - 3 * up - 20 * vp) / (4 * vp)], 1)
    back = torch.linalg.inv(torch.tensor(RGB_TO_XYZ, dtype=torch.float64)).to(colour)
    linear = torch.einsum("ij,njhw->nihw", back, xyz)
    return torch.where(
        linear > 0.0031308, 1.055 * linear.clamp_min(1e-6) ** (1 / 2.4) - 0.055, 12.92 * linear.clamp(-1, 1)
    )


def _white() -> tuple[float, float]:
    below = WHITE[0] + 15 * WHITE[1] + 3 * WHITE[2]
    return 4 * WHITE[0] / below, 9 * WHITE[1] / below
