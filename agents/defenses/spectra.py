"""Noise reduction in the short-time spectrum: a noise estimate from the clip itself, and a gain for each cell."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TINY = 1e-12


def noise_power(power: Tensor, quantile: float) -> Tensor:
    """The noise in each bin, (n, bins, 1): a quantile over the frames that hold sound.

    Frames of digital silence (padding) do not count, or a padded clip would seem to have no noise.
    """
    frame = power.sum(1)
    alive = frame > 1e-8 * frame.amax(1, keepdim=True)
    ordered = torch.where(alive.unsqueeze(1), power, torch.inf).sort(dim=2).values
    at = (quantile * (alive.sum(1) - 1).clamp_min(0)).long()
    found = ordered.gather(2, at.view(-1, 1, 1).expand(-1, power.shape[1], 1))
    return torch.where(found.isfinite(), found, 0.0)


def denoised(
    x: Tensor, gain: Callable[[Tensor, Tensor], Tensor], *, quantile: float, size: int = 256
) -> Tensor:  # fmt: skip
    """Waveforms (n, samples) with each cell of their spectrum times gain(power, noise); differentiable throughout.

    Frames of `size` samples, Hann window, a quarter of a frame apart.
    """
    flat = x.reshape(-1, x.shape[-1])
    window = torch.hann_window(size, device=x.device, dtype=x.dtype)
    cells = torch.stft(flat, size, size // 4, window=window, pad_mode="constant", return_complex=True)
    power = cells.real.square() + cells.imag.square()
    cells = cells * gain(power, noise_power(power, quantile))
    return torch.istft(cells, size, size // 4, window=window, length=x.shape[-1]).reshape(x.shape)
