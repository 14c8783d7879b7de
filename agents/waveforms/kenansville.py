"""Kenansville: leave out of a signal what is weakest in it (Abdullah et al. 2019, 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose
from advgym.agents.shared.once import wide
from advgym.agents.shared.signals import clean_of
from advgym.lib.settings import Range

METHODS = ("dft", "ssa")


@register_agent(
    "kenansville",
    kind="field",
    knowledge="decision",
    needs=("waveform",),
    allowed={"method": METHODS, "lags": Range(2, 256)},
)
def attack(env, *, method="dft", lags=32, seed=0):
    """Drop the weakest components of a signal; a binary search finds the fewest that succeed (Abdullah et al. 2021).

    "dft": the bins of the discrete Fourier transform, by their power. "ssa": the eigenvectors of the lagged covariance
    (singular spectrum analysis), by their eigenvalues. The most that are dropped is the most that the constraint
    admits, found for nothing; that is the first query, and the search goes on below it while there is a success.
    Where a first success ends the episode that query is all there is. Nothing is drawn at random.

    Args:
        lags: the window of the singular spectrum analysis, in samples.
    """
    env.reset(seed=seed)
    x = clean_of(env)
    removed, count = (_bins if method == "dft" else _spectrum)(x, lags)
    held, lanes = env.threat.null(), len(x)
    low = torch.zeros(lanes, device=x.device)  # dropped: valid; the search for the most of them is free
    high = torch.full_like(low, count)
    for _ in range(math.ceil(math.log2(count + 1)) + 1):
        middle = ((low + high + 1) / 2).floor()
        valid = env.threat.check(-removed(middle))
        low, high = torch.where(valid, middle, low), torch.where(valid, high, middle - 1).maximum(low)
    ask, low, high = low, torch.zeros_like(low), low  # now: low fails, high succeeds once it has been asked
    while not env.done:
        trial = torch.where(wide(ask > low, x), -removed(ask), 0.0)
        if not bool(((ask > low) & env.live).any()):
            break
        obs, *_ = env.step(trial)
        won = obs["success"] & obs["valid"] & obs["evaluated"]
        asked = ask > low
        held = choose(won, trial, held)
        low, high = torch.where(asked & ~won, ask, low), torch.where(won, ask, high)
        ask = torch.where(won | asked, ((low + high) / 2).floor(), low)
        ask = torch.where(low >= high, low, ask)
    return held


def _bins(x: Tensor, lags: int) -> tuple[Callable[[Tensor], Tensor], int]:
    """(what the k weakest bins of each signal add up to, bins)."""
    spectrum = torch.fft.rfft(x)
    order = spectrum.abs().flatten(1).argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=x.device).expand_as(order))
    rank = rank.view(spectrum.shape)

    def removed(k: Tensor) -> Tensor:
        return torch.fft.irfft(torch.where(rank < wide(k, rank), spectrum, 0.0), x.shape[-1])

    return removed, order.shape[1]


def _spectrum(x: Tensor, lags: int) -> tuple[Callable[[Tensor], Tensor], int]:
    """(what the k weakest components of each signal's singular spectrum add up to, components)."""
    rows = x.reshape(-1, x.shape[-1])
    lags = min(lags, x.shape[-1] // 2)
    windows = rows.unfold(1, lags, 1)  # the trajectory matrix (rows, places, lags)
    _, vectors = torch.linalg.eigh(windows.mT @ windows)  # ascending
    each = len(rows) // len(x)
    count = F.fold(torch.ones(1, lags, windows.shape[1], device=x.device), (rows.shape[1], 1), (lags, 1))

    def removed(k: Tensor) -> Tensor:
        weak = torch.arange(lags, device=x.device) < k.repeat_interleave(each).unsqueeze(1)
        u = vectors * weak.unsqueeze(1)
        part = (windows @ (u @ u.mT)).mT  # (rows, lags, places); its anti-diagonals are averaged
        return (F.fold(part, (rows.shape[1], 1), (lags, 1)) / count).view(x.shape)

    return removed, lags
