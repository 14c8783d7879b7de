"""Word swaps over a whole vocabulary, for gradient attacks: V choices per site, and no table of them in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import pick
from advgym.core.edits import FLAT, EditsBatch
from advgym.envs.text.inputs.slots import Tap, TextInput
from advgym.envs.text.inputs.vocabulary import UNKNOWN
from advgym.envs.text.perturb.words import TextBatch
from advgym.errors import AdvgymError

TILE = 2048  # words that are ranked at once


class EveryWordBatch(TextBatch):
    """Choice v at a site is word v of the vocabulary, but for the word that stands there; then come the probes.

    Args:
        ids, labels: int64 (B,) and (B, ...).
        clean: int64 (B, S, 1).
        open_: bool (B, S), sites that may be edited.
        able: bool (V,), the words that may be chosen.
        options: as of `TextBatch`.
    """

    shown = "able"

    def __init__(self, ids: Tensor, labels: Tensor, clean: Tensor, open_: Tensor, able: Tensor, **options: Any) -> None:
        super().__init__(ids, labels, clean, clean.new_full((*clean.shape[:2], 0, 1), -1), **options)
        words, probes = len(self.lexicon.vocabulary), len(self.probes)
        self.probe, self.unknown = words, words + 1 if probes > 1 else None
        self.choices = self.first = words + probes
        self.open, self.able = open_, able
        del self.segments
        self.grid = None

    @property
    def payloads(self) -> None:  # type: ignore[override]
        """Choices are word ids already."""
        return None

    # -- the table -------------------------------------------------------------------------------------------
    def _is_choice(self, site: Tensor, choice: Tensor, lane: Tensor) -> Tensor:
        word = choice.clamp_max(len(self.able) - 1)
        return (choice < len(self.able)) & self.able[word] & (self.clean[lane.unsqueeze(1), site, 0] != choice)

    def legal(self, site: Tensor, choice: Tensor, rows: Tensor | None = None) -> Tensor:
        lane = torch.arange(len(site), device=site.device) if rows is None else rows
        return (self._is_choice(site, choice, lane) | self.asks_only(choice)) & self.open[lane.unsqueeze(1), site]

    def choice_mask(self, sites: Tensor, rows: Tensor | None = None) -> Tensor:
        lane = torch.arange(len(sites), device=sites.device) if rows is None else rows
        every = torch.arange(self.choices, device=sites.device).expand(len(sites), -1)
        fine = self._is_choice(sites.unsqueeze(1).expand_as(every), every, lane)
        return fine & self.open[lane, sites].unsqueeze(1)

    def mask(self, rows: Tensor | None = None) -> Tensor:
        if self.sites * self.choices > FLAT:
            return EditsBatch.mask(self, rows)  # which says that there is none
        some = pick(self.open, rows)
        sites = torch.arange(self.sites, device=some.device).repeat(len(some))
        lane = torch.arange(len(self), device=some.device) if rows is None else rows
        return self.choice_mask(sites, lane.repeat_interleave(self.sites)).view(*some.shape, self.choices)

    def _chosen(self, form: Tensor, lane: Tensor) -> Tensor:
        choice = form[..., 1].clamp_min(0)
        word = torch.where(choice < len(self.able), choice, -1)
        if self.unknown is not None:
            unknown = self.lexicon.vocabulary.index[UNKNOWN]
            word = torch.where(choice == self.unknown, unknown, word)
        return word.unsqueeze(2)

    # -- gradients -------------------------------------------------------------------------------------------
    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[TextInput, list[Tensor]]:
        """The leaf is a shift of every slot's embedding, (n, S, D), which exists once the victim has embedded."""
        x = self.inputs(form, rows)
        self._tap = x.tap = Tap(len(form))
        return x, x.tap.leaves

    def rank_by(
        self, form: Tensor, grads: list[Tensor | None], k: int, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gains <g, E[v] - E[w]> in tiles of the vocabulary, with the k best so far carried from one to the next."""
        n, words = len(form), len(self.able)
        lane = torch.arange(n, device=form.device) if rows is None else rows
        now = self.inputs(form, rows).ids
        free = pick(self.open, rows) & ~self.held(form)
        best = torch.full((n, k), -torch.inf, device=form.device)
        cell = torch.full((n, k), -1, dtype=torch.int64, device=form.device)
        if not self._tap.embedded:
            raise AdvgymError("this victim has no word embeddings to take gradients of: use a score-based agent")
        own = self._tap.gains(grads, now)
        site = torch.arange(self.sites, device=form.device).view(1, -1, 1)
        for start in range(0, words, TILE):
            word = torch.arange(start, min(start + TILE, words), device=form.device)
            gain = self._tap.gains(grads, word) - own.unsqueeze(2)
            able = free.unsqueeze(2) & self.able[word] & (self.clean[lane] != word)
            value = torch.where(able, gain, -torch.inf).flatten(1)
            at = (site * self.choices + word).expand(n, -1, -1).flatten(1)
            both, ids = torch.cat([best, value], 1), torch.cat([cell, at], 1)
            best, order = both.topk(k, 1)
            cell = ids.gather(1, order)
        edit = torch.stack([cell // self.choices, cell % self.choices], 2)
        return torch.where(best.isfinite().unsqueeze(2), edit, -1), best

    # -- what policies and files see -------------------------------------------------------------------------
    def view(self) -> dict[str, Tensor]:
        """`words` int64 (B, S); `site_features` float32 (B, S, 3): editable, log-odds, log-frequency."""
        odds, frequency = self._means(self.clean)
        return {
            "words": self.clean.reshape(len(self), -1),
            "site_features": torch.stack([self.open.to(torch.float32), odds, frequency], 2),
        }

    def payload(self, row: int, site: int, choice: int) -> str:
        """The word; empty for a deletion."""
        if choice == self.unknown:
            return UNKNOWN
        return self.lexicon.vocabulary.words[choice] if choice < len(self.able) else ""
