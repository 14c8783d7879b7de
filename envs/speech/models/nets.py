"""Small recognisers: a log-mel front end, a keyword CNN, the raw-waveform M5, a convolutional CTC net."""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

RATE = 8000
FLOOR = 1e-3  # of mel power: below the hiss of the recordings, above float rounding


class LogMel(nn.Module):
    """Log-mel spectrogram of waveforms at 8 kHz, differentiable: (n, samples) -> (n, mels, frames).

    Windows of 32 ms; one frame each `hop` samples; natural logarithm of power, float32, with a floor.
    """

    def __init__(self, hop: int = 80, mels: int = 40) -> None:
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(
            RATE, n_fft=256, hop_length=hop, n_mels=mels, f_min=60.0, f_max=RATE / 2, mel_scale="slaney"
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(self.mel(x.float()) + FLOOR)


def conv(inputs: int, outputs: int, width: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution over time that keeps length / stride, batch norm, ReLU."""
    pad = dilation * (width - 1) // 2
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, width, stride, pad, dilation, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()
    )


class KeywordCnn(nn.Module):
    """Log-mel CNN over time; the last layer reads eight time bins in order (a mean over time would lose it)."""

    def __init__(self, classes: int = 10, channels: int = 48, mels: int = 40, bins: int = 8) -> None:
        super().__init__()
        self.front = LogMel(mels=mels)
        self.body = nn.Sequential(
            nn.BatchNorm1d(mels),
            conv(mels, channels, 5),
            conv(channels, channels, 5, stride=2),
            conv(channels, channels, 5),
            conv(channels, channels, 5, stride=2),
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool1d(bins), nn.Flatten(), nn.Dropout(0.3), nn.Linear(bins * channels, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(self.front(x)))
        return scores


class SpeakerNet(nn.Module):
    """Log-mel CNN whose frames are pooled by attention into their mean and deviation (Okabe et al. 2018).

    Answers (n, outputs): a score for each speaker, or an embedding of the voice. Frames that say nothing about it, as
    silence, are given little weight.
    """

    def __init__(self, outputs: int, channels: int = 48, mels: int = 40) -> None:
        super().__init__()
        self.front = LogMel(mels=mels)
        self.body = nn.Sequential(
            nn.BatchNorm1d(mels),
            conv(mels, channels, 5),
            conv(channels, channels, 3, stride=2, dilation=2),
            conv(channels, channels, 3, dilation=3),
        )
        self.look = nn.Sequential(nn.Conv1d(channels, channels // 2, 1), nn.Tanh(), nn.Conv1d(channels // 2, 1, 1))
        self.head = nn.Sequential(nn.BatchNorm1d(2 * channels), nn.Dropout(0.2), nn.Linear(2 * channels, outputs))

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(self.front(x))
        weight = torch.softmax(self.look(h), 2)
        mean = (weight * h).sum(2)
        spread = (weight * h.square()).sum(2) - mean.square()
        scores: Tensor = self.head(torch.cat([mean, spread.clamp_min(1e-6).sqrt()], 1))
        return scores


class Verifier(nn.Module):
    """Whether a voice is the enrolled one: (n, samples) -> (n, 2), logits of [reject, accept].

    The score is the cosine of the clip's embedding and the enrolled speaker's; the logits are -/+ `SCALE` / 2 times
    what it is above the threshold, so "accept" is said exactly above it.
    """

    SCALE = 20.0

    enrolled: Tensor
    threshold: Tensor

    def __init__(self, size: int = 48, channels: int = 48, mels: int = 40) -> None:
        super().__init__()
        self.net = SpeakerNet(size, channels, mels)
        self.register_buffer("enrolled", torch.zeros(size))
        self.register_buffer("threshold", torch.zeros(()))

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings of unit length, (n, size)."""
        return nn.functional.normalize(self.net(x), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        above = (self.embed(x) @ self.enrolled - self.threshold) * (self.SCALE / 2)
        return torch.stack([-above, above], 1)


class M5(nn.Module):
    """The five-layer net on raw waveforms of Dai et al. (2017), with `channels` at its base."""

    def __init__(self, classes: int = 10, channels: int = 32) -> None:
        super().__init__()
        c = channels
        self.body = nn.Sequential(
            nn.Conv1d(1, c, 80, 4), nn.BatchNorm1d(c), nn.ReLU(), nn.MaxPool1d(4),
            nn.Conv1d(c, c, 3), nn.BatchNorm1d(c), nn.ReLU(), nn.MaxPool1d(4),
            nn.Conv1d(c, 2 * c, 3), nn.BatchNorm1d(2 * c), nn.ReLU(), nn.MaxPool1d(4),
            nn.Conv1d(2 * c, 2 * c, 3), nn.BatchNorm1d(2 * c), nn.ReLU(), nn.MaxPool1d(4),
        )  # fmt: skip
        self.head = nn.Linear(2 * c, classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(x.unsqueeze(1)).mean(2))
        return scores


class CtcNet(nn.Module):
    """Convolutional CTC recogniser: log-mel, dilated residual convolutions, log-probabilities (n, frames, symbols).

    50 frames a second; with no recurrence an attack on it is batched, and the same on every device.
    """

    def __init__(self, symbols: int = 17, channels: int = 64, layers: int = 4, mels: int = 40) -> None:
        super().__init__()
        self.front = LogMel(mels=mels)
        self.stem = nn.Sequential(nn.BatchNorm1d(mels), conv(mels, channels, 5, stride=2))
        self.body = nn.ModuleList(conv(channels, channels, 5, dilation=2 ** (i % 4)) for i in range(layers))
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Conv1d(channels, symbols, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(self.front(x))
        for layer in self.body:
            h = h + layer(h)
        return torch.log_softmax(self.head(h).transpose(1, 2), 2)
