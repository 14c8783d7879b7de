"""Spectral front ends of published models in torch: batched, differentiable, the numbers of their own processors."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AstFront(nn.Module):
    """The filter bank of the audio spectrogram transformer (Gong et al. 2021): waves (n, samples) -> (n, frames, mels).

    Kaldi's: frames of 25 ms each 10 ms that lie within the recording, without their mean, pre-emphasis .97, Hann
    window, log of mel power. Frames beyond a recording's end are zeros, as its processor pads; then mean and deviation
    of the training data are taken out.

    Args:
        extractor: `ASTFeatureExtractor`, whose settings it takes.
    """

    window: Tensor
    banks: Tensor

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        from torchaudio.compliance import kaldi

        rate, self.longest = int(extractor.sampling_rate), int(extractor.max_length)
        self.width, self.hop = int(rate * 0.025), int(rate * 0.01)
        self.size = 1 << (self.width - 1).bit_length()
        banks, _ = kaldi.get_mel_banks(
            int(extractor.num_mel_bins), self.size, float(rate), 20.0, 0.0, 100.0, -500.0, 1.0
        )
        self.register_buffer("banks", F.pad(banks, (0, 1)).T.contiguous().float(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.width, periodic=False), persistent=False)
        self.mean, self.deviation = float(extractor.mean), 2 * float(extractor.std)
        self.normal = bool(extractor.do_normalize)

    def forward(self, wave: Tensor, length: Tensor) -> Tensor:
        """Features of waves with their real lengths (n,)."""
        frames = wave.unfold(1, self.width, self.hop)[:, : self.longest]
        frames = frames - frames.mean(2, keepdim=True)
        frames = frames - 0.97 * torch.cat([frames[..., :1], frames[..., :-1]], 2)
        spectrum = torch.fft.rfft(frames * self.window, self.size)
        power = spectrum.real.square() + spectrum.imag.square()  # the magnitude of nothing has no slope
        mel = torch.log((power @ self.banks).clamp_min(torch.finfo(torch.float32).eps))
        many = (length - self.width) // self.hop + 1
        mel = mel * (torch.arange(mel.shape[1], device=mel.device) < many.unsqueeze(1)).unsqueeze(2)
        mel = F.pad(mel, (0, 0, 0, self.longest - mel.shape[1]))
        return (mel - self.mean) / self.deviation if self.normal else mel


class WhisperFront(nn.Module):
    """The log-mel spectrogram of Whisper (Radford et al. 2022): waves (n, samples) -> (n, mels, frames).

    Recordings are padded or cut to the model's window (30 s); log10 of mel power, no more than 8 below each recording's
    own greatest.

    Args:
        extractor: `WhisperFeatureExtractor`, whose settings it takes.
    """

    window: Tensor
    banks: Tensor

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.size, self.hop, self.longest = int(extractor.n_fft), int(extractor.hop_length), int(extractor.n_samples)
        banks = torch.as_tensor(extractor.mel_filters, dtype=torch.float32)
        self.register_buffer("banks", banks.T.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.size), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Features of waves whose zeros at the end are padding."""
        wave = F.pad(wave, (0, max(0, self.longest - wave.shape[1])))[:, : self.longest]
        spectrum = torch.stft(wave, self.size, self.hop, window=self.window, return_complex=True)
        power = spectrum[..., :-1].real.square() + spectrum[..., :-1].imag.square()
        mel = (self.banks @ power).clamp_min(1e-10).log10()
        return (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0
