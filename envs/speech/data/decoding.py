"""Sound files and arrays as one row of samples at one rate: mixed down, resampled, and told of."""

from __future__ import annotations

import io
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advgym.envs.speech.data.clips import LEVELS, Clips, Wave
from advgym.errors import AdvgymError, DataError

CHANNELS = 8  # at most, of an array with two axes
CLIPPED = 4  # samples at full scale in a row that a recording is called clipped from
HIGHEST = 768_000  # Hz


@dataclass
class Said:
    """What reading changed, counted for `Task.notes`."""

    mixed: int = 0
    clipped: int = 0
    short: int = 0
    silent: int = 0
    rates: Counter[int] = field(default_factory=Counter)
    more: list[str] = field(default_factory=list)

    def notes(self, rate: int) -> tuple[str, ...]:
        """In words; `rate` is what recordings were resampled to."""
        out = [f"{n} recording(s) of {old} Hz are resampled to {rate} Hz" for old, n in sorted(self.rates.items())]
        if self.mixed:
            out.append(f"{self.mixed} recording(s) of several channels are mixed down to their mean")
        if self.clipped:
            out.append(f"{self.clipped} recording(s) are clipped: {CLIPPED} samples or more in a row at full scale")
        if self.silent:
            out.append(f"{self.silent} recording(s) are silent")
        if self.short:
            out.append(f"{self.short} recording(s) are shorter than 25 ms")
        return (*out, *self.more)


def check_rate(rate: Any, whose: str) -> int:
    """A rate in Hz.

    Raises:
        AdvgymError: for what is none.
    """
    try:
        number = float(rate)
        fine = not isinstance(rate, bool) and math.isfinite(number) and number == int(number) and 1 <= number <= HIGHEST
    except (TypeError, ValueError, OverflowError):
        fine = False
    if not fine:
        raise AdvgymError(f"{whose} is {rate!r}; a rate is a whole number of samples per second, 1 to {HIGHEST}")
    return int(number)


def decode(source: str | Path | bytes, where: str) -> tuple[NDArray[Any], int]:
    """(samples or (samples, channels), rate) of a wav, flac, ogg or mp3 file, or of its bytes.

    16-bit files come as int16, exactly as stored; all others as float64, full scale 1.

    Raises:
        DataError: it cannot be read, or holds no sample.
    """
    import soundfile

    given = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        with soundfile.SoundFile(given) as file:
            exact = file.subtype == "PCM_16"
            wave, rate = file.read(dtype="int16" if exact else "float64"), int(file.samplerate)
    except (OSError, RuntimeError, TypeError) as error:
        if isinstance(source, str | Path) and not Path(source).exists():
            raise DataError(f"{where}: there is no file {source}") from None
        raise DataError(f"{where}: cannot be read as a sound file: {error}") from None
    if not len(wave):
        raise DataError(f"{where}: the recording is empty; want one sample at least")
    return wave, rate


def one_row(wave: Any, where: str, said: Said) -> NDArray[Any]:
    """An array of one axis: int16, or floats within [-1, 1]; channels are mixed down to their mean.

    Raises:
        DataError: for any other array, values that are no number, or beyond full scale.
    """
    wave = np.asarray(wave.detach().cpu().float() if isinstance(wave, Tensor) and wave.is_floating_point() else wave)
    if wave.ndim == 2 and wave.size:
        few, many = min(wave.shape), max(wave.shape)
        if few == 1:
            wave = wave.reshape(-1)
        elif few <= CHANNELS < many:
            said.mixed += 1
            kind = wave.dtype
            wave = wave.mean(wave.shape.index(few), dtype=np.float64)
            wave = np.round(wave).astype(np.int16) if kind == np.int16 else wave
    if wave.ndim != 1 or not wave.size:
        raise DataError(f"the waveform of {where} has shape {wave.shape}; want one axis of samples, at least one")
    if wave.dtype != np.int16:
        if wave.dtype.kind != "f":
            raise DataError(f"the waveform of {where} is {wave.dtype}; want int16, or floats in [-1, 1]")
        top = np.abs(wave).max()
        if not top <= 1 + 1e-6:  # NaN is not
            raise DataError(
                f"the waveform of {where} has values up to {top:g}; want floats in [-1, 1] "
                "(16-bit numbers: divide by 32768, or give int16)"
            )
        wave = wave.clip(-1, 1)
    return wave


def at_rate(wave: NDArray[Any], old: int, new: int, said: Said) -> NDArray[Any]:
    """The samples at another rate (windowed sinc), int16 where they had to be resampled."""
    if old == new:
        return wave
    said.rates[old] += 1
    x = torch.from_numpy(wave.astype(np.float64) / (LEVELS if wave.dtype == np.int16 else 1))
    return _pcm(_resampled(x.unsqueeze(0), old, new))[0]


def tell(wave: NDArray[Any], rate: int, said: Said) -> None:
    """Count what is odd about a recording."""
    said.short += len(wave) < rate // 40
    said.silent += not wave.any()
    top = wave >= LEVELS - 1 if wave.dtype == np.int16 else wave >= 1 - 1 / LEVELS
    low = wave <= -LEVELS if wave.dtype == np.int16 else wave <= -1
    for full in (top, low):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], full.astype(np.int8), [0]])))
        if len(edges) and (edges[1::2] - edges[::2]).max() >= CLIPPED:
            said.clipped += 1
            break


def resampled(clips: Clips, old: int, new: int) -> Clips:
    """Clips at another rate, their padding zeros as before."""
    from dataclasses import replace

    if old == new:
        return clips
    wave = _pcm(torch.cat([_resampled(part.double() / LEVELS, old, new) for part in clips.wave.split(64)]))
    length = torch.div(clips.length * new + old - 1, old, rounding_mode="floor")
    inside = torch.arange(wave.shape[1]) < length.unsqueeze(1)
    return replace(clips, wave=torch.from_numpy(wave) * inside, length=length)


def width_at(samples: int, old: int, new: int) -> int:
    """Samples of a clip of `samples` after resampling."""
    return -(-samples * new // old)


def _resampled(x: Tensor, old: int, new: int) -> Tensor:
    from torchaudio.functional import resample

    return resample(x, old, new)


def _pcm(x: Tensor) -> Wave:
    return np.asarray((x * LEVELS).round().clamp(-LEVELS, LEVELS - 1).to(torch.int16).numpy())
