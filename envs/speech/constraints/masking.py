"""Psychoacoustic masking: how far the power of a perturbation rises above what a clean clip hides.

The model is ISO/IEC 11172-3's first (MPEG-1), as Painter and Spanias (2000) state it: tonal and noise maskers on the Bark
scale, a spreading function whose upper slope depends on the level, and Terhardt's (1979) threshold in quiet. One
function, `power_db`, gives the spectral density of the clean clip and of the perturbation: they share one calibration.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

FULL = 96.0  # dB of sound pressure that a sine of full scale is taken to be played at
MOST_QUIET = 40.0  # dB: Terhardt's formula grows without bound towards 0 Hz, where no loudspeaker follows
FLOOR = -40.0  # dB: below every threshold, so an unchanged cell has no gradient and no excess
WINDOW, HOP = 0.064, 0.016  # seconds: 512 and 128 samples at 8 kHz
TONE = 7.0  # dB that a tone's peak stands above its surroundings
APART = 0.5  # Bark: of two maskers nearer than this the louder one stays
CHUNK = 384  # frames whose maskers are spread together


class Scale(NamedTuple):
    """Frequencies of one sampling rate: all tensors have one entry per bin."""

    size: int  # of the window, samples
    hop: int
    window: Tensor
    bark: Tensor
    quiet: Tensor  # dB: the threshold in quiet
    band: Tensor  # int64: critical band
    low: Tensor  # int64: first bin within `APART` Bark
    high: Tensor  # int64: the one after the last


@lru_cache(maxsize=16)
def scale_of(rate: int, device: torch.device) -> Scale:
    """The bins of a rate in Hz; windows of 64 ms, 16 ms apart."""
    size, hop = 2 * max(8, round(rate * WINDOW / 2)), max(4, round(rate * HOP))
    bins = size // 2 + 1
    hertz = torch.arange(bins, dtype=torch.float64) * rate / size
    hertz[0] = hertz[1] / 2
    bark = 13 * torch.atan(0.00076 * hertz) + 3.5 * torch.atan((hertz / 7500).square())
    khz = hertz / 1000
    quiet = 3.64 * khz**-0.8 - 6.5 * torch.exp(-0.6 * (khz - 3.3).square()) + 1e-3 * khz**4
    low, high = torch.searchsorted(bark, bark - APART), torch.searchsorted(bark, bark + APART, right=True)
    window = torch.hann_window(size, dtype=torch.float64)
    floats = (t.float().to(device) for t in (window, bark, quiet.clamp_max(MOST_QUIET)))
    whole = (t.to(device) for t in (bark.long(), low, high))
    window, bark, quiet = floats
    band, low, high = whole
    return Scale(size, hop, window, bark, quiet, band, low, high)


def spectrum(x: Tensor, rate: int) -> Tensor:
    """Windowed Fourier transform of (n, samples), complex (n, frames, bins); a full-scale sine has magnitude 1."""
    s = scale_of(rate, x.device)
    padded = F.pad(x.float(), (s.size // 2, s.size // 2 + s.hop))
    frames = padded.unfold(1, s.size, s.hop)[:, : frame_count(x.shape[1], rate)]
    return torch.fft.rfft(frames * s.window) * (4 / s.size)


def frame_count(samples: int, rate: int) -> int:
    """Frames that begin their hop inside so many samples."""
    return max(1, -(-samples // max(4, round(rate * HOP))))


def power_db(x: Tensor, rate: int) -> Tensor:
    """Power spectral density in dB of sound pressure, float32 (n, frames, bins); differentiable, finite at silence.

    The one calibration of this module: a sine of full scale has 96 dB, whoever asks.
    """
    z = spectrum(x, rate)
    power = z.real.square() + z.imag.square()
    return FULL + 10 * torch.log10(power + 10 ** ((FLOOR - FULL) / 10))


def _window_max(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The largest value of each bin's range [low, high), over the last axis: a table of powers of two."""
    tables, wide = [values], 1
    most = int((high - low).max())
    while 2 * wide <= most:
        last = tables[-1]
        tables.append(torch.maximum(last, F.pad(last[..., wide:], (0, wide), value=-torch.inf)))
        wide *= 2
    level = torch.log2((high - low).double()).long()
    stack = torch.stack(tables)
    at = torch.arange(values.shape[-1], device=values.device)
    left = stack.permute(0, stack.dim() - 1, *range(1, stack.dim() - 1))[level[at], low]
    right = stack.permute(0, stack.dim() - 1, *range(1, stack.dim() - 1))[level[at], high - 2 ** level[at]]
    return torch.maximum(left, right).movedim(0, -1)


def _maskers(db: Tensor, s: Scale) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(levels, Bark) of tonal and of noise maskers of frames (m, bins): (m, T), (m, T), (m, bands), (bands,).

    A masker that is inaudible, or within half a Bark of a louder one of its kind, has level -inf.
    """
    power = torch.pow(10.0, db / 10)
    near = F.pad(db, (3, 3), value=-torch.inf)
    bins = db.shape[1]

    def shifted(k: int) -> Tensor:
        return near[:, 3 + k : 3 + k + bins]

    tone = (db > shifted(-1)) & (db >= shifted(1))
    for k in (-3, -2, 2, 3):  # beyond the window's own lobe
        tone = tone & (db >= shifted(k) + TONE)
    tone[:, 0] = tone[:, -1] = False
    total = F.avg_pool1d(power.unsqueeze(1), 3, 1, 1, count_include_pad=True).squeeze(1) * 3
    level = torch.where(tone, 10 * torch.log10(total), -torch.inf)
    level = torch.where(level >= s.quiet, level, -torch.inf)
    level = torch.where(level >= _window_max(level, s.low, s.high), level, -torch.inf)
    many = max(1, int(torch.isfinite(level).sum(1).max()))
    levels, at = level.topk(many, dim=1)
    # What is no part of a tone is noise: one masker for each critical band, at its centre.
    used = F.max_pool1d(tone.float().unsqueeze(1), 3, 1, 1).squeeze(1) > 0
    bands = int(s.band[-1]) + 1
    rest = torch.zeros(len(db), bands, device=db.device).index_add_(1, s.band, torch.where(used, 0.0, power))
    centre = torch.zeros(bands, device=db.device).index_add_(0, s.band, s.bark)
    centre = centre / torch.bincount(s.band, minlength=bands)
    hush = torch.full((bands,), torch.inf, device=db.device).scatter_reduce_(0, s.band, s.quiet, "amin")
    noise = 10 * torch.log10(rest)
    return levels, s.bark[at], torch.where(noise >= hush, noise, -torch.inf), centre


def spread(level: Tensor, distance: Tensor) -> Tensor:
    """The spreading function in dB: of a masker of `level` dB, `distance` Bark above it; -inf outside -3 to 8."""
    up = torch.where(distance < 1, -17 * distance, (0.15 * level - 17) * distance - 0.15 * level)
    down = torch.where(distance < -1, 17 * distance - 0.4 * level + 11, (0.4 * level + 6) * distance)
    out = torch.where(distance < 0, down, up)
    return torch.where((distance >= -3) & (distance < 8), out, -torch.inf)


def _threshold(db: Tensor, s: Scale) -> Tensor:
    """The global masking threshold in dB of frames (m, bins)."""
    tones, where, noises, centre = _maskers(db, s)
    out = torch.pow(10.0, s.quiet / 10).expand_as(db)
    for level, bark, slope, offset in (
        (tones, where, 0.275, 6.025), (noises, centre.expand(len(db), -1), 0.175, 2.025),
    ):  # fmt: skip
        some = torch.isfinite(level)
        heard = torch.where(some, level, 0.0).unsqueeze(2)
        hidden = heard - slope * bark.unsqueeze(2) - offset + spread(heard, s.bark - bark.unsqueeze(2))
        out = out + torch.where(some.unsqueeze(2), torch.pow(10.0, hidden / 10), 0.0).sum(1)
    return 10 * torch.log10(out)


@torch.no_grad()
def threshold_db(x: Tensor, rate: int) -> Tensor:
    """The level in dB up to which the clean clips (n, samples) hide a sound, float32 (n, frames, bins)."""
    db = power_db(x, rate)
    flat = db.reshape(-1, db.shape[-1])
    s = scale_of(rate, x.device)
    return torch.cat([_threshold(part, s) for part in flat.split(CHUNK)]).view_as(db)


def real_frames(length: Tensor, frames: int, rate: int) -> Tensor:
    """Bool (n, frames): frames whose hop begins inside a clip of so many samples; the first one always does."""
    at = torch.arange(frames, device=length.device) * max(4, round(rate * HOP))
    return at < length.clamp_min(1).unsqueeze(1)


def excess_db(change: Tensor, threshold: Tensor, length: Tensor, rate: int) -> Tensor:
    """Mask excess in dB, float32 (n,): the mean over all cells of a clip of the dB above its threshold, 0 below.

    Args:
        change: (n, samples), differentiable; its gradient is finite at 0.
        threshold: of `threshold_db`, for the clean clips.
        length: int64 (n,), samples of each clip: only its own frames count.
    """
    return mean_over(power_db(change, rate) - threshold, length, rate)


def mean_over(over: Tensor, length: Tensor, rate: int) -> Tensor:
    """The mean positive part of cells (n, frames, bins) over the frames of each clip."""
    inside = real_frames(length, over.shape[1], rate)
    return (F.relu(over).mean(2) * inside).sum(1) / inside.sum(1)


def shrink_to(over: Tensor, eps: Tensor, length: Tensor, rate: int) -> Tensor:
    """The factor of at most 1, float32 (n,), that brings the mean excess of cells `over` in dB down to `eps`.

    A factor of t dB moves every cell by t: the mean positive part is convex and piecewise linear in t, so Newton's
    method from above finds the root from the right side in a few steps.
    """
    inside = real_frames(length, over.shape[1], rate)
    cells = inside.sum(1) * over.shape[2]
    shift = torch.zeros_like(eps)
    for _ in range(24):
        moved = torch.where(inside.unsqueeze(2), over + shift.view(-1, 1, 1), -1.0)
        mean, slope = F.relu(moved).sum((1, 2)) / cells, (moved > 0).sum((1, 2)) / cells
        shift = torch.where(mean > eps, shift - (mean - eps) / slope.clamp_min(1e-9), shift)
    return torch.pow(10.0, shift / 20)


def shaped(z: Tensor, threshold: Tensor, samples: int, rate: int) -> Tensor:
    """The sound (n, samples) whose cells have the phases of `z` (n, frames, bins) and the power of the threshold."""
    s = scale_of(rate, threshold.device)
    level = torch.pow(10.0, (threshold - FULL) / 20)
    cells = z / z.abs().clamp_min(1e-30) * level * (s.size / 4)
    frames = torch.fft.irfft(cells, n=s.size) * s.window
    wide = s.hop * (frames.shape[1] - 1) + s.size
    out = F.fold(frames.transpose(1, 2), (1, wide), (1, s.size), stride=(1, s.hop)).view(len(z), wide)
    # Windows overlap: what they add up to, squared, is the same everywhere but at the ends.
    gain = float(s.window.square().sum()) / s.hop
    half = s.size // 2
    return F.pad(out, (0, max(0, half + samples - wide)))[:, half : half + samples] / gain


def bark(hertz: float) -> float:
    """Zwicker's critical-band rate of a frequency.

    >>> round(bark(1000.0), 1)
    8.5
    """
    return 13 * math.atan(0.00076 * hertz) + 3.5 * math.atan((hertz / 7500) ** 2)
