"""Perceptual distance: how far a network's features move (LPIPS: Zhang et al. 2018; attacks: Laidlaw et al. 2021)."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core import rng
from advgym.core.batch import pick
from advgym.core.kinds.mapped import MappedBatch
from advgym.core.task import load_victim
from advgym.errors import AdvgymError, VictimError

ACTIVE = (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.ELU, nn.Tanh, nn.Hardswish)


class Features:
    """Normalised features of a network: every activation layer's output, a unit vector of channels at each place.

    The squared distance of two images is the mean over places, summed over layers: LPIPS without its learned weights.

    Args:
        name: of a registered victim; anyone can load it again, so it may leave the evaluator.
        module: a network of the caller's own in its place, which may not.
    """

    def __init__(self, name: str = "", module: nn.Module | None = None) -> None:
        found = load_victim(name).module if module is None else module
        if found is None:
            raise AdvgymError(f"victim {name!r} is no network, so it has no features to measure by")
        # A copy: its hooks see nobody else's inputs, and moving it moves nobody else's network.
        self.name, self._own = name, module is not None
        self.module = copy.deepcopy(found).eval().requires_grad_(False)
        self.layers = [m for m in self.module.modules() if isinstance(m, ACTIVE)]
        if not self.layers:
            kinds = ", ".join(k.__name__ for k in ACTIVE)
            raise AdvgymError(
                f"network {name or type(found).__name__!r} has no activation layers ({kinds}) to measure by"
            )

    def public(self) -> dict[str, Any]:
        """The name, by which the other side of a boundary makes it again.

        Raises:
            TypeError: for a network of the caller's own.
        """
        if self._own:
            raise TypeError("distances by a network of your own do not leave this process: name a registered one")
        return {"name": self.name}

    def __call__(self, x: Tensor) -> Tensor:
        """X (n, C, H, W) to float32 (n, F), differentiable."""
        found: list[Tensor] = []
        hooks = [m.register_forward_hook(lambda _m, _i, out: found.append(out)) for m in self.layers]
        try:
            self.module(x)
        finally:
            for hook in hooks:
                hook.remove()
        if not found or any(f.shape[0] != len(x) for f in found):
            raise VictimError("the network that measures distances answers with other rows than it was given")
        return torch.cat([_unit(f) for f in found], 1)

    def on(self, device: torch.device) -> Features:
        """This network on a device: itself where it is there already, else a copy."""
        some = next(self.module.parameters(), None)
        if some is None or some.device == device:
            return self
        twin = copy.copy(self)
        twin.module = copy.deepcopy(self.module).to(device)
        twin.layers = [m for m in twin.module.modules() if isinstance(m, ACTIVE)]
        return twin


def _unit(f: Tensor) -> Tensor:
    """Features (n, C, *places) with unit channels, flat, divided by the root of the number of places."""
    places = math.prod(f.shape[2:])
    length = (f.square().sum(1, keepdim=True) + 1e-10).sqrt()
    return (f / length / math.sqrt(places)).flatten(1)


class PerceptualBatch(MappedBatch):
    """B images with theta (C, H, W) added to them; its size is the distance of the features of a network.

    Args:
        features: the network; kwargs: `radius` and more of `MappedBatch`.
    """

    shown = "features gain anchor"
    homogeneous = False

    def __init__(self, ids: Tensor, labels: Tensor, x: Tensor, *, features: Features, **kwargs: Any) -> None:
        super().__init__(ids, labels, x, tuple(x.shape[1:]), norm="perceptual", most=1.0, **kwargs)
        self.features = features.on(x.device)
        with torch.no_grad():
            self.anchor = self.features(x)  # of the clean images
            # How far a step of noise goes tells how long a step of size 1 is.
            noise = (rng.uniform(0, ids, self.shape, 16) * 2 - 1).sign() * 0.05
            self.gain = 0.05 / self.measure(noise, None).clamp_min(1e-3)

    def widened(self, factor: float) -> PerceptualBatch:
        """The same samples with `factor` times the radius."""
        twin = super().widened(factor)
        twin.most = self.most  # all of the box is open already
        assert isinstance(twin, PerceptualBatch)
        return twin

    def render(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        return pick(self.x, rows) + theta

    def measure(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        """Of the image as the victim sees it, on its lattice."""
        moved = self.features(self.inputs(theta, rows)) - pick(self.anchor, rows)
        return torch.linalg.vector_norm(moved, dim=1)

    def unit(self, g: Tensor, rows: Tensor | None) -> Tensor:
        return g.sign() * pick(self.gain, rows).view(-1, 1, 1, 1)

    def project(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """Clamped to the box first, then drawn towards the clean image by halving."""
        x = pick(self.x, rows)
        p = torch.nan_to_num(p, nan=0.0, posinf=1.0, neginf=-1.0)
        return super().project(torch.minimum(torch.maximum(p, self.low - x), self.high - x), rows)

    def words(self, row: int, theta: Tensor) -> str:
        """In a line."""
        rows = torch.tensor([row], device=theta.device)
        with torch.no_grad():
            return (
                f"{float(self.measure(theta.unsqueeze(0), rows)):.3f} in the features of {self.features.name or 'own'}"
            )

    def view(self) -> dict[str, Tensor]:
        """`clean`: float32 (B, C, H, W)."""
        return {"clean": self.x}
