"""Recordings as the tasks hold them: 16-bit samples, padded; the caller's own are read into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advgym.envs.speech import symbols
from advgym.errors import AdvgymError, DataError
from advgym.lib.given import class_of, inside

Wave = NDArray[np.int16]
LEVELS = 32768  # 16-bit PCM: steps per unit
RATE = 8000


@dataclass(frozen=True)
class Clips:
    """N recordings, padded with zeros to one length.

    Attributes:
        wave: int16 (N, samples).
        length: int64 (N,): samples before the padding.
        texts: the words spoken.
        labels: int64 (N,): classes, where there are any.
    """

    wave: Tensor
    length: Tensor
    texts: tuple[str, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.wave)


def pack(waves: Sequence[Wave], samples: int, texts: Sequence[str], labels: Sequence[int] | None = None) -> Clips:
    """Pad (or cut) to `samples`."""
    out = np.zeros((len(waves), samples), np.int16)
    for row, wave in zip(out, waves, strict=True):
        row[: len(wave)] = wave[:samples]
    length = torch.tensor([min(len(w), samples) for w in waves], dtype=torch.int64)
    classes = torch.tensor(labels if labels is not None else [0] * len(waves), dtype=torch.int64)
    return Clips(torch.from_numpy(out), length, tuple(texts), classes)


def own_clips(
    samples: Any, *, transcripts: bool, length: int | None = None, names: Sequence[str] = (), given: str = "samples"
) -> Clips:
    """The caller's recordings.

    Args:
        samples: (waveform, label) pairs: int16, or floats in [-1, 1], one axis; a class, or a transcript.
        transcripts: labels are texts.
        length: samples that the victim wants; None for the longest recording.
        names: of classes, which labels may be given by.
        given: the argument that errors name.
    """
    waves, texts, labels = [], [], []
    want = "a transcript (a text of one word or more)" if transcripts else "a class (a whole number from 0)"
    for i, entry in enumerate(samples):
        try:
            wave, label = entry
        except (TypeError, ValueError):
            raise DataError(f"{given}[{i}] is not a pair (waveform, {want})") from None
        wave = np.asarray(wave.detach().cpu() if isinstance(wave, Tensor) else wave)
        if wave.ndim != 1 or not wave.size:
            raise DataError(f"the waveform of {given}[{i}] has shape {wave.shape}; want one axis of samples")
        if wave.dtype != np.int16:
            if wave.dtype.kind != "f":
                raise DataError(f"the waveform of {given}[{i}] is {wave.dtype}; want int16, or floats in [-1, 1]")
            fits = inside(torch.from_numpy(wave.astype(np.float64)), -1.0, 1.0)
            if fits is None:
                raise DataError(f"the waveform of {given}[{i}] has values up to {np.abs(wave).max():g}; want floats in "
                                "[-1, 1] (16-bit numbers: divide by 32768, or give int16)")  # fmt: skip
            wave = np.clip(np.round(fits.numpy() * LEVELS), -LEVELS, LEVELS - 1).astype(np.int16)
        if transcripts and not (isinstance(label, str) and label.split()):
            raise DataError(f"the label of {given}[{i}] is {label!r}; want {want}")
        try:
            labels.append(0 if transcripts else class_of(label, names))
        except AdvgymError as error:
            raise DataError(f"the label of {given}[{i}] is {label!r}; want {want}: {error}") from None
        if length is not None and len(wave) > length:
            raise DataError(f"{given}[{i}] has {len(wave)} samples; this task takes {length} at most")
        waves.append(wave)
        texts.append(symbols.tidy(label) if transcripts else "")
    if not waves:
        raise DataError(f"{given} is empty; want pairs (waveform, {want})")
    return pack(waves, length or max(map(len, waves)), texts, labels)


def rounds(samples: Any) -> bool:
    """Whether 16-bit storage moves any value of the caller's recordings, as `own_clips` took them."""
    for wave, _ in samples:
        x = np.asarray(wave.detach().cpu() if isinstance(wave, Tensor) else wave)
        steps = x.astype(np.float64) * LEVELS
        if x.dtype != np.int16 and bool((np.abs(steps - np.clip(np.round(steps), -LEVELS, LEVELS - 1)) > 1e-3).any()):
            return True
    return False
