"""JPEG compression in front of the victim (Dziugaite et al. 2016), with a differentiable approximation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym import Victim, register_defense
from advgym.agents.defenses.wrapping import before, straight_through
from advgym.lib.settings import Range

SIDE = 8
# ITU-T T.81, annex K: luminance, chrominance.
_LUMA = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMA = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@register_defense(
    "jpeg", domains=("image",), allowed={"quality": Range(1, 100), "backward": ("straight-through", "cubic")}
)
def defend(
    victim: Victim, task, *, quality: int = 50, backward: str = "straight-through", adaptive: bool = True
) -> Victim:
    """Images are compressed as JPEG of that quality and opened again, the colours of three channels at half size.

    Backward: DCT and colours as they are, and rounding either straight through (Athalye et al. 2018) or by the cubic
    of Shin and Song (2017), which is flat near whole numbers. `adaptive=False`: the gradient of rounding, zero.
    """

    def compress(x: Tensor) -> Tensor:
        return jpeg(x, quality, cubic=backward == "cubic")

    return before(victim, compress, f"jpeg({quality})", adaptive=adaptive, blocked=True)


def jpeg(x: Tensor, quality: int, *, cubic: bool = False) -> Tensor:
    """Images in [0, 1], (n, C, H, W), as a JPEG file holds them; channels of other than three are luminance each."""
    image = x * 255
    if x.shape[1] != 3:
        planes = plane(image, tables(quality)[0], cubic)
    else:
        mix = torch.tensor(_YCC, device=x.device, dtype=x.dtype)
        ycc = torch.einsum("ij,njhw->nihw", mix, image)
        luma = plane(ycc[:, :1], tables(quality)[0], cubic)
        small = F.avg_pool2d(ycc[:, 1:], 2, ceil_mode=True, count_include_pad=False)
        chroma = plane(small + 128, tables(quality)[1], cubic) - 128
        chroma = F.interpolate(chroma, scale_factor=2.0, mode="nearest")[..., : x.shape[2], : x.shape[3]]
        planes = torch.einsum("ij,njhw->nihw", torch.linalg.inv(mix), torch.cat([luma, chroma], 1))
    bytes_ = planes.clamp(0, 255)
    return straight_through(bytes_.round(), planes) / 255


def plane(x: Tensor, table: Tensor, cubic: bool) -> Tensor:
    """Planes (n, C, H, W) in 0..255 through quantised DCT blocks; sides are filled up by repeating the edge."""
    high, wide = x.shape[2:]
    x = F.pad(x - 128, (0, -wide % SIDE, 0, -high % SIDE), mode="replicate")
    blocks = x.unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE)
    d = dct().to(x)
    cells = d @ blocks @ d.T / table.to(x)
    cells = rounded(cells, cubic) * table.to(x)
    back = (d.T @ cells @ d).transpose(3, 4)
    return back.reshape(x.shape)[..., :high, :wide] + 128


def rounded(x: Tensor, cubic: bool) -> Tensor:
    """Round, with the gradient of the cubic r + (x - r)^3 or that of x."""
    r = x.round()
    return straight_through(r, r.detach() + (x - r.detach()) ** 3 if cubic else x)


def tables(quality: int) -> tuple[Tensor, Tensor]:
    """Quantisation tables (8, 8) of luminance and chrominance, scaled as the reference implementation does."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    found = [torch.tensor([float(v) for v in t.split()]).view(SIDE, SIDE) for t in (_LUMA, _CHROMA)]
    luma, chroma = (((t * scale + 50) / 100).floor().clamp(1, 255) for t in found)
    return luma, chroma


def dct() -> Tensor:
    """The orthonormal DCT-II matrix (8, 8)."""
    n = torch.arange(SIDE, dtype=torch.float64)
    d = torch.cos(math.pi / SIDE * (n + 0.5) * n.view(-1, 1)) * math.sqrt(2 / SIDE)
    d[0] /= math.sqrt(2)
    return d.float()
