"""Small classifiers of two channels, fused early, in the middle or late; a signal is read as a log spectrogram."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.core.kinds.parts import split
from advgym.errors import unknown

SIDE = 32  # of the common grid of early fusion
WINDOW, HOP = 256, 128  # samples of a spectrum's window
FLOOR = 1e-3  # of power: below the hiss of recordings


class Grid(nn.Module):
    """A channel as an image: images as they are, signals (n, samples) as log power (n, 1, bins, frames)."""

    window: Tensor

    def __init__(self, signal: bool) -> None:
        super().__init__()
        self.signal = signal
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.signal:
            return x
        power = torch.stft(x, WINDOW, HOP, window=self.window, return_complex=True, pad_mode="constant")
        return (torch.log(power.abs().square() + FLOOR) / 4).unsqueeze(1)


def encoder(channels: int, width: int) -> nn.Sequential:
    """Two convolutions to (n, 2 width, 4, 4), flat."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(8),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
    )  # fmt: skip


class Fused(nn.Module):
    """Flat pairs (n, D) -> scores (n, classes).

    Args:
        shapes: of both channels.
        fusion: "early" (both on one grid, then one net), "middle" (a net each, features joined), "late" (a classifier
            each, the mean of their log probabilities).
    """

    def __init__(self, shapes: list[tuple[int, ...]], classes: int, fusion: str, width: int = 16) -> None:
        super().__init__()
        if fusion not in ("early", "middle", "late"):
            raise unknown("fusion", fusion, ["early", "middle", "late"])
        self.shapes, self.fusion, features = [tuple(s) for s in shapes], fusion, 2 * width * 16
        self.grids = nn.ModuleList(Grid(len(s) == 1) for s in self.shapes)
        depth = [1 if len(s) == 1 else s[0] for s in self.shapes]
        ways = [sum(depth)] if fusion == "early" else depth
        self.nets = nn.ModuleList(encoder(d, width) for d in ways)
        heads = 2 if fusion == "late" else 1
        inner = features * (2 if fusion == "middle" else 1)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(inner, 64), nn.ReLU(), nn.Linear(64, classes)) for _ in range(heads)
        )

    def forward(self, x: Tensor) -> Tensor:
        seen = [grid(part) for grid, part in zip(self.grids, split(x, self.shapes), strict=True)]
        if self.fusion == "early":
            seen = [F.interpolate(s, (SIDE, SIDE), mode="bilinear", align_corners=False) for s in seen]
            scores: Tensor = self.heads[0](self.nets[0](torch.cat(seen, 1)))
            return scores
        told = [net(s) for net, s in zip(self.nets, seen, strict=True)]
        if self.fusion == "middle":
            scores = self.heads[0](torch.cat(told, 1))
            return scores
        each = [head(t).log_softmax(1) for head, t in zip(self.heads, told, strict=True)]
        return (each[0] + each[1]) / 2
