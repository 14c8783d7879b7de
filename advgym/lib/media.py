"""Pictures as PNG, sounds as WAV, and files as data addresses, for pages that stand by themselves."""

from __future__ import annotations

import base64
import io
import struct
import wave
import zlib

import numpy as np
from numpy.typing import NDArray


def png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> bytes:
    """A PNG of uint8 (H, W, channels): 1 grey, 3 RGB, 4 RGBA; with a palette (256, 3), of indices (H, W) into it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = pixels.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], 1)  # 0: no filter
    colour = 3 if palette is not None else {1: 0, 3: 2, 4: 6}[pixels.shape[2]]
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    if palette is not None:
        body += chunk(b"PLTE", palette.tobytes())
    body += chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def uri(kind: str, body: bytes) -> str:
    """A data: address of a file of a media type.

    >>> uri("text/plain", b"hi")
    'data:text/plain;base64,aGk='
    """
    return f"data:{kind};base64,{base64.b64encode(body).decode('ascii')}"


def wav(x: NDArray[np.float32], rate: int) -> bytes:
    """Mono 16-bit WAV of samples in [-1, 1)."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.clip(np.round(x * 32768.0), -32768, 32767).astype("<i2").tobytes())
    return out.getvalue()
