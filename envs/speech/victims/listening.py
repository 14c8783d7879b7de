"""What models of any origin share: real lengths, batches of like lengths, CTC scores with the blank in front."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.errors import VictimError

SILENT = -30.0  # log-probability of every letter in a frame beyond a recording's end, where the blank has 0
SLACK = 0.1  # of its longest recording that a batch is padded by at most, where the model has a mask
CAP = {"cpu": 16_000 * 20, "cuda": 16_000 * 320}  # samples per forward, padding included


def real_length(x: Tensor, least: int = 1) -> Tensor:
    """Samples of each waveform (n, samples) before its trailing digital silence, int64 (n,), at least `least`.

    A task pads its recordings with zeros that no attack can reach: zeros at the end are no part of a recording.
    """
    place = torch.arange(1, x.shape[1] + 1, device=x.device)
    return (place * (x.detach() != 0)).amax(1).clamp_min(least)


def groups(lengths: Sequence[int], cap: int, *, alike: bool) -> Iterator[list[int]]:
    """Rows in batches of like lengths, longest first, at most `cap` samples each; `alike`: of one length."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        most = lengths[order[start]]
        least = most if alike else most * (1 - SLACK)
        stop = start + 1
        while stop < len(order) and (stop - start + 1) * most <= cap and lengths[order[stop]] >= least:
            stop += 1
        yield order[start:stop]
        start = stop


class Listener(nn.Module):
    """A model that hears each recording at its real length, whatever it is padded to and whatever is beside it.

    Args:
        least: samples that the model needs; shorter recordings are heard with silence after them.
        alike: batches hold one length, for models without a mask.
        cap: samples per forward; 0 for the device's default.
    """

    def __init__(self, *, least: int = 1, alike: bool = True, cap: int = 0) -> None:
        super().__init__()
        self.least, self.alike, self.cap = max(1, least), alike, cap

    def heard(self, x: Tensor, answer: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """`answer(waves (m, samples), lengths (m,))` over batches of like lengths, rows in their own order."""
        x = F.pad(x, (0, max(0, self.least - x.shape[1])))
        length = real_length(x, self.least)
        cap = self.cap or CAP.get(x.device.type, CAP["cpu"])
        order = list(groups(length.tolist(), cap, alike=self.alike))
        parts = []
        for rows in order:
            index = torch.tensor(rows, device=x.device)
            own = length[index]
            wave = x[index, : int(own[0])]
            inside = torch.arange(wave.shape[1], device=x.device) < own.unsqueeze(1)
            parts.append(answer(wave * inside, own))
        back = torch.tensor([i for rows in order for i in rows], device=x.device).argsort()
        return torch.cat(parts)[back]


class Recogniser(Listener):
    """CTC scores (n, frames, 1 + letters): log-probabilities, the blank first, then the letters in order.

    Frames beyond a recording's end say the blank. Tokens that are no letters (sentence marks, the unknown) write
    nothing, as does the blank, which has the best of their scores: greedy decoding is the model's own.

    Args:
        tokens: of the model's outputs in order; "" for one that writes nothing.
        blank: index of the blank.
        frames: samples of a recording -> frames of the model's answer.
    """

    letters: Tensor
    silent: Tensor

    def __init__(
        self, tokens: Sequence[str], blank: int, frames: Callable[[int], int], *, least: int, alike: bool, cap: int = 0
    ) -> None:
        super().__init__(least=least, alike=alike, cap=cap)
        self.frames = frames
        index = [i for i, token in enumerate(tokens) if token and i != blank]
        self.alphabet = "".join(tokens[i] for i in index)
        if len(self.alphabet) != len(index) or len(set(self.alphabet)) != len(index):
            odd = [tokens[i] for i in index if len(tokens[i]) != 1 or tokens.count(tokens[i]) > 1]
            some = ", ".join(map(repr, odd[:6])) + (" ..." if len(odd) > 6 else "")
            raise VictimError(
                f"this recogniser writes {some}; want tokens of "
                "one character each, every one once (letters). Wrap it in a callable that returns texts: it is then "
                "attacked by its labels"
            )
        silent = [blank, *(i for i, token in enumerate(tokens) if not token and i != blank)]
        self.register_buffer("letters", torch.tensor(index), persistent=False)
        self.register_buffer("silent", torch.tensor(silent), persistent=False)

    def logits(self, wave: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """The model's own scores (m, frames, tokens) and the frames of each recording, int64 (m,)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Scores of waveforms (n, samples)."""
        most = self.frames(max(x.shape[1], self.least))

        def answer(wave: Tensor, length: Tensor) -> Tensor:
            found, frames = self.logits(wave, length)
            logp = torch.log_softmax(found.float(), 2)
            logp = torch.cat([logp[..., self.silent].amax(2, keepdim=True), logp[..., self.letters]], 2)
            over = torch.arange(logp.shape[1], device=logp.device) >= frames.unsqueeze(1)
            quiet = logp.new_full((logp.shape[2],), SILENT)
            quiet[0] = 0.0
            logp = torch.where(over.unsqueeze(2), quiet, logp)[:, :most]
            rest = quiet.expand(len(logp), most - logp.shape[1], -1)
            return torch.cat([logp, rest], 1)

        return self.heard(x, answer)


def standardised(wave: Tensor, length: Tensor, tiny: float = 1e-7) -> Tensor:
    """Each recording at zero mean and unit variance over its real length; zeros after it."""
    inside = torch.arange(wave.shape[1], device=wave.device) < length.unsqueeze(1)
    many = length.unsqueeze(1)
    mean = wave.sum(1, keepdim=True) / many
    centred = (wave - mean) * inside
    return centred / (centred.square().sum(1, keepdim=True) / many + tiny).sqrt()


def convolved(kernels: Sequence[int], strides: Sequence[int]) -> tuple[Callable[[int], int], int]:
    """(samples -> frames, samples that one frame needs) of a stack of unpadded convolutions."""
    pairs = list(zip(kernels, strides, strict=True))

    def frames(samples: int) -> int:
        for kernel, stride in pairs:
            samples = (samples - kernel) // stride + 1
        return samples

    least = 1
    for kernel, stride in reversed(pairs):
        least = (least - 1) * stride + kernel
    return frames, least
