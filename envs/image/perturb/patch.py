"""A patch: a texture laid over part of the image, wherever it comes to lie (Brown et al. 2017)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core import rng
from advgym.core.batch import pick
from advgym.envs.image.perturb.shared import SharedBatch

STREAM = 21


class Draws(NamedTuple):
    """How much of each there is at random: `place` in [0, 1] (of all places), degrees, shares of size and light."""

    place: float = 1.0
    turn: float = 20.0
    scale: float = 0.1
    light: float = 0.1


class PatchBatch(SharedBatch):
    """B bundles of M images x (B, M, C, H, W), a patch on each; every member has a place, turn, size and light.

    Theta (C + 1, S, S): the texture less 0.5, and a plane whose upper half says how far the patch lies below the
    place drawn for it and whose lower half how far to the right of it (means, 0.5 for half of the way there is).
    All zeros is no patch. Its size is the share of the image that it covers.

    Args:
        side: S, pixels; draws: how place, turn, size and light vary.
        keys: int64 (B,), of the draws; None for the samples' own, which a verdict replaces.
    """

    shown = "side draws pose"
    homogeneous = False

    def __init__(
        self, ids: Tensor, labels: Tensor, x: Tensor, *, side: int, draws: Draws, keys: Tensor | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        height, width = x.shape[-2:]
        share = side * side / (height * width)
        super().__init__(ids, labels, x, norm="patch", radius=share, most=0.5, **kwargs)
        self.shape = (x.shape[2] + 1, side, side)
        self.size = math.prod(self.shape)
        self.side, self.draws = side, tuple(draws)
        self.pose = posed(ids if keys is None else keys, self.members, Draws(*draws))

    def widened(self, factor: float) -> PatchBatch:
        """The same samples under a patch of `factor` times the area, at most the whole image."""
        side = min(math.ceil(self.side * math.sqrt(factor)), *self.image[1:])
        shape = (self.image[0] + 1, side, side)
        radius = torch.full_like(self.radius, side * side / (self.image[1] * self.image[2]))
        return self.like(shape=shape, side=side, size=math.prod(shape), radius=radius, reach=radius)

    def words(self, row: int, theta: Tensor) -> str:
        """In a line."""
        on = bool((theta != 0).any())
        return f"a patch of {self.side}x{self.side}, {float(self.radius[row]):.1%} of the image" if on else "no patch"

    def measure(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        """The share covered where there is a patch; without slope but that of its texture's size, for what asks."""
        flat = theta.reshape(len(theta), self.size)
        on = (flat.detach() != 0).any(1)
        share = torch.where(on, pick(self.radius, rows), 0.0)
        if not theta.requires_grad:
            return share
        mean = flat.abs().mean(1)
        return share + (mean - mean.detach())

    def unit(self, g: Tensor, rows: Tensor | None) -> Tensor:
        """So much that 1 / radius of it, the texture's whole range, is what the size 1 asks for."""
        return g.sign() / pick(self.radius, rows).view(-1, 1, 1, 1)

    def render(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        x, pose = pick(self.x, rows), pick(self.pose, rows)
        n, members, channels, height, width = x.shape
        texture, plane = theta[:, :channels] + 0.5, theta[:, channels]
        half = max(self.side // 2, 1)
        shift = torch.stack([plane[:, :half].mean((1, 2)), plane[:, -half:].mean((1, 2))], 1)
        grid = self._grid(shift, pose, height, width)
        lit = texture.unsqueeze(1) * pose[..., 4].view(n, members, 1, 1, 1)
        ones = lit.new_ones(n, members, 1, self.side, self.side)
        both = torch.cat([lit, ones], 2).flatten(0, 1)
        laid = F.grid_sample(both, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        laid = laid.view(n, members, channels + 1, height, width)
        cover, paint = laid[:, :, channels:], laid[:, :, :channels]
        on = (theta.detach().reshape(n, -1) != 0).any(1).view(-1, 1, 1, 1, 1)
        # No patch has the gradient of the patch that would appear.
        return torch.where(on, x * (1 - cover) + paint, x + (paint - paint.detach()))

    def _grid(self, shift: Tensor, pose: Tensor, height: int, width: int) -> Tensor:
        """Where in the texture each pixel of each member looks: float32 (n * M, H, W, 2)."""
        zoom = pose[..., 3]
        reach = torch.stack([height - self.side * zoom, width - self.side * zoom], 2).clamp_min(0) / 2
        centre = (pose[..., :2] + 2 * shift.unsqueeze(1)).clamp(-1, 1) * reach  # pixels from the middle
        down = torch.arange(height, device=pose.device) + 0.5 - height / 2
        right = torch.arange(width, device=pose.device) + 0.5 - width / 2
        dy = down.view(1, 1, -1, 1) - centre[..., 0].view(*zoom.shape, 1, 1)
        dx = right.view(1, 1, 1, -1) - centre[..., 1].view(*zoom.shape, 1, 1)
        cos, sin = (f(pose[..., 2]).view(*zoom.shape, 1, 1) for f in (torch.cos, torch.sin))
        scale = (zoom * self.side / 2).view(*zoom.shape, 1, 1)
        at = torch.stack([(cos * dx + sin * dy) / scale, (cos * dy - sin * dx) / scale], 4)
        return at.flatten(0, 1)

    def fresh(self, keys: Tensor) -> PatchBatch:
        """The same images under other places, turns, sizes and lights."""
        return self.like(pose=posed(keys, self.members, Draws(*self.draws)))


def posed(keys: Tensor, members: int, draws: Draws) -> Tensor:
    """float32 (B, M, 5): place down and right in [-1, 1], turn in radians, size and light as factors; by key."""
    u = rng.uniform(0, keys, (members, 5), STREAM) * 2 - 1
    most = torch.tensor([draws.place, draws.place, math.radians(draws.turn), draws.scale, draws.light]).to(u)
    return u * most + torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0]).to(u)
