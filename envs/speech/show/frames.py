"""A frame of an attacked recording: spectrograms of both clips and of their difference, on one scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from advgym.envs.speech.show.recording import pair
from advgym.envs.speech.show.spectra import RAMP, RANGE, SIGNED, SWING, palette, power_db
from advgym.lib.canvas import Frame, pictures

CELLS = (140, 240)  # frames in time and bins in frequency of a drawn spectrogram


def draw(batch: Any, row: int, form: Tensor) -> Frame:
    """Uint8 (H, W, 3) of a fixed size; of a bundle its first member. Time runs to the right, pitch upwards."""
    clean, heard, lengths = (t.cpu() for t in pair(batch, row, form))
    many = int(lengths[0])
    before, after = (power_db(x[0, :many].numpy(), batch.rate) for x in (clean, heard))
    top = float(before.max())
    change = np.maximum(after, top - RANGE) - np.maximum(before, top - RANGE)
    khz = f"{batch.rate / 2000:g} kHz"
    return pictures([
        (f"clean, 0 to {khz}", _coloured((before - top) / RANGE + 1, RAMP)),
        ("perturbed", _coloured((after - top) / RANGE + 1, RAMP)),
        (f"difference, {SWING:g} dB", _coloured(change / (2 * SWING) + 0.5, SIGNED)),
    ])  # fmt: skip


def _coloured(shade: NDArray[np.float64], stops: tuple[tuple[float, ...], ...]) -> Frame:
    """Shades in [0, 1] (bins, frames) as colours, low pitches at the bottom, in `CELLS`."""
    high, wide = shade.shape
    rows = np.arange(CELLS[1]) * high // CELLS[1]
    columns = np.arange(CELLS[0]) * wide // CELLS[0]
    index = np.round(np.clip(shade[::-1][rows][:, columns], 0, 1) * 255).astype(np.uint8)
    found: Frame = palette(stops)[index]
    return found
