"""Recordings as the tasks hold them: 16-bit samples, padded; the caller's own are read into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
