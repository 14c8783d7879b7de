"""Windows and filters along the axes of a signal: the last of waveforms (n, samples), two of images (n, C, H, W)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def axes(x: Tensor) -> int:
    """How many trailing axes are space or time: 2 of images (n, C, H, W), else 1."""
    return 2 if x.dim() >= 4 else 1


def windowed(x: Tensor, size: int) -> Tensor:
    """Every window of `size` values an axis around each value, edges repeated: (*x.shape, size ** axes)."""
    many = axes(x)
    left = (size - 1) // 2
    y = padded(x, left, size - 1 - left)
    for axis in range(many):
        y = y.unfold(x.dim() - many + axis, size, 1)
    return y.reshape(*x.shape, size**many)


def padded(x: Tensor, left: int, right: int) -> Tensor:
    """Each spatial axis longer at both ends, by repeating its edge."""
    many, shape = axes(x), x.shape
    rows = x.reshape(-1, 1, *shape[-many:])
    y = F.pad(rows, [left, right] * many, mode="replicate")
    return y.reshape(*shape[:-many], *y.shape[-many:])


def sinc(cutoff: float, taps: int) -> Tensor:
    """A low-pass kernel, float32 (taps,), that sums to 1: sinc under a Hamming window.

    Args:
        cutoff: in (0, 1], as a share of half the sampling rate.
        taps: an odd number.
    """
    n = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    kernel = torch.special.sinc(cutoff * n) * torch.hamming_window(taps, periodic=False, dtype=torch.float64)
    return (kernel / kernel.sum()).float()


def band(low: float, high: float, taps: int) -> Tensor:
    """A band-pass kernel (taps,): what `sinc(high)` lets through and `sinc(low)` does not; low 0 for a low-pass."""
    kernel = sinc(high, taps)
    return kernel - sinc(low, taps) if low > 0 else kernel


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """X through the kernel along each of its spatial axes, edges repeated; the shape of x."""
    half = len(kernel) // 2
    y = padded(x, half, half)
    weight = kernel.to(x).view(1, 1, -1)
    for _ in range(axes(x)):
        last = y.shape[-1]
        rows = F.conv1d(y.reshape(-1, 1, last), weight)
        y = rows.reshape(*y.shape[:-1], last - 2 * half)
        if axes(x) == 2:
            y = y.transpose(-1, -2)
    return y


def frequency(hertz: float, rate: float) -> float:
    """A frequency as a share of half the sampling rate, at most 1."""
    return min(hertz / (rate / 2), 1.0) if math.isfinite(hertz) else 1.0
