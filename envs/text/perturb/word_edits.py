"""Swaps, deletions, insertions and merges of words in one table (CLARE: Li et al., 2021; BAE-I: Garg et al., 2020).

Slots stand gap, word, gap, word, ..., gap. Sites are the slots, and then the pairs of neighbouring words, each over
three slots. Sites that share a slot exclude each other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import Look
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.perturb.words import FEATURES, TextBatch

OPERATIONS = ("swap", "delete", "insert", "merge")
# Words that a sentence can take in nearly anywhere.
_FILLERS = """
really quite rather actually simply just indeed perhaps certainly clearly surely truly basically generally mostly
somewhat maybe apparently honestly frankly
"""
FILLERS = tuple(_FILLERS.split())


class InsertionBatch(TextBatch):
    """B texts of L words: W = 2 L + 1 slots, S = W + L - 1 sites. Choice 0 deletes a word; it exists at words alone.

    Args:
        ids, labels: int64 (B,) and (B, ...).
        slots_clean: int64 (B, W), word ids, -1 in gaps and empty slots.
        segments: int64 (B, S, C, 1): the word that each choice leaves at its site.
        exists: bool (B, S, C).
        options: as of `TextBatch`, without `slots`.
    """

    shown = "wide cover"

    def __init__(
        self, ids: Tensor, labels: Tensor, slots_clean: Tensor, segments: Tensor, exists: Tensor, **options: Any
    ) -> None:
        super().__init__(ids, labels, slots_clean.unsqueeze(2), segments, exists=exists, **options)
        self.wide = slots_clean.shape[1]
        self.cover = cover(self.wide, ids.device)

    # -- what excludes what ----------------------------------------------------------------------------------
    def _slots(self, form: Tensor) -> Tensor:
        """int64 (n, E, 3): the slots that each edit covers, first the one it writes to; W for none."""
        site = form[..., 0]
        return torch.where((site >= 0).unsqueeze(2), self.cover[site.clamp(0, self.sites - 1)], self.wide)

    def _taken(self, form: Tensor) -> Tensor:
        """int64 (n, W): how many edits cover each slot."""
        at = self._slots(form).flatten(1)
        return torch.zeros(len(form), self.wide + 1, dtype=torch.int64, device=form.device).scatter_add(
            1, at, torch.ones_like(at)
        )[:, : self.wide]

    def look(self, p: Tensor, rows: Tensor | None = None) -> Look:
        """As of `EditsBatch`; edits that share a slot are no input of the domain, as are two of one site."""
        look = super().look(p, rows)
        apart = (self._taken(look.form) <= 1).all(1)
        return look._replace(
            real=look.real & apart, valid=look.valid & apart, distance=torch.where(apart, look.distance, 0.0)
        )

    def project(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """As of `EditsBatch`; of edits that share a slot the first stays."""
        inside = (p[..., 0] >= 0) & (p[..., 0] < self.sites) & (p[..., 1] >= 0) & (p[..., 1] < self.choices)
        site, choice = torch.where(inside.unsqueeze(2), p, 0).unbind(2)
        fine = inside & self.legal(site, choice, rows) & ~self.asks_only(p[..., 1])
        p = torch.where(fine.unsqueeze(2), p, -1)
        at = self._slots(p)
        taken = torch.zeros(len(p), self.wide + 1, dtype=torch.bool, device=p.device)
        keep = []
        for e in range(p.shape[1]):
            keep.append(fine[:, e] & ~taken.gather(1, at[:, e]).any(1))
            taken.scatter_(1, torch.where(keep[-1].unsqueeze(1), at[:, e], self.wide), True)
            taken[:, self.wide] = False
        return super().project(torch.where(torch.stack(keep, 1).unsqueeze(2), p, -1), rows)

    def compose(self, p: Tensor, edit: Tensor, rows: Tensor | None = None) -> Tensor:
        """As of `EditsBatch`; the new edit also replaces those of other sites that it shares a slot with."""
        at, new = self._slots(p), self._slots(edit.unsqueeze(1))
        shared = ((at.unsqueeze(3) == new.unsqueeze(2)) & (new < self.wide).unsqueeze(2)).flatten(2).any(2)
        clash = shared & (p[..., 0] != edit[:, :1])
        return super().compose(torch.where(clash.unsqueeze(2), -1, p), edit, rows)

    def held(self, form: Tensor) -> Tensor:
        taken = torch.nn.functional.pad(self._taken(form) > 0, (0, 1))
        return taken[:, self.cover].any(2)

    # -- texts -----------------------------------------------------------------------------------------------
    def inputs(self, form: Tensor, rows: Tensor | None = None) -> TextInput:
        lane = torch.arange(len(form), device=form.device) if rows is None else rows
        return self._spaced(self._written(form, lane), lane)

    def _written(self, form: Tensor, lane: Tensor) -> Tensor:
        """int64 (n, W)."""
        clean = torch.nn.functional.pad(self.clean[lane, :, 0], (0, 1), value=-1)
        word = self._chosen(form, lane)
        gone = torch.full_like(word, -1)
        return clean.scatter(1, self._slots(form).flatten(1), torch.cat([word, gone, gone], 2).flatten(1))[:, :-1]

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> TextInput:
        lane = torch.arange(len(form), device=form.device) if rows is None else rows
        weight = weights.new_zeros(len(form), self.wide + 1)
        weight = weight.scatter(1, self._slots(form).flatten(1), weights.repeat_interleave(3, 1))[:, :-1]
        swap = self._written(form, lane).unsqueeze(2)
        return self._spaced(self.clean[lane, :, 0], lane, swap, weight.unsqueeze(2))

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[TextInput, list[Tensor]]:
        """The leaf is a weight of 0 for every cell, (n, S, C), as of `TextBatch`.

        A gap has no slot for the victim to embed. A word put there is taken as one whose embedding is added to those of
        its two neighbours, half to each: first order in a position that does not exist yet can be no more than that.
        """
        n, many = len(form), self.choices
        lane = torch.arange(n, device=form.device) if rows is None else rows
        plain = self.inputs(form, rows)
        weight = torch.zeros(n, self.sites, many, device=form.device, requires_grad=True)
        words = torch.arange(1, self.wide, 2, device=form.device)  # their slots
        pairs = torch.arange(self.sites - self.wide, device=form.device) + self.wide
        segments, nothing = self.segments[lane, :, :, 0], self.segments.new_full((n, len(words), many), -1)
        pad = torch.nn.functional.pad

        def last(values: Tensor, fill: float) -> Tensor:  # the last word begins no pair
            return pad(values, (0, 0, 0, len(words) - values.shape[1]), value=fill)

        first, second = weight[:, pairs], pad(weight[:, pairs], (0, 0, 1, 0))[:, : len(words)]
        gaps = 0.5 * weight[:, words - 1], 0.5 * weight[:, words + 1]
        swaps = [segments[:, words], last(segments[:, pairs], -1), nothing, segments[:, words - 1],
                 segments[:, words + 1], nothing]  # fmt: skip
        # An added word: its part, and as much less of nothing, so that the word itself keeps its whole part.
        parts = [weight[:, words], last(first, 0.0), second, *gaps, -(gaps[0] + gaps[1])]
        swap = plain.ids.new_full((n, self.wide, many * len(swaps)), -1)
        swap[:, words] = torch.cat(swaps, 2)
        part = torch.zeros(swap.shape, device=form.device).index_copy(1, words, torch.cat(parts, 2))
        return self._spaced(plain.ids, lane, swap, part), [weight]

    # -- what policies and files see -------------------------------------------------------------------------
    def view(self) -> dict[str, Tensor]:
        """`words` int64 (B, W), and `site_features` as of `TextBatch.view` (a gap's own are 0, a pair's the means)."""
        out = {"words": self.clean[:, :, 0]}
        closed = self.first - len(self.probes)
        if self.sites * (3 + 2 * closed) > FEATURES:
            return out
        site = torch.nn.functional.pad(self.clean[:, :, 0], (0, 1), value=-1)[:, self.cover]
        odds, frequency = self._means(site)
        new = self._means(self.segments[:, :, :closed])
        exists = self.grid[:, :, :closed] if self.grid is not None else None
        assert exists is not None
        change = [torch.where(exists, n - o.unsqueeze(2), 0.0) for n, o in zip(new, (odds, frequency), strict=True)]
        features = torch.stack([self.open.to(torch.float32), odds, frequency], 2)
        return {**out, "site_features": torch.cat([features, *change], 2)}

    def pieces(self, row: int, form: Tensor) -> list[tuple[str, str | None]]:
        text, new = self.lexicon.vocabulary.text, {s: c for s, c in form.tolist() if s >= 0}
        begins = {int(self.cover[s, 0]): s for s in new}
        out: list[tuple[str, str | None]] = []
        slot = 0
        while slot < self.wide:
            site = begins.get(slot)
            many = 1 if site is None or site < self.wide else 3
            old = text(self.clean[row, slot : slot + many, 0].tolist())
            if site is not None:
                out.append((old, self.payload(row, site, new[site])))
            elif old:
                out.append((old, None))
            slot += many
        return out


def cover(wide: int, device: Any = "cpu") -> Tensor:
    """int64 (S, 3): the slots of each site, of texts of `wide` slots; `wide` itself where there is none."""
    one = torch.arange(wide, device=device)
    single = torch.stack([one, torch.full_like(one, wide), torch.full_like(one, wide)], 1)
    left = torch.arange(1, wide - 2, 2, device=device)
    return torch.cat([single, torch.stack([left, left + 1, left + 2], 1)])


def interleaved(words: Tensor) -> Tensor:
    """Words int64 (n, L) as slots (n, 2 L + 1)."""
    out = words.new_full((len(words), 2 * words.shape[1] + 1), -1)
    out[:, 1::2] = words
    return out


def packed(ids: Tensor, most: int) -> Tensor:
    """Rows of ids (..., C) with what is no word, or was there before, left out: the first `most`, padded with -1."""
    again = (ids.unsqueeze(-1) == ids.unsqueeze(-2)).tril(-1).any(-1)
    ids = torch.where(again, -1, ids)
    order = (ids < 0).to(torch.int8).argsort(dim=-1, stable=True)
    return torch.nn.functional.pad(ids.gather(-1, order), (0, max(most - ids.shape[-1], 0)), value=-1)[..., :most]
