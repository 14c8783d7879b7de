"""What attacks on signals share: the clean signal, the loudest valid version of a change, filters by the DFT."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.agents.shared.once import wide

HALVINGS = 16


def clean_of(env) -> Tensor:
    """The clean samples of the lanes, (lanes, *shape): what the victim sees of no perturbation."""
    x: Tensor = env.threat.apply(env.threat.null()).detach()
    return x.reshape(env.threat.null().shape)


def loudest(env, change: Tensor, most: float = 1.0) -> Tensor:
    """The largest multiple, up to `most`, of a change (lanes, *shape) that is valid; free, by bisection.

    Null where not even `most` / 2^16 of it is.
    """
    low = torch.zeros(len(change), device=change.device)
    high = torch.full_like(low, most)
    low = torch.where(env.threat.check(change * most), high, low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        valid = env.threat.check(change * wide(middle, change))
        low, high = torch.where(valid, middle, low), torch.where(valid, high, middle)
    return change * wide(low, change)


def convolved(x: Tensor, response: Tensor) -> Tensor:
    """Each row of x (lanes, ..., samples) through its filter (lanes, taps), cut to the length of x."""
    size = x.shape[-1]
    padded = 1 << (size + response.shape[-1] - 1).bit_length()
    h = torch.fft.rfft(response, padded)
    h = h.view(len(h), *[1] * (x.dim() - 2), -1)
    return torch.fft.irfft(torch.fft.rfft(x, padded) * h, padded)[..., :size]


def extent(env) -> Tensor:
    """Where along the last axis a change counts, int64 (lanes, 2): from the first such sample to behind the last.

    Read off the projection of a change everywhere: what lies outside (padding) is not changed.
    """
    one = torch.ones_like(env.threat.null())
    some = (env.threat.project(one) != 0) | (env.threat.project(-one) != 0)
    some = some.view(len(some), -1, some.shape[-1]).any(1)
    size = some.shape[-1]
    first = some.to(torch.int8).argmax(1)
    last = size - some.flip(1).to(torch.int8).argmax(1)
    none = ~some.any(1)
    return torch.stack([torch.where(none, 0, first), torch.where(none, size, last)], 1)


def scaled(g: Tensor) -> Tensor:
    """Gradients (lanes, ...) with a mean absolute value of 1 in each lane; zeros stay zeros."""
    size = g.abs().flatten(1).mean(1).clamp_min(torch.finfo(g.dtype).tiny)
    return torch.nan_to_num(g / wide(size, g))


@torch.no_grad()
def quieter(env, δ: Tensor, τ: Tensor) -> Tensor:
    """δ as a whole made so quiet that its distance is at most τ (lanes,); free, by a few halvings in the logarithm."""
    low, high = torch.where(env.threat.distance(δ) <= τ, 1.0, 0.05), torch.ones_like(τ)
    for _ in range(5):
        middle = (low * high).sqrt()
        fits = env.threat.distance(δ * wide(middle, δ)) <= τ
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return δ * wide(low, δ)
