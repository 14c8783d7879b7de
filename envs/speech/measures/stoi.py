"""Short-time objective intelligibility (Taal, Hendriks, Heusdens & Jensen 2011), batched."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

RATE = 10_000  # Hz, at which the measure is defined
FRAME, SIZE = 256, 512  # samples of a window, and of its Fourier transform
HOP = FRAME // 2
BANDS, LOWEST = 15, 150.0  # third octaves from here on
SEGMENT = 30  # frames that are correlated: 384 ms
QUIET = 40.0  # dB below the loudest frame of the clean clip: such frames are left out
CLIP = 1 + 10 ** (15 / 20)  # the paper's beta is -15 dB
SHORT = (SEGMENT - 1) * HOP + FRAME  # samples at 10 kHz that one segment needs


def stoi(clean: Tensor, heard: Tensor, length: Tensor, rate: int, short: float = -1.0) -> Tensor:
    """Intelligibility of each pair of clips, float32 (n,): 1 for the clean clip itself, near 0 for noise alone.

    A clip with fewer than 30 frames (0.4 s) above its quiet ones has none and gets `short`.

    Args:
        clean, heard: (n, samples); length: int64 (n,), samples before the padding; rate: in Hz.
    """
    import torchaudio.functional as A

    x, y = (A.resample(t.double(), rate, RATE) if rate != RATE else t.double() for t in (clean, heard))
    end = (length.double() * RATE / rate).ceil().long()
    if x.shape[1] < SHORT:
        return torch.full((len(x),), short, device=x.device)
    window = torch.hann_window(FRAME + 2, periodic=False, dtype=x.dtype, device=x.device)[1:-1]
    frames = [t.unfold(1, FRAME, HOP) * window for t in (x, y)]
    count = ((end - FRAME) // HOP + 1).clamp_min(0)
    place = torch.arange(frames[0].shape[1], device=x.device)
    inside = place < count.unsqueeze(1)
    energy = 20 * torch.log10(torch.linalg.vector_norm(frames[0], dim=2) + torch.finfo(x.dtype).tiny)
    energy = torch.where(inside, energy, -torch.inf)
    kept = inside & (energy > energy.amax(1, keepdim=True) - QUIET)
    order = torch.where(kept, place, len(place)).argsort(dim=1, stable=True)  # kept frames first, in their order
    many = kept.sum(1)
    parts = []
    for t in frames:  # the kept frames are added up to a signal again, as the paper's implementation does
        shut = torch.where(kept.unsqueeze(2), t, 0.0).gather(1, order.unsqueeze(2).expand_as(t))
        wide = HOP * (shut.shape[1] - 1) + FRAME
        joined = F.fold(shut.transpose(1, 2), (1, wide), (1, FRAME), stride=(1, HOP)).view(len(t), wide)
        again = torch.fft.rfft(joined.unfold(1, FRAME, HOP) * window, n=SIZE)
        power = again.real.square() + again.imag.square()
        parts.append(torch.sqrt(power @ _bands(x.device)))  # (n, frames, bands)
    return _correlation(parts[0], parts[1], many, short)


def _correlation(x: Tensor, y: Tensor, many: Tensor, short: float) -> Tensor:
    """The mean correlation of all segments of 30 frames and all bands; `many` int64 (n,): frames of each clip."""
    if x.shape[1] < SEGMENT:
        return torch.full((len(x),), short, device=x.device)
    x, y = x.unfold(1, SEGMENT, 1), y.unfold(1, SEGMENT, 1)  # (n, segments, bands, 30)
    tiny = torch.finfo(x.dtype).eps
    gain = torch.linalg.vector_norm(x, dim=3, keepdim=True) / (torch.linalg.vector_norm(y, dim=3, keepdim=True) + tiny)
    y = torch.minimum(y * gain, x * CLIP)
    x, y = x - x.mean(3, keepdim=True), y - y.mean(3, keepdim=True)
    size = torch.linalg.vector_norm(x, dim=3) * torch.linalg.vector_norm(y, dim=3)
    each = ((x * y).sum(3) / (size + tiny)).mean(2)
    segments = many - SEGMENT + 1
    inside = torch.arange(each.shape[1], device=x.device) < segments.unsqueeze(1)
    mean = torch.where(inside, each, 0.0).sum(1) / segments.clamp_min(1)
    return torch.where(segments > 0, mean, short).float()


@lru_cache(maxsize=4)
def _bands(device: torch.device) -> Tensor:
    """Third octaves as a 0-1 matrix, float64 (bins, 15); their edges are the nearest bins."""
    hertz = torch.arange(SIZE // 2 + 1, dtype=torch.float64) * RATE / SIZE
    out = torch.zeros(len(hertz), BANDS, dtype=torch.float64)
    for band in range(BANDS):
        centre = LOWEST * 2 ** (band / 3)
        low, high = ((hertz - centre * 2**k).abs().argmin() for k in (-1 / 6, 1 / 6))
        out[int(low) : int(high), band] = 1.0
    return out.to(device)
