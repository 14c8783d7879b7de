"""Tones: a random search over windows of tones, and of the signal's own bands; it learns where they help (our own)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose, clean_fitness, fitness
from advgym.agents.shared.once import wide
from advgym.agents.shared.signals import clean_of, extent
from advgym.lib.settings import COUNT, SHARE, Range

PLACES, LENGTHS, KINDS = 16, 6, 4
MEMORY = 0.98  # of the mean size of a change of the score


@dataclass(frozen=True)
class Steps:
    """A step of each lane, (lanes,), or some candidates, (lanes, K).

    Attributes:
        centre, width: of the window, as shares of the part that may be changed.
        pitch: in [0, 1), where the frequency lies between the lowest and 1/2 cycle per sample, on a logarithmic scale.
        kind: 0 a sine on top, 1 a square wave in place of what is held, 2 the signal's own band on top, 3 taken away.
    """

    centre: Tensor
    width: Tensor
    pitch: Tensor
    kind: Tensor

    def at(self, index: Tensor) -> Steps:
        """One candidate of each lane."""
        row = torch.arange(len(index), device=index.device)
        return replace(self, **{f.name: getattr(self, f.name)[row, index] for f in fields(self)})


@register_agent(
    "tones",
    kind="field",
    knowledge="score",
    needs=("waveform",),
    allowed={
        "candidates": COUNT, "trust": SHARE, "rate": SHARE, "bands": COUNT, "longest": Range(0, 1, above=True),
        "lowest": Range(0.001, 0.4),
    },
)  # fmt: skip
def attack(env, *, candidates=64, trust=0.8, rate=0.3, bands=12, longest=0.5, lowest=0.01, seed=0):
    """Square's search (Andriushchenko et al. 2020) over patches of time and frequency, with a memory of their worth.

    A recogniser reads energy in time and frequency, so a step that changes one patch of both tells more than one that
    changes a stretch of samples by a constant. A step fills a window with a tone at the surface of the ball: a sine on
    top of what is held, a square wave in its place, or, where speech drowns every tone, the sign of the signal's own
    band, which makes that band louder or softer in phase. It is kept when the score rises.

    Which patch is tried is learnt in each lane by least mean squares (Widrow and Hoff 1960): the change of the score is
    predicted as the sum, over the places that a window covers, of a table of place x band x kind. Of `candidates`
    random steps the most promising one is asked with probability `trust`, else the first one.

    Args:
        rate: of learning, a share of the error.
        bands: of frequency, from `lowest` cycles per sample to 1/2.
        longest: the longest window, as a share of the part that may be changed; others are halves of it, six in all.
    """
    obs, _ = env.reset(seed=seed)
    everyone, best = env.threat.null(), clean_fitness(obs)
    lane, held, span = torch.arange(len(best), device=best.device), everyone, extent(env)
    own, amplitude = in_bands(clean_of(env), bands, lowest).sign(), loudness(env, seed)
    table = torch.zeros(len(best), KINDS, bands, PLACES, device=best.device)
    size = torch.full_like(best, 0.3)  # mean change of the score
    step = 0
    while not env.done:
        if 2 * int(env.live.sum()) <= len(held):  # finished lanes are left behind, with what they hold
            some = env.live
            everyone = everyone.index_copy(0, lane, held)
            env = env.view(some)
            state = (lane, best, held, span, own, amplitude, table, size)
            lane, best, held, span, own, amplitude, table, size = (t[some] for t in state)
        draws = env.draws(seed + 7_919 * step)
        many, u = drawn(draws.uniform(4, candidates), longest), draws.uniform(3)
        worth, row = torch.einsum("lkp,lkp->lk", *looked_up(table, many, bands)), torch.zeros_like(lane)
        pick = many.at(torch.where(u[:, 0] < trust, worth.argmax(1), row))
        trial = env.threat.project(filled(held, pick, span, own, amplitude, u[:, 1:], lowest))
        obs, *_ = env.step(trial)
        value = fitness(obs)
        size = torch.where(value.isfinite(), MEMORY * size + (1 - MEMORY) * (value - best).abs(), size)
        gain = torch.nan_to_num((value - best) / size.clamp_min(1e-9), neginf=0.0).clamp(-2, 2)
        table = learnt(table, pick, gain, rate, bands)
        better = value > best
        best, held = torch.where(better, value, best), choose(better, trial, held)
        step += 1
    return everyone.index_copy(0, lane, held)


def drawn(u: Tensor, longest: float) -> Steps:
    """Random steps from uniform numbers (lanes, 4, K)."""
    width = longest * 0.5 ** (u[:, 0] * LENGTHS).floor()
    return Steps(u[:, 1], width, u[:, 2], (u[:, 3] * KINDS).long())


def coverage(steps: Steps) -> Tensor:
    """The share of each place that a window covers, (..., PLACES)."""
    place = torch.arange(PLACES, device=steps.width.device)
    low, high = ((steps.centre + s * steps.width / 2).unsqueeze(-1) * PLACES for s in (-1, 1))
    return (torch.minimum(high, place + 1.0) - torch.maximum(low, place + 0.0)).clamp(0, 1)


def looked_up(table: Tensor, steps: Steps, bands: int) -> tuple[Tensor, Tensor]:
    """(the table's rows of candidates, what they cover), (lanes, K, PLACES) both."""
    lane = torch.arange(len(table), device=table.device).unsqueeze(1)
    return table[lane, steps.kind, (steps.pitch * bands).long()], coverage(steps)


def learnt(table: Tensor, steps: Steps, gain: Tensor, rate: float, bands: int) -> Tensor:
    """The table after one more step of each lane and what it gained: normalised least mean squares."""
    lane = torch.arange(len(table), device=table.device)
    cover, at = coverage(steps), (lane, steps.kind, (steps.pitch * bands).long())
    error = gain - (table[at] * cover).sum(1)
    change = (rate * error / cover.square().sum(1).clamp_min(0.05)).unsqueeze(1) * cover
    return table.index_put(at, change, accumulate=True)


def filled(
    held: Tensor, steps: Steps, span: Tensor, own: Tensor, amplitude: Tensor, u: Tensor, lowest: float
) -> Tensor:
    """`held` (lanes, *shape) with the step of each lane.

    Args:
        span: int64 (lanes, 2), the part that may be changed; own: signs of the bands (lanes, bands, rows, samples).
        amplitude: (lanes,), of a tone in place of what is held; on top it is once or twice that.
        u: (lanes, 2), uniform numbers.
    """
    rows = held.reshape(len(held), -1, held.shape[-1])
    time = torch.arange(rows.shape[-1], device=held.device)
    length = (span[:, 1] - span[:, 0]).float()
    width, centre = (steps.width * length).clamp_min(16), span[:, 0] + steps.centre * length
    inside = ((time - centre.unsqueeze(1)).abs() < width.unsqueeze(1) / 2).unsqueeze(1)
    f = lowest * (0.5 / lowest) ** steps.pitch
    tone = torch.sin(2 * math.pi * (f.unsqueeze(1) * time + u[:, :1])).unsqueeze(1)
    band = own[torch.arange(len(own), device=own.device), (steps.pitch * own.shape[1]).long()]
    kind = wide(steps.kind, rows)
    wave = torch.where(kind < 2, torch.where(kind == 1, tone.sign(), tone), torch.where(kind == 2, band, -band))
    twice = torch.where((u[:, 1] < 0.5) | (steps.kind == 1), 1.0, 2.0)
    base = torch.where(kind == 1, 0.0, rows)
    return torch.where(inside, base + wave * wide(amplitude * twice, rows), rows).view_as(held)


def in_bands(x: Tensor, bands: int, lowest: float) -> Tensor:
    """Each signal (lanes, *shape) in bands of frequency: (lanes, bands, rows, samples); their sum is the rest."""
    rows = x.reshape(len(x), 1, -1, x.shape[-1])
    spectrum = torch.fft.rfft(rows)
    f = torch.arange(spectrum.shape[-1], device=x.device) / x.shape[-1]
    edge = lowest * (0.5 / lowest) ** (torch.arange(bands + 1, device=x.device) / bands)
    inside = (f >= edge[:-1].unsqueeze(1)) & (f < edge[1:].unsqueeze(1))
    inside[-1] |= f >= edge[-1]
    return torch.fft.irfft(spectrum * inside.unsqueeze(1), x.shape[-1])


def loudness(env, seed: int) -> Tensor:
    """The amplitude of a sine at the surface of the ball, (lanes,): the radius; not of linf: a random point's."""
    if env.threat.norm == "linf":
        reach: Tensor = env.threat.reach
        return reach
    p = env.threat.random(seed).flatten(1)
    used = (p != 0).sum(1).clamp_min(1)
    return torch.linalg.vector_norm(p, dim=1) * (2 / used).sqrt()
