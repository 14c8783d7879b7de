"""Attenuated cells of a band x time grid: Kenansville attacks (Abdullah et al. 2021) as Edits.

A clip is a sum of cells of the modified discrete cosine transform (Princen & Bradley 1986), whose sine window makes it
orthogonal: what is taken away from different cells adds up in energy, and an unedited cell keeps its very samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core.batch import pick
from advgym.core.edits import EditsBatch
from advgym.envs.speech.constraints.masking import bark
from advgym.envs.speech.data.clips import LEVELS
from advgym.envs.speech.perturb.clips import before_padding, loudness

HOP = 0.032  # seconds between blocks of the transform


@lru_cache(maxsize=8)
def basis(size: int, device: torch.device) -> Tensor:
    """The windowed cosines, float32 (2 size, size): blocks of 2 size samples to size coefficients, and back."""
    n, k = torch.arange(2 * size, dtype=torch.float64), torch.arange(size, dtype=torch.float64)
    phase = (n + 0.5 + size / 2).unsqueeze(1) * (k + 0.5) * (math.pi / size)
    window = torch.sin((n + 0.5) * (math.pi / (2 * size)))
    return (math.sqrt(2 / size) * window.unsqueeze(1) * torch.cos(phase)).float().to(device)


def forward(x: Tensor, size: int) -> Tensor:
    """Coefficients (n, blocks, size) of clips (n, samples): ceil(samples / size) + 1 blocks."""
    blocks = -(-x.shape[1] // size) + 1
    padded = F.pad(x, (size, size * blocks - x.shape[1]))
    return padded.unfold(1, 2 * size, size) @ basis(size, x.device)


def backward(cells: Tensor, samples: int) -> Tensor:
    """The clips (n, samples) of coefficients (n, blocks, size)."""
    n, _, size = cells.shape
    parts = cells @ basis(size, cells.device).T
    first, second = parts[:, :, :size].reshape(n, -1), parts[:, :, size:].reshape(n, -1)
    return (F.pad(first, (0, size)) + F.pad(second, (size, 0)))[:, size : size + samples]


def bands_of(bands: int, size: int, rate: int) -> Tensor:
    """The band of each of `size` coefficients, int64 (size,): equally wide on the Bark scale."""
    top = bark(rate / 2)
    found = [min(bands - 1, int(bands * bark((k + 0.5) * rate / (2 * size)) / top)) for k in range(size)]
    return torch.tensor(found)


class BandBatch(EditsBatch):
    """B clips whose sites are cells of `bands` bands and `blocks` blocks each, and whose choices are attenuations.

    Site s is band s % bands of the time span s // bands. A cell without sound is no site.

    Args:
        x: float32 (B, samples), canonical.
        length: int64 (B,).
        decibels: what each choice takes away; infinity removes the cell.
        cells: most edits of a valid perturbation.
        snr: least ratio in dB of the clip to what is taken away from it; None for no such bound.
        bands, blocks: of the grid; rate: samples per second.
    """

    shown = "x length rate keep energy grid allowed band blocks bands samples"

    key = "site"

    def __init__(
        self, ids: Tensor, labels: Tensor, x: Tensor, length: Tensor, *, decibels: Sequence[float], cells: int,
        snr: float | None, bands: int, blocks: int, rate: int,
    ) -> None:  # fmt: skip
        self.ids, self.labels, self.x, self.length, self.rate = ids, labels, x, length, rate
        size = max(8, round(rate * HOP))
        self.bands, self.blocks, self.samples = bands, blocks, x.shape[1]
        self.band = bands_of(bands, size, rate).to(x.device)
        self.keep = torch.tensor([10 ** (-float(d) / 20) for d in decibels], device=x.device)
        power = self._cells(forward(x, size).square())
        self.energy = power.double()
        self.sites, self.choices = power.shape[1], len(decibels)
        self.rows_max = min(cells, self.sites)
        self.limit = torch.full((len(x),), self.rows_max, dtype=torch.int64, device=x.device)
        total = x.double().square().sum(1)
        self.allowed = torch.full_like(total, torch.inf) if snr is None else total * 10 ** (-snr / 10)
        single = self.energy.unsqueeze(2) * (1 - self.keep).double().square()
        heard = self.energy.unsqueeze(2) * LEVELS**2 > 1.0  # less than a 16-bit step in all is no sound
        self.grid = heard & (single <= self.allowed.view(-1, 1, 1))
        self.narrow = 0 if snr is None else self.sites * self.choices

    def _cells(self, power: Tensor) -> Tensor:
        """Sums over the cells of (n, blocks, size), (n, sites)."""
        n, many, _ = power.shape
        by_band = torch.zeros(n, many, self.bands, device=power.device).index_add(2, self.band, power)
        spans = -(-many // self.blocks)
        return F.pad(by_band, (0, 0, 0, spans * self.blocks - many)).view(n, spans, self.blocks, -1).sum(2).flatten(1)

    def _taken(self, form: Tensor) -> Tensor:
        """What each edit takes of its cell's amplitude, float32 (n, E), 0 for padding."""
        return torch.where(form[..., 0] >= 0, 1 - self.keep[form[..., 1].clamp(0, self.choices - 1)], 0.0)

    def admissible(self, form: Tensor, rows: Tensor | None = None) -> Tensor | None:
        """Whether what is taken away stays below the bound: the transform is orthogonal, so energies add up."""
        energy = pick(self.energy, rows).gather(1, form[..., 0].clamp(0, self.sites - 1))
        lost = (energy * self._taken(form).double().square()).sum(1)
        return lost <= pick(self.allowed, rows) * (1 + 1e-6)

    def _minus(self, taken: Tensor, rows: Tensor | None) -> Tensor:
        """The clips less a share `taken` (n, sites) of each cell, on the 16-bit lattice, straight-through."""
        x = pick(self.x, rows)
        cells = forward(x, len(self.band))
        spans = taken.view(len(x), -1, self.bands).repeat_interleave(self.blocks, 1)[:, : cells.shape[1]]
        less = backward(cells * spans[:, :, self.band], self.samples)
        y = x - torch.where(before_padding(self.samples, pick(self.length, rows)), less, 0.0)
        level = (y.detach() * LEVELS).round().clamp(-LEVELS, LEVELS - 1) / LEVELS
        return level + (y - y.detach()) if y.requires_grad else level

    def _amount(self, form: Tensor, taken: Tensor) -> Tensor:
        """Shares of edits (n, E) at their sites, (n, sites)."""
        site = form[..., 0].clamp_min(0)
        return torch.zeros(len(form), self.sites, device=form.device).scatter_add(1, site, taken)

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        """The clips with every cell attenuated, (n, samples)."""
        return self._minus(self._amount(form, self._taken(form)), rows)

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> Tensor:
        """Each cell attenuated as far as its weight says."""
        return self._minus(self._amount(form, self._taken(form) * weights), rows)

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """The clips at `form`; the gradient wanted is in the share taken of each cell."""
        taken = self._amount(form, self._taken(form)).requires_grad_()
        return self._minus(taken, rows), [taken]

    def relaxed_leaves(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        taken = self._amount(form, self._taken(form) * weights).detach().requires_grad_()
        return self._minus(taken, rows), [taken]

    @torch.no_grad()
    def rank_by(
        self, form: Tensor, grads: list[Tensor | None], k: int, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gain of (cell, attenuation): the gradient in the cell's share times the share that the choice takes."""
        n = len(form)
        slope = torch.zeros(n, self.sites, device=form.device) if grads[0] is None else torch.nan_to_num(grads[0])
        gains = slope.unsqueeze(2) * (1 - self.keep)
        held = torch.zeros(n, self.sites + 1, dtype=torch.bool, device=form.device)
        held.scatter_(1, torch.where(form[..., 0] >= 0, form[..., 0], self.sites), True)
        gains = torch.where(self.mask(rows) & ~held[:, :-1].unsqueeze(2), gains, -torch.inf).flatten(1)
        gain, cell = gains.topk(min(k, gains.shape[1]), dim=1)
        edits = torch.stack([cell // self.choices, cell % self.choices], 2)
        edits = torch.where(torch.isneginf(gain).unsqueeze(2), -1, edits)
        short = k - gain.shape[1]
        return F.pad(edits, (0, 0, 0, short), value=-1), F.pad(gain, (0, short), value=-torch.inf)

    def view(self) -> dict[str, Tensor]:
        """`envelope` (B, 64); `site_features` (B, sites, 3): log10 energy floored at 1e-6, time and band in [0, 1]."""
        site = torch.arange(self.sites, device=self.x.device)
        spans = self.sites // self.bands
        where = [(site // self.bands) / max(spans - 1, 1), (site % self.bands) / max(self.bands - 1, 1)]
        level = torch.log10(self.energy.float() + 1e-6)
        features = torch.stack([level, *(w.expand_as(level) for w in where)], 2)
        return {"envelope": loudness(self.x), "site_features": features}

    def pairs(self, form: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(clean clips, attenuated clips, their lengths) of every row."""
        return pick(self.x, rows), self.inputs(form, rows).detach(), pick(self.length, rows)
