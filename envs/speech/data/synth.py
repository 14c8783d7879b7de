"""A seeded formant synthesiser of spoken digits: source and filter (Fant 1960, Klatt 1980), 8 kHz, numpy alone.

A voice is a pulse train and breath through four moving resonators, beside hiss through a fifth. It is
speech-shaped: good for tests and first steps, never for a claim about speech. The filters run as elementwise
arithmetic over all words at once, so a word's samples do not depend on what is made beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advgym.envs.speech.symbols import DIGITS

RATE = 8000  # Hz
HOP = 40  # samples between the points of a parameter track: 5 ms
BLOCK = 100  # words filtered together
PEAK = 0.9  # of full scale
Array = NDArray[np.float64]

# name: (ms, F1, F2, F3, voicing, breath, hiss, hiss centre, hiss bandwidth); Hz, amplitudes relative to a vowel.
PHONES: dict[str, tuple[float, ...]] = {
    "IY": (140, 280, 2250, 2950, 1.0, 0, 0, 2500, 1500),
    "IH": (90, 400, 1950, 2550, 1.0, 0, 0, 2500, 1500),
    "EH": (110, 540, 1800, 2480, 1.0, 0, 0, 2500, 1500),
    "E1": (110, 480, 1950, 2560, 1.0, 0, 0, 2500, 1500),
    "E2": (80, 330, 2200, 2750, 0.9, 0, 0, 2500, 1500),
    "AH": (110, 640, 1200, 2400, 1.0, 0, 0, 2500, 1500),
    "AX": (70, 500, 1350, 2400, 0.8, 0, 0, 2500, 1500),
    "AO": (140, 570, 850, 2400, 1.0, 0, 0, 2500, 1500),
    "A1": (110, 740, 1120, 2450, 1.0, 0, 0, 2500, 1500),
    "A2": (80, 400, 1950, 2550, 0.9, 0, 0, 2500, 1500),
    "O1": (90, 540, 930, 2350, 1.0, 0, 0, 2500, 1500),
    "O2": (90, 370, 800, 2300, 0.8, 0, 0, 2500, 1500),
    "UW": (170, 310, 900, 2250, 0.9, 0, 0, 2500, 1500),
    "R": (70, 330, 1080, 1450, 0.7, 0, 0, 2500, 1500),
    "W": (70, 300, 620, 2150, 0.6, 0, 0, 2500, 1500),
    "N": (85, 260, 1450, 2350, 0.4, 0, 0, 2500, 1500),
    "V": (60, 260, 1100, 2100, 0.35, 0, 0.05, 2800, 2500),
    "Z": (85, 260, 1400, 2500, 0.3, 0, 0.25, 3600, 700),
    "S": (115, 320, 1450, 2500, 0, 0, 0.4, 3600, 600),
    "F": (100, 340, 1000, 2100, 0, 0.02, 0.14, 2700, 2800),
    "TH": (90, 340, 1300, 2500, 0, 0.02, 0.09, 3000, 2200),
    "CL": (50, 300, 1700, 2500, 0, 0, 0, 3000, 1500),
    "T": (18, 350, 1750, 2600, 0, 0.05, 0.5, 3400, 900),
    "H": (30, 400, 1500, 2500, 0.1, 0.25, 0.05, 3000, 2000),
    "K": (22, 330, 1900, 2400, 0, 0.05, 0.5, 1900, 500),
}
WORDS: dict[str, tuple[str, ...]] = {
    "zero": ("Z", "IH", "R", "O1", "O2"),
    "one": ("W", "AH", "N"),
    "two": ("T", "H", "UW"),
    "three": ("TH", "R", "IY"),
    "four": ("F", "AO", "R"),
    "five": ("F", "A1", "A2", "V"),
    "six": ("S", "IH", "CL", "K", "S"),
    "seven": ("S", "EH", "V", "AX", "N"),
    "eight": ("E1", "E2", "CL", "T"),
    "nine": ("N", "A1", "A2", "N"),
}


@dataclass(frozen=True)
class Voice:
    """What stays the same while one voice speaks."""

    f0: float  # Hz
    tract: float  # scale of all formants
    rate: float  # scale of all durations
    breath: float  # noise mixed into voicing
    hiss: float  # scale of frication
    floor: float  # background noise, of full scale
    open: float  # open part of a glottal cycle
    accent: Array  # (phones, 3) scale of each phone's formants
    low: Array  # (4,) bandwidths in Hz


def voice(number: int) -> Voice:
    """The voice of that number: high and low ones take turns."""
    rng = np.random.default_rng([20, number])
    high = number % 2
    return Voice(
        f0=rng.uniform(165, 240) if high else rng.uniform(85, 150),
        tract=rng.uniform(1.02, 1.18) if high else rng.uniform(0.9, 1.05),
        rate=rng.uniform(0.8, 1.25),
        breath=rng.uniform(0.01, 0.08),
        hiss=rng.uniform(0.7, 1.4),
        floor=rng.uniform(0.0005, 0.003),
        open=rng.uniform(0.5, 0.7),
        accent=rng.uniform(0.95, 1.05, (len(PHONES), 3)),
        low=np.array([70, 90, 130, 200]) * rng.uniform(0.8, 1.4, 4),
    )


def _smooth(track: Array, points: int) -> Array:
    """Columns of (hops, k) averaged under a Hann window, ends held: coarticulation."""
    window = np.hanning(points + 2)[1:-1]
    padded = np.pad(track, ((points // 2, points // 2), (0, 0)), mode="edge")
    wide = np.lib.stride_tricks.sliding_window_view(padded, points, axis=0)
    smooth: Array = (wide * (window / window.sum())).sum(-1)
    return smooth


def _tracks(word: str, v: Voice, rng: np.random.Generator) -> tuple[Array, Array]:
    """Parameters of one word at each hop: (hops, 9) as PHONES has them after ms, F4 beside F3; and f0 (hops,) in Hz."""
    names = list(PHONES)
    rows = []
    for phone in WORDS[word]:
        ms, f1, f2, f3, *rest = PHONES[phone]
        hops = max(2, round(ms * v.rate * rng.uniform(0.85, 1.15) / 5))
        formants = np.array([f1, f2, f3]) * v.tract * v.accent[names.index(phone)] * rng.uniform(0.98, 1.02, 3)
        rows += [[*formants, 3500.0 * v.tract, *rest]] * hops
    before, after = (int(n) for n in rng.integers(6, 16, 2))  # 30-80 ms of quiet around the word
    track = np.pad(np.array(rows), ((before, after), (0, 0)), mode="edge")
    track[:before, 4:7] = track[len(track) - after :, 4:7] = 0
    track[:, :4], track[:, 4:7] = _smooth(track[:, :4], 9), _smooth(track[:, 4:7], 3)
    track[:, :4] = np.minimum(track[:, :4], [1200, 2900, 3500, 3850])
    fall = np.linspace(rng.uniform(1.02, 1.15), rng.uniform(0.8, 0.92), len(track))
    wobble = _smooth(rng.normal(0, 0.03, (len(track), 1)), 9)[:, 0]
    return track, v.f0 * rng.uniform(0.95, 1.05) * fall * (1 + wobble)


def _fine(track: Array) -> Array:
    """One value per hop to one per sample, in straight lines."""
    return np.interp(np.arange(len(track) * HOP) / HOP, np.arange(len(track)), track)


def _pulses(f0: Array, open_part: float) -> Array:
    """The derivative of Rosenberg's (1971) glottal flow along a pitch track: 2/3 of the open part is the rise."""
    phase = np.cumsum(f0 / RATE) % 1.0
    rise, fall = open_part * 2 / 3, open_part / 3
    up = 0.5 * (1 - np.cos(np.pi * phase / rise))
    down = np.cos(0.5 * np.pi * (phase - rise) / fall)
    flow = np.where(phase < rise, up, np.where(phase < open_part, down, 0.0))
    return np.diff(flow, prepend=flow[:1])


def _resonate(x: Array, centre: Array, width: Array) -> Array:
    """Two-pole resonators with unit gain at their centres: x (samples, ...), centre and width (hops, ...) in Hz."""
    r = np.exp(-np.pi * width / RATE)
    w = 2 * np.pi * centre / RATE
    a, b, c = (1 - r) * np.sqrt(1 - 2 * r * np.cos(2 * w) + r * r), 2 * r * np.cos(w), -r * r
    y = np.empty_like(x)
    y1 = y2 = np.zeros_like(x[0])
    for t in range(len(x)):  # a recursion in time: one sample after the other, everything else at once
        hop = t // HOP
        y1, y2 = a[hop] * x[t] + b[hop] * y1 + c[hop] * y2, y1
        y[t] = y1
    return y


def speak(plans: Sequence[tuple[str, int, int]]) -> list[NDArray[np.int16]]:
    """Words as 16-bit samples at 8 kHz, each with its own length.

    Args:
        plans: (word, voice number, take) triples; the same triple is the same samples (to the last bit on one
            version of numpy; `exp` and `cos` may round otherwise on another).
    """
    out = []
    for start in range(0, len(plans), BLOCK):
        out += _speak(plans[start : start + BLOCK])
    return out


def _speak(plans: Sequence[tuple[str, int, int]]) -> list[NDArray[np.int16]]:
    voices = [voice(v) for _, v, _ in plans]
    drawn = [np.random.default_rng([21, number, DIGITS.index(word), take]) for word, number, take in plans]
    tracks = [_tracks(plan[0], v, rng) for plan, v, rng in zip(plans, voices, drawn, strict=True)]
    noises = [rng.standard_normal((3, len(f0) * HOP)) for rng, (_, f0) in zip(drawn, tracks, strict=True)]
    hops = max(len(f0) for _, f0 in tracks)
    source = np.zeros((hops * HOP, 5, len(plans)))  # the voice into four resonators, hiss into the fifth
    centre, width = np.full((2, hops, 5, len(plans)), 1000.0)
    for i, ((track, f0), noise, v) in enumerate(zip(tracks, noises, voices, strict=True)):
        pulse = _pulses(_fine(f0), v.open)
        voicing, breath, hiss = (_fine(track[:, k]) for k in (4, 5, 6))
        voiced = voicing * (pulse / np.abs(pulse).max() + v.breath * noise[0]) + breath * 0.3 * noise[0]
        source[: len(voiced), :4, i] = voiced[:, None]
        source[: len(voiced), 4, i] = hiss * v.hiss * noise[1]
        centre[: len(f0), :, i] = track[:, [0, 1, 2, 3, 7]]
        width[: len(f0), :4, i], width[: len(f0), 4, i] = v.low, track[:, 8]
    parts = _resonate(source, centre, width)
    # In parallel, with alternating signs (Klatt 1980).
    voiced = parts[:, 0] - 0.7 * parts[:, 1] + 0.35 * parts[:, 2] - 0.2 * parts[:, 3]
    mixed = voiced / np.abs(voiced).max(0) + parts[:, 4]
    out = []
    for i, (noise, v) in enumerate(zip(noises, voices, strict=True)):
        wave = mixed[: noise.shape[1], i]
        wave = wave / np.abs(wave).max() * PEAK + v.floor * noise[2]
        out.append(np.clip(np.round(wave * 32768), -32768, 32767).astype(np.int16))
    return out
