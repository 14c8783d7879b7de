"""A lossy codec in front of a recogniser: our own, by quantised MDCT, or one of ffmpeg's."""

from __future__ import annotations

import math
import shutil
import subprocess

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.wrapping import before, straight_through
from advgym.lib.settings import Range

FORMATS = ("mdct", "mp3", "opus", "aac")
FFMPEG = {"mp3": ("mp3", "libmp3lame"), "opus": ("ogg", "libopus"), "aac": ("adts", "aac")}
BANDS, BAND = 128, 8  # coefficients of a frame (hop of as many samples), and of a group with one step


@register_defense(
    "codec", domains=("speech",), allowed={"format": FORMATS, "noise": Range(0, 60), "kilobits": Range(4, 320)}
)
def defend(
    victim: Victim, task, *, format: str = "mdct", noise: float = 12.0, kilobits: int = 16, adaptive: bool = True
) -> Victim:
    """Waveforms are coded and decoded before the victim hears them; rounding is straight-through.

    "mdct": each group of coefficients is rounded in steps whose noise is `noise` dB below the group's power, and what
    is 50 dB below the frame's loudest group is left out, as coders do with what nobody hears. It is no standard.
    "mp3", "opus", "aac": ffmpeg's, at `kilobits` a second, backward straight-through as a whole.
    `adaptive=False`: the gradient of rounding, zero.

    Raises:
        AdvgymError: for a format of ffmpeg where there is no ffmpeg.
    """
    rate = 8000 if task is None else int(task.context.get("rate", 8000))
    if format == "mdct":
        return before(victim, lambda x: coded(x, noise), f"codec({noise:g} dB)", adaptive=adaptive, blocked=True)
    if shutil.which("ffmpeg") is None:
        raise AdvgymError(f"format={format!r} is coded by ffmpeg, which is not on the PATH; format='mdct' needs none")

    def recode(x: Tensor) -> Tensor:
        rows = x.detach().reshape(-1, x.shape[-1]).cpu().numpy()
        heard = np.stack([through_ffmpeg(row, rate, format, kilobits) for row in rows])
        return straight_through(torch.from_numpy(heard).to(x).reshape(x.shape), x)

    return before(victim, recode, f"codec({format} {kilobits}k)", adaptive=adaptive, blocked=True)


def coded(x: Tensor, noise: float) -> Tensor:
    """Waveforms (..., samples) through the quantised MDCT."""
    cells = mdct(x)
    groups = cells.unflatten(-1, (BANDS // BAND, BAND))
    power = groups.detach().square().mean(-1, keepdim=True)
    step = (12 * power).sqrt() * 10 ** (-noise / 20) + 1e-9  # uniform rounding has a noise of step^2 / 12
    heard = power >= 1e-5 * power.amax(-2, keepdim=True)
    groups = straight_through((groups / step).round() * step * heard, groups)
    return inverse(groups.flatten(-2), x.shape[-1])


def basis(at: Tensor) -> Tensor:
    """The windowed MDCT (2 BANDS, BANDS), sine window (Princen, Johnson and Bradley 1987)."""
    n = torch.arange(2 * BANDS, dtype=torch.float64).view(-1, 1)
    k = torch.arange(BANDS, dtype=torch.float64)
    window = torch.sin(math.pi / (2 * BANDS) * (n + 0.5))
    return (window * torch.cos(math.pi / BANDS * (n + 0.5 + BANDS / 2) * (k + 0.5))).to(at)


def mdct(x: Tensor) -> Tensor:
    """Coefficients (..., frames, BANDS)."""
    x = F.pad(x, (BANDS, BANDS + -x.shape[-1] % BANDS))
    return x.unfold(-1, 2 * BANDS, BANDS) @ basis(x)


def inverse(cells: Tensor, samples: int) -> Tensor:
    """Waveforms (..., samples) of coefficients, overlapped and added."""
    frames = cells @ basis(cells).T * (2 / BANDS)
    first, last = frames.split(BANDS, dim=-1)
    joined = F.pad(first.flatten(-2), (0, BANDS)) + F.pad(last.flatten(-2), (BANDS, 0))
    return joined[..., BANDS : BANDS + samples]


def through_ffmpeg(row: np.ndarray, rate: int, format: str, kilobits: int) -> np.ndarray:
    """One waveform coded and decoded, float32 of its length, shifted to where it fits the clip best.

    Raises:
        AdvgymError: with what ffmpeg said where it fails.
    """
    container, coder = FFMPEG[format]
    raw = ["-f", "f32le", "-ar", str(rate), "-ac", "1"]
    written = _ffmpeg([*raw, "-i", "pipe:0", "-c:a", coder, "-b:a", f"{kilobits}k", "-f", container], row.tobytes())
    heard = np.frombuffer(_ffmpeg(["-f", container, "-i", "pipe:0", *raw], written), np.float32)
    wide = len(row) + len(heard)
    match = np.fft.irfft(np.fft.rfft(heard, wide) * np.fft.rfft(row, wide).conj(), wide)
    delay = int(match[: max(len(heard) - len(row), 0) + rate // 4].argmax())
    part = heard[delay : delay + len(row)]
    return np.pad(part, (0, len(row) - len(part)))


def _ffmpeg(arguments: list[str], data: bytes) -> bytes:
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", *arguments, "pipe:1"]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        raise AdvgymError(f"ffmpeg failed: {done.stderr.decode(errors='replace')[-300:]}")
    return done.stdout
