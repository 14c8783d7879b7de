"""One definition each of how large a perturbation of a recording is: SNR, dB_x, segmental SNR; all batched."""

from __future__ import annotations

import torch
from torch import Tensor

SEGMENT = 0.032  # seconds
LEAST, MOST = -10.0, 35.0  # dB that one segment may count (Deller, Hansen & Proakis 2000)


def snr_db(clean: Tensor, change: Tensor, support: Tensor | None = None) -> Tensor:
    """Signal-to-noise ratio in dB, 10 log10(sum x^2 / sum d^2) over the supported samples, float32 (n,).

    A ratio of powers (not of peaks or of spectrogram amplitudes); +inf for no change. Inputs (n, samples).
    """
    x, d = clean.double(), change.double()
    if support is not None:
        x, d = x * support, d * support
    return (10.0 * torch.log10(x.square().sum(-1) / d.square().sum(-1))).float()


def peak_db(clean: Tensor, change: Tensor) -> Tensor:
    """dB_x of Carlini and Wagner (2018): 20 log10 max|d| - 20 log10 max|x|, float32 (n,); -inf for no change."""
    x, d = clean.double().abs().amax(-1), change.double().abs().amax(-1)
    return (20.0 * torch.log10(d / x)).float()


def segmental_snr_db(clean: Tensor, change: Tensor, length: Tensor, rate: int) -> Tensor:
    """Segmental SNR in dB, float32 (n,): the mean SNR of 32 ms segments, each clamped to [-10, 35] dB.

    Whole segments before the padding count, and a clip of less than one counts as one. A segment in which the clean
    clip is silent counts -10 where it was changed and 35 where it was not.

    Args:
        clean, change: (n, samples); length: int64 (n,).
    """
    wide = max(1, round(rate * SEGMENT))
    samples = clean.shape[1]
    pad = -samples % wide
    power = [torch.nn.functional.pad(t.double(), (0, pad)).square().unflatten(1, (-1, wide)).sum(2)
             for t in (clean, change)]  # fmt: skip
    ratio = 10 * torch.log10(power[0] / power[1])
    ratio = torch.where(power[1] == 0, MOST, ratio).clamp(LEAST, MOST)
    count = (length // wide).clamp_min(1)
    inside = torch.arange(ratio.shape[1], device=clean.device) < count.unsqueeze(1)
    return (torch.where(inside, ratio, 0.0).sum(1) / count).float()
