"""Few-pixel perturbations: an edit sets one pixel to one level (Su, Vargas & Sakurai, "One pixel attack", 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core import rng
from advgym.core.batch import pick
from advgym.core.edits import FLAT, EditsBatch

FEATURES = 1 << 14  # site_features are given up to this many numbers per sample


class PixelBatch(EditsBatch):
    """B images whose sites are their C*H*W values (pixels, for one channel) and whose choices are levels.

    The clean level of a site is not a choice, so k edits always change k values.

    Args:
        x: float32 (B, C, H, W) on the lattice.
        pixels: most edits of a valid perturbation.
        lattice: levels 0 to lattice; a level's value is level / lattice.
    """

    shown = "x lattice level site_features"

    key = "site"

    def __init__(self, ids: Tensor, labels: Tensor, x: Tensor, *, pixels: int, lattice: int) -> None:
        self.ids, self.labels, self.x, self.lattice = ids, labels, x, lattice
        self.level = torch.round(x * lattice).to(torch.int64).flatten(1)  # (B, sites)
        self.sites, self.choices = self.level.shape[1], lattice + 1
        self.rows_max = min(pixels, self.sites)
        self.limit = torch.full((len(x),), self.rows_max, dtype=torch.int64, device=x.device)
        if self.sites * 4 <= FEATURES:
            self.site_features = _features(x)

    def legal(self, site: Tensor, choice: Tensor, rows: Tensor | None = None) -> Tensor:
        return pick(self.level, rows).gather(1, site) != choice

    def mask(self, rows: Tensor | None = None) -> Tensor:
        """Bool (n, sites, choices); only for tables of at most 2**16 cells."""
        if self.sites * self.choices > FLAT:
            raise NotImplementedError(f"a table of {self.sites} x {self.choices} cells has no dense mask")
        return pick(self.level, rows).unsqueeze(2) != torch.arange(self.choices, device=self.x.device)

    def site_mask(self, rows: Tensor | None = None) -> Tensor:
        """Every site has a level to change to."""
        return torch.ones_like(pick(self.level, rows), dtype=torch.bool)

    def choice_mask(self, sites: Tensor, rows: Tensor | None = None) -> Tensor:
        own = pick(self.level, rows).gather(1, sites.unsqueeze(1))
        return own != torch.arange(self.choices, device=self.x.device)

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        """The images with every edit made, (n, C, H, W), on the lattice."""
        return self._blend(form, None, rows)

    def raw_distance(self, x: Tensor, rows: Tensor) -> Tensor | None:
        """How many values differ from the clean image's, however little."""
        if not isinstance(x, Tensor) or x.shape[1:] != self.x.shape[1:]:
            return None
        return ((x.detach() - self.x[rows]).flatten(1).abs() > 1e-6).sum(1).float()

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> Tensor:
        """Each edited pixel moved from its clean value (weight 0) to its level (weight 1)."""
        return self._blend(form, weights, rows)

    def _blend(self, form: Tensor, weights: Tensor | None, rows: Tensor | None) -> Tensor:
        level = pick(self.level, rows)
        used = form[..., 0] >= 0
        site = torch.where(used, form[..., 0], 0)
        change = torch.where(used, form[..., 1] - level.gather(1, site), 0).to(self.x.dtype)
        if weights is not None:
            change = change * weights
        # Sums of whole levels are exact, so an unedited pixel keeps its very value; padding adds 0 to site 0.
        out = level.to(self.x.dtype).scatter_add(1, site, change)
        return (out / self.lattice).view(-1, *self.x.shape[1:])

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """The images at `form`; the gradient wanted is in their own values."""
        x = self.inputs(form, rows).requires_grad_()
        return x, [x]

    @torch.no_grad()
    def rank_by(
        self, form: Tensor, grads: list[Tensor | None], k: int, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gain of (site, level): gradient at the site times the change of its value (Papernot et al. 2016, JSMA).

        The k best cells lie at the k best sites, and a site's best level is an end of the scale: no table is built.
        """
        level = pick(self.level, rows)
        n = len(level)
        slope = torch.zeros_like(level, dtype=torch.float32) if grads[0] is None else grads[0].reshape(n, self.sites)
        slope = torch.nan_to_num(slope.to(torch.float32)) / self.lattice
        top = self.lattice
        ends = torch.where(slope > 0, torch.where(level < top, top, top - 1), torch.where(level > 0, 0, 1))
        best = slope * (ends - level)
        held = torch.zeros(n, self.sites + 1, dtype=torch.bool, device=level.device)
        held.scatter_(1, torch.where(form[..., 0] >= 0, form[..., 0], self.sites), True)
        best = best.masked_fill(held[:, :-1], -torch.inf)
        best, sites = best.topk(min(k, self.sites), dim=1)
        own = level.gather(1, sites).unsqueeze(2)
        levels = torch.arange(self.choices, device=level.device)
        gains = slope.gather(1, sites).unsqueeze(2) * (levels - own)
        gains = gains.masked_fill((levels == own) | torch.isneginf(best).unsqueeze(2), -torch.inf).flatten(1)
        gain, cell = gains.topk(min(k, gains.shape[1]), dim=1)
        edits = torch.stack([sites.gather(1, cell // self.choices), cell % self.choices], 2)
        edits = torch.where(torch.isneginf(gain).unsqueeze(2), -1, edits)
        short = k - gain.shape[1]
        return F.pad(edits, (0, 0, 0, short), value=-1), F.pad(gain, (0, short), value=-torch.inf)

    def view(self) -> dict[str, Tensor]:
        """`clean` (B, C, H, W) and, for small images, `site_features` (B, sites, 4): value, row, column, contrast."""
        view = {"clean": self.x}
        if self.sites * 4 <= FEATURES:
            view["site_features"] = self.site_features
        return view


def _features(x: Tensor) -> Tensor:
    """(B, sites, 4): value, row and column in [0, 1], and the value minus its 3x3 neighbourhood's mean."""
    _, _, h, w = x.shape
    row = (torch.arange(h, device=x.device) / max(h - 1, 1)).view(1, 1, h, 1).expand_as(x)
    column = (torch.arange(w, device=x.device) / max(w - 1, 1)).view(1, 1, 1, w).expand_as(x)
    mean = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    return torch.stack([x, row, column, x - mean], -1).flatten(1, 3)


def random_levels(inputs: Tensor, rate: float, keys: Tensor, *, lattice: int) -> Tensor:
    """Each value of (n, C, H, W) replaced, with probability `rate`, by a uniformly drawn level.

    Reads nothing but the inputs; `keys` int64 (n,) hold all the randomness.
    """
    shape = tuple(inputs.shape[1:])
    hit = rng.uniform(0, keys, shape, 41) < rate
    level = rng.bits(0, keys, shape, 42) % (lattice + 1)
    return torch.where(hit, level.to(inputs.dtype) / lattice, inputs)
