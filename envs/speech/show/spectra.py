"""Spectrograms and their signed difference as inline SVG with axes in Hz and seconds; the cells are PNGs."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from advgym.lib.media import png, uri

# Dark violet to pale yellow, a dark-to-light ramp that prints well in grey: (position, red, green, blue).
RAMP = (
    (0.0, 8, 6, 24), (0.2, 52, 18, 96), (0.4, 122, 32, 118), (0.6, 196, 56, 104), (0.8, 248, 126, 88),
    (1.0, 254, 240, 190),
)  # fmt: skip
# Blue for what was taken away, orange for what was added, and a grey that sits on both themes where nothing changed.
SIGNED = (
    (0.0, 24, 94, 190), (0.25, 84, 148, 220), (0.5, 128, 128, 132), (0.75, 232, 148, 72), (1.0, 214, 84, 16),
)  # fmt: skip
RANGE = 70.0  # dB shown below the loudest cell
SWING = 30.0  # dB of change, either way, at the ends of the signed scale
WIDTH, HEIGHT = 300, 132  # of the drawing, axes included
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 7, 18
TEXT = "font-size:9px;fill:var(--muted)"  # in the style: a page's own rules for text come after attributes


def power_db(x: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """Power spectrogram in dB, (bins, frames): 32 ms Hann windows, 8 ms apart."""
    wide, hop = max(16, round(rate * 0.032)), max(4, round(rate * 0.008))
    padded = np.pad(x, (wide // 2, wide // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, wide)[::hop] * np.hanning(wide)
    return 10 * np.log10(np.abs(np.fft.rfft(frames, axis=1)).T ** 2 + 1e-10)


@cache
def palette(stops: tuple[tuple[float, ...], ...]) -> NDArray[np.uint8]:
    """256 colours between the stops."""
    at, known = np.linspace(0, 1, 256), np.array(stops)
    return np.stack([np.interp(at, known[:, 0], known[:, c]) for c in (1, 2, 3)], 1).round().astype(np.uint8)


def picture(x: NDArray[np.float32], rate: int, loudest: float) -> bytes:
    """The spectrogram as a PNG with a palette; the same `loudest` makes two of them comparable."""
    return _coloured((power_db(x, rate) - loudest) / RANGE + 1, RAMP)


def change_picture(x: NDArray[np.float32], y: NDArray[np.float32], rate: int, loudest: float) -> bytes:
    """How many dB each cell gained or lost, on the signed scale; what is quieter than the range both times is 0."""
    low = loudest - RANGE
    change = np.maximum(power_db(y, rate), low) - np.maximum(power_db(x, rate), low)
    return _coloured(change / (2 * SWING) + 0.5, SIGNED)


def _coloured(shade: NDArray[np.float64], stops: tuple[tuple[float, ...], ...]) -> bytes:
    return png(np.round(np.clip(shade[::-1], 0, 1) * 255).astype(np.uint8), palette(stops))


def step_of(most: float, parts: int) -> float:
    """A round step (1, 2 or 5 times a power of ten) that cuts `most` into at most so many parts.

    >>> step_of(1.8, 4), step_of(4000, 4)
    (0.5, 1000.0)
    """
    least = most / parts
    power = 10.0 ** np.floor(np.log10(max(least, 1e-9)))
    return float(next(k * power for k in (1, 2, 5, 10) if k * power >= least * (1 - 1e-9)))


def framed(image: bytes, seconds: float, rate: int, label: str) -> str:
    """A picture of cells in a frame with its axes."""
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    top = rate / 2
    marks = []
    for hertz in np.arange(0, top * 1.001, step_of(top, 4)):
        y = TOP + high * (1 - hertz / top)
        marks += [_tick(f"M{LEFT - 3} {y:.1f}H{LEFT}"),
                  _text(f"{hertz / 1000:g} kHz" if hertz else "0", LEFT - 6, y + 3, "end")]  # fmt: skip
    for second in np.arange(0, seconds * 1.001, step_of(seconds, 5)):
        x = LEFT + wide * second / seconds
        marks += [_tick(f"M{x:.1f} {TOP + high}v3"),
                  _text(f"{second:g} s" if second else "0", x, HEIGHT - 5, "middle")]  # fmt: skip
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" style="width:100%;height:auto;display:block"><title>{label}'
        f'</title><image href="{uri("image/png", image)}" x="{LEFT}" y="{TOP}" width="{wide}" height="{high}" '
        f'preserveAspectRatio="none"/><rect x="{LEFT}" y="{TOP}" width="{wide}" height="{high}" fill="none" '
        f'stroke="var(--line)"/>' + "".join(marks) + "</svg>"
    )


def _tick(path: str) -> str:
    return f'<path stroke="var(--muted)" d="{path}"/>'


def _text(words: str, x: float, y: float, anchor: str) -> str:
    return f'<text style="{TEXT}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def scale() -> str:
    """The key of the signed scale."""
    stops = "".join(f'<stop offset="{at:g}" stop-color="rgb({r},{g},{b})"/>' for at, r, g, b in SIGNED)
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} 20" style="width:100%;height:auto;display:block">'
        f"<title>from {SWING:g} dB less to {SWING:g} dB more</title>"
        f'<defs><linearGradient id="advgym-change">{stops}</linearGradient></defs>'
        f'<rect x="{LEFT}" y="2" width="{WIDTH - LEFT - RIGHT}" height="6" rx="3" fill="url(#advgym-change)"/>'
        + _text(f"−{SWING:g} dB", LEFT, 18, "start")
        + _text("no change", (LEFT + WIDTH - RIGHT) / 2, 18, "middle")
        + _text(f"+{SWING:g} dB", WIDTH - RIGHT, 18, "end")
        + "</svg>"
    )
