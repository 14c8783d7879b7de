"""Samples as a wav file."""

from __future__ import annotations

import io
import wave

import numpy as np
from numpy.typing import NDArray


def wav(x: NDArray[np.float32], rate: int) -> bytes:
    """Mono 16-bit WAV of samples in [-1, 1)."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.clip(np.round(x * 32768.0), -32768, 32767).astype("<i2").tobytes())
    return out.getvalue()
