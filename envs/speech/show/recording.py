"""A recording before and after, to look at and to listen to; self-contained HTML, and one line of text."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from advgym.envs.speech.measures.levels import peak_db, snr_db
from advgym.envs.speech.show.sound import wav
from advgym.lib.media import png, uri

# Dark violet to pale yellow, a dark-to-light ramp that prints well in grey: (position, red, green, blue).
RAMP = (
    (0.0, 8, 6, 24), (0.2, 52, 18, 96), (0.4, 122, 32, 118), (0.6, 196, 56, 104), (0.8, 248, 126, 88),
    (1.0, 254, 240, 190),
)  # fmt: skip
RANGE = 70.0  # dB shown below the loudest cell


def measures(batch: Any, row: int, form: Tensor) -> tuple[float, float]:
    """(power SNR in dB, dB_x) of one row."""
    x = batch.x[row : row + 1]
    change = form.detach().reshape(x.shape) - x
    inside = batch.support[row : row + 1]
    return float(snr_db(x, change, inside)), float(peak_db(x, change * inside))


def level(snr: float) -> str:
    """A ratio in words.

    >>> level(float("inf"))
    'unchanged'
    """
    return "unchanged" if snr == float("inf") else f"SNR {snr:.1f} dB"


def line(batch: Any, row: int, form: Tensor, before: Any = None, after: Any = None, *, task: Any) -> str:
    """One clip in a line: `"three seven" -> "tree", SNR 24.1 dB`.

    Answers that are not given stay out: asking the victim here would be a query that nobody counts.
    """
    noise = level(measures(batch, row, form)[0])
    if before is None or after is None:
        return f"clip {int(batch.ids[row])}, {int(batch.length[row]) / batch.rate:.2f} s, {noise}"
    return f"{task.goal.describe(before)} -> {task.goal.describe(after)}, {noise}"


def show(batch: Any, row: int, form: Tensor, before: Any, after: Any, *, task: Any) -> str:
    """Spectrograms and players of the clean and the perturbed clip, and the perturbation's own waveform."""
    size = int(batch.length[row])
    x = batch.x[row, :size].cpu().numpy()
    y = form.detach().reshape(batch.shape)[:size].cpu().numpy()
    snr, peak = measures(batch, row, form)
    old, new = (html.escape(task.goal.describe(o)) for o in (before, after))
    loudest = float(power_db(x, batch.rate).max())
    cells = "".join(
        f'<figure style="margin:0;flex:1 1 220px;min-width:0">'
        f'<figcaption style="color:var(--muted);font-size:.8em">{what}</figcaption>'
        f'<div style="font-weight:600;color:var({colour})">{said}</div>'
        f'<img alt="spectrogram, {what}: heard as {said}" src="{uri("image/png", picture(clip, batch.rate, loudest))}" '
        f'style="width:100%;height:96px;border-radius:4px;display:block">'
        f'<audio controls preload="none" aria-label="{what} recording" style="width:100%;height:32px;margin-top:4px" '
        f'src="{uri("audio/wav", wav(clip, batch.rate))}"></audio></figure>'
        for what, said, clip, colour in (
            ("clean", old, x, "--ink"), ("perturbed", new, y, "--bad" if new != old else "--good"),
        )
    )  # fmt: skip
    size_text = "unchanged" if snr == float("inf") else f"{level(snr)}, dB<sub>x</sub> {peak:.1f}"
    return (
        '<div style="background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:10px;'
        'max-width:640px">'
        f'<div style="display:flex;flex-wrap:wrap;gap:12px">{cells}</div>'
        f'<div style="color:var(--muted);font-size:.8em;margin-top:8px">perturbation: {size_text}</div>'
        f"{trace(y - x)}</div>"
    )


def power_db(x: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """Power spectrogram in dB, (bins, frames): 32 ms Hann windows, 8 ms apart."""
    wide, hop = max(16, round(rate * 0.032)), max(4, round(rate * 0.008))
    padded = np.pad(x, (wide // 2, wide // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, wide)[::hop] * np.hanning(wide)
    return 10 * np.log10(np.abs(np.fft.rfft(frames, axis=1)).T ** 2 + 1e-10)


def picture(x: NDArray[np.float32], rate: int, loudest: float) -> bytes:
    """The spectrogram as a PNG with a palette; the same `loudest` makes two of them comparable."""
    shade = np.clip((power_db(x, rate) - loudest) / RANGE + 1, 0, 1)
    pixels = np.round(shade[::-1] * 255).astype(np.uint8)
    at = np.linspace(0, 1, 256)
    stops = np.array(RAMP)
    palette = np.stack([np.interp(at, stops[:, 0], stops[:, c]) for c in (1, 2, 3)], 1).round().astype(np.uint8)
    return png(pixels, palette)


def trace(change: NDArray[np.float32], points: int = 160) -> str:
    """The perturbation's envelope as inline SVG, scaled to its own peak."""
    parts = np.array_split(change, min(points, len(change)))
    peak = float(np.abs(change).max()) or 1.0
    top = [f"{i},{20 - 19 * part.max() / peak:.1f}" for i, part in enumerate(parts)]
    low = [f"{i},{20 - 19 * part.min() / peak:.1f}" for i, part in enumerate(parts)]
    return (
        f'<svg role="img" viewBox="0 0 {len(parts) - 1} 40" preserveAspectRatio="none" '
        f'style="width:100%;height:40px;display:block"><title>waveform of the perturbation, peak {peak:.4f}</title>'
        f'<polygon points="{" ".join(top + low[::-1])}" fill="var(--accent)"/></svg>'
    )
