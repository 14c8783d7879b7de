"""A small network that an attacker trains for itself on public data, whatever the inputs are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPOCHS, BATCH, RATE = 10, 64, 3e-3
WINDOW, HOP = 256, 128  # of a signal's spectrum, in samples


class Spectrum(nn.Module):
    """Log power of a signal's windows: (n, samples) -> (n, 1, bins, frames)."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW))

    def forward(self, x: Tensor) -> Tensor:
        size = min(WINDOW, x.shape[1])
        power = torch.stft(x, WINDOW, HOP, window=self.window, return_complex=True, pad_mode="constant")
        return torch.log(power.abs().square() + 1e-4 * size).unsqueeze(1)


def network(shape: tuple[int, ...], classes: int, width: int = 16) -> nn.Module:
    """Two convolutions and a layer: of images (C, H, W) as they are, of signals (samples,) by their spectrum."""
    front: list[nn.Module] = [Spectrum()] if len(shape) == 1 else []
    channels = 1 if len(shape) == 1 else shape[0]
    body = [
        nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(16 if len(shape) == 1 else 8),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, classes),
    ]  # fmt: skip
    return nn.Sequential(*front, *body)


def trained(x: Tensor, labels: Tensor, classes: int, seed: int, epochs: int = EPOCHS) -> nn.Module:
    """The network after Adam on clean inputs (N, *shape), frozen; the same for a seed, whoever asks."""
    cuda = [x.device.index or 0] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.enable_grad():
        torch.manual_seed(seed)
        net = network(tuple(x.shape[1:]), classes)
        net(x[:1].cpu())
        net.to(x.device).train()
        optimiser = torch.optim.Adam(net.parameters(), RATE)
        for _ in range(epochs):
            for index in torch.randperm(len(x)).to(x.device).split(BATCH):  # type: ignore[no-untyped-call]
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(x[index]), labels[index]).backward()
                optimiser.step()
    return net.eval().requires_grad_(False)
