"""Sentences and words at once: a paraphrase for a sentence, substitutes for the words of whichever wording it has.

After "Discrete adversarial attacks and submodular optimization" (Lei et al., 2019): two budgets, one of sentences and
one of words.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core import rng
from advgym.core.batch import pick
from advgym.core.edits import EditsBatch, _choose
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.inputs.spacing import Gaps
from advgym.envs.text.inputs.vocabulary import Lexicon
from advgym.envs.text.perturb.words import FEATURES
from advgym.errors import AdvgymError


class JointBatch(EditsBatch):
    """B texts of S sentences, each with V wordings of G slots (wording 0 is the clean one), W substitutes per word.

    Sites 0 to S - 1 are sentences: choice c is wording c + 1. Site S + (s * V + v) * G + g is the word in slot g of
    wording v of sentence s: choice w is its substitute w. A word lives under its wording: where the sentence has
    another one its edit changes nothing, and the set is real but inadmissible. The last choice is a probe, the sentence
    or the word deleted. Without a budget of words there are sentence sites only.

    Args:
        ids, labels: int64 (B,).
        wordings: int64 (B, S, V, G), word ids, -1 in empty slots; a wording without words does not exist.
        swaps: int64 (B, S, V, G, W), the substitutes, -1 for none.
        budgets: int64 (B, 2), most sentences and most words.
        rows_max: E, most edits that a perturbation can hold.
        lexicon: of the task.
        gaps: int64 (B, S * G + 1), what stands before each slot of the clean wordings and after the text, or None.
        spaces: the strings that they index, the blank first.
    """

    shown = "gaps spaces wordings swaps budgets lexicon sentences versions width words probe grid"

    def __init__(
        self, ids: Tensor, labels: Tensor, wordings: Tensor, swaps: Tensor, *, budgets: Tensor, rows_max: int,
        lexicon: Lexicon, gaps: Tensor | None = None, spaces: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.gaps, self.spaces = gaps, spaces
        self.ids, self.labels, self.wordings, self.swaps = ids, labels, wordings, swaps
        self.budgets, self.limit, self.rows_max, self.lexicon = budgets, budgets.sum(1), rows_max, lexicon
        batch, self.sentences, self.versions, self.width = wordings.shape
        words, others = swaps.shape[4], self.versions - 1
        self.words = self.sentences * self.versions * self.width if words else 0  # word sites
        self.sites, self.choices = self.sentences + self.words, max(others, words) + 1
        self.probe: int = self.choices - 1
        spoken = (wordings[:, :, 1:] >= 0).any(3) & (budgets[:, 0] > 0).view(-1, 1, 1)
        grid = F.pad(spoken, (0, self.choices - others))
        if words:
            there = (swaps >= 0) & (budgets[:, 1] > 0).view(-1, 1, 1, 1, 1)
            there[:, :, 1:] &= spoken.unsqueeze(3).unsqueeze(4)
            grid = torch.cat([grid, F.pad(there.reshape(batch, -1, words), (0, self.choices - words))], 1)
        self.grid = grid

    @property
    def under(self) -> Tensor:  # type: ignore[override]
        """int64 (sites, 2): sentences stand alone, a word lives under its wording (under choice -1: the clean one)."""
        site = torch.arange(self.sites, device=self.ids.device)
        word, s, v, _ = self.parts(site)
        return torch.stack([torch.where(word, s, -1), torch.where(word, v - 1, -1)], 1)

    @property
    def payloads(self) -> Tensor:  # type: ignore[override]
        """int64 (B, sites, choices, G): the words that a choice puts into its site, -1 for none."""
        batch, others, words = len(self), self.versions - 1, self.swaps.shape[4]
        out = self.ids.new_full((batch, self.sites, self.choices, self.width), -1)
        out[:, : self.sentences, :others] = self.wordings[:, :, 1:]
        out[:, self.sentences :, :words, 0] = self.swaps.reshape(batch, -1, words) if words else -1
        return out

    @property
    def strings(self) -> tuple[bytes, np.ndarray]:  # type: ignore[override]
        """(utf-8 bytes, offsets) of the vocabulary."""
        return self.lexicon.vocabulary.strings

    # -- sites -----------------------------------------------------------------------------------------------
    def parts(self, site: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(is it a word, its sentence, its wording, its slot) of sites of any shape; padding reads as sentence 0."""
        word = site >= self.sentences
        at = torch.where(word, site - self.sentences, 0)
        inner = self.versions * self.width
        s = torch.where(word, at // inner, site).clamp(0, self.sentences - 1)
        return word, s, at // self.width % self.versions, at % self.width

    def worded(self, p: Tensor) -> Tensor:
        """int64 (n, S): the wording of each sentence under edits (n, E, 2); V where it is deleted."""
        own = (p[..., 0] >= 0) & (p[..., 0] < self.sentences)
        out = p.new_zeros(len(p), self.sentences + 1)
        value = torch.where(p[..., 1].eq(self.probe), self.versions, p[..., 1].clamp(-1, self.versions - 2) + 1)
        out.scatter_(1, torch.where(own, p[..., 0], self.sentences), value)
        return out[:, : self.sentences]

    def site_mask(self, rows: Tensor | None = None) -> Tensor:
        assert self.grid is not None
        return pick(self.grid.any(2), rows)

    def admissible(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        used = form[..., 0] >= 0
        word, s, v, _ = self.parts(form[..., 0])
        alive = ~word | (self.worded(form).gather(1, s) == v)
        many = torch.stack([(used & ~word).sum(1), (used & word).sum(1)], 1)
        return (alive | ~used).all(1) & (many <= pick(self.budgets, rows)).all(1)

    def room(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        used = p[..., 0] >= 0
        word, s, _, _ = self.parts(p[..., 0])
        budget = pick(self.budgets, rows)
        more = ((used & ~word).sum(1) < budget[:, 0]).unsqueeze(1)  # one more sentence
        if not self.words:
            return more
        held = p.new_zeros(len(p), self.sentences).scatter_add(1, s, (used & word).long())
        now = self.worded(p).unsqueeze(2)
        version = torch.arange(self.versions, device=p.device)
        # Changing a sentence's wording gives back what was spent on words of the old one.
        kept = held.sum(1).view(-1, 1, 1) - torch.where(now == version, 0, held.unsqueeze(2))
        fits = (kept < budget[:, 1].view(-1, 1, 1)) & (more.unsqueeze(2) | (now > 0) | (version == 0))
        return torch.cat([more.expand(-1, self.sentences), fits.flatten(1).repeat_interleave(self.width, 1)], 1)

    # -- sets of edits ---------------------------------------------------------------------------------------
    def compose(self, p: Tensor, edit: Tensor, rows: Tensor | None = None) -> Tensor:
        """One more edit (n, 2) on top of p (n, E, 2); the same again undoes it, one of the same key replaces it.

        A word of another wording brings that wording along, and what was edited under a wording goes with it: the
        result of an edit that `mask` shows is always valid.
        """
        word, s, v, _ = self.parts(edit[:, 0])
        undo = (p == edit.unsqueeze(1)).all(2).any(1) & (edit[:, 0] >= 0)
        wanted = torch.where(word, v, torch.where(undo, 0, self.worded(edit.unsqueeze(1)).amax(1)))
        moved = (wanted != self.worded(p).gather(1, s.unsqueeze(1)).squeeze(1)) & ~(word & undo) & (edit[:, 0] >= 0)
        row_word, row_s, row_v, _ = self.parts(p[..., 0])
        here = (p[..., 0] >= 0) & (row_s == s.unsqueeze(1)) & moved.unsqueeze(1)
        gone = here & torch.where(row_word, row_v != wanted.unsqueeze(1), word.unsqueeze(1))
        out = torch.where(gone.unsqueeze(2), -1, p)
        brings = moved & word & (v > 0)
        parent = torch.where(brings.unsqueeze(1), torch.stack([s, v - 1], 1), -1)
        out = super().compose(super().compose(out, parent, rows), edit, rows)
        # Where the edit or its wording found no free row, p stays as it is.
        arrived = undo | (out == edit.unsqueeze(1)).all(2).any(1)
        arrived &= ~brings | (out == parent.unsqueeze(1)).all(2).any(1)
        return torch.where(arrived.view(-1, 1, 1), out, p)

    def project(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """A valid subset: no unknown or repeated edits, no probes, no words of other wordings; the first ones stay."""
        site, choice = p[..., 0], p[..., 1]
        inside = (site >= 0) & (site < self.sites) & (choice >= 0) & (choice < self.choices)
        at = torch.where(inside, site, 0)
        keep = inside & self.legal(at, torch.where(inside, choice, 0), rows) & choice.ne(self.probe)
        twice = (site.unsqueeze(2) == site.unsqueeze(1)) & keep.unsqueeze(1)
        keep &= ~twice.tril(-1).any(2)
        word, s, v, _ = self.parts(at)
        budget = pick(self.budgets, rows)
        own = keep & ~word
        own &= own.cumsum(1) <= budget[:, :1]
        now = self.worded(torch.where(own.unsqueeze(2), p, -1))
        deep = keep & word & (now.gather(1, s) == v)
        deep &= deep.cumsum(1) <= budget[:, 1:]
        return torch.where((own | deep).unsqueeze(2), p, -1)

    def sample_edit(self, u: Tensor, rows: Tensor | None = None) -> Tensor:
        """One legal edit per row from uniforms (n, 2): a sentence or a word of any wording, as often each."""
        able = self.site_mask(rows)
        word = torch.arange(self.sites, device=u.device) >= self.sentences
        both = (able & word).any(1) & (able & ~word).any(1)
        half = u[:, 0] >= 0.5
        able &= ~both.unsqueeze(1) | (word == half.unsqueeze(1))
        first = torch.where(both, u[:, 0] * 2 % 1, u[:, 0])
        site = _choose(able, first)
        choice = _choose(self.choice_mask(site.clamp_min(0), rows), u[:, 1])
        return torch.where(((site >= 0) & (choice >= 0)).unsqueeze(1), torch.stack([site, choice], 1), -1)

    def random(self, seed: int, rows: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        """A random valid set per row: up to the budget of sentences, then up to that of words of their wordings."""
        keys = pick(self.ids, rows) if keys is None else keys
        budget, able = pick(self.budgets, rows), self.site_mask(rows)
        size = rng.uniform(seed, keys, (2,), 23)
        u = rng.uniform(seed, keys, (2, self.sites), 24)
        word, s, v, _ = self.parts(torch.arange(self.sites, device=keys.device))
        many = (size * (budget + 1)).long()
        own, clean = (able & ~word).any(1), (able & word & (v == 0)).any(1)
        many[:, 0] = torch.where(own, torch.where(clean, many[:, 0], many[:, 0].clamp_min(1)), 0)
        many[:, 1] = torch.where(many[:, 0] > 0, many[:, 1], many[:, 1].clamp_min(1))  # never nothing, if there is any
        many = torch.minimum(many, budget)
        top = self._draw(torch.where(able & ~word, u[:, 0], -1.0), u[:, 1], many[:, 0], rows)
        alive = word & (self.worded(top)[:, s] == v)
        deep = self._draw(torch.where(able & alive, u[:, 0], -1.0), u[:, 1], many[:, 1], rows)
        both = torch.cat([top, deep], 1)
        front = (both[..., 0] >= 0).to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : self.rows_max]
        return both.gather(1, front.unsqueeze(2).expand(-1, -1, 2))

    def _draw(self, order: Tensor, u: Tensor, many: Tensor, rows: Tensor | None) -> Tensor:
        """The `many` (n,) sites of largest `order` (n, sites) with a choice by `u`; negative ones never: (n, E, 2)."""
        top, site = order.topk(min(self.rows_max, self.sites), 1)
        there = (top >= 0) & (torch.arange(top.shape[1], device=top.device) < many.unsqueeze(1))
        lane = torch.arange(len(site), device=site.device) if rows is None else rows
        assert self.grid is not None
        choices = self.grid[lane.unsqueeze(1), site].flatten(0, 1)
        choice = _choose(choices, u.gather(1, site).flatten()).view_as(site)
        out = torch.where(there.unsqueeze(2), torch.stack([site, choice], 2), -1)
        return F.pad(out, (0, 0, 0, self.rows_max - out.shape[1]), value=-1)

    # -- texts -----------------------------------------------------------------------------------------------
    def _said(self, form: Tensor, lane: Tensor) -> Tensor:
        """int64 (n, S * G): the words of the wordings that the sentences have, before any word is swapped."""
        now, s = self.worded(form), torch.arange(self.sentences, device=form.device)
        out = self.wordings[lane.unsqueeze(1), s, now.clamp_max(self.versions - 1)]
        return out.masked_fill((now == self.versions).unsqueeze(2), -1).flatten(1)

    def _words(self, form: Tensor, lane: Tensor) -> tuple[Tensor, Tensor]:
        """(slot of each edit of a word that is there, S * G for all other rows; its substitute, -1 for none)."""
        word, s, v, g = self.parts(form[..., 0])
        alive = word & (self.worded(form).gather(1, s) == v)
        gone = form[..., 1].eq(self.probe)
        nth = torch.where(alive & ~gone, form[..., 1], 0).clamp_max(max(self.swaps.shape[4] - 1, 0))
        new = self.swaps[lane.unsqueeze(1), s, v, g, nth] if self.words else torch.full_like(nth, -1)
        return torch.where(alive, s * self.width + g, self.sentences * self.width), torch.where(gone, -1, new)

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> TextInput:
        lane = torch.arange(len(form), device=form.device) if rows is None else rows
        slot, new = self._words(form, lane)
        said = F.pad(self._said(form, lane), (0, 1), value=-1).scatter(1, slot, new)  # the last slot is cut off
        return TextInput(said[:, :-1], self.lexicon.vocabulary, gaps=self._between(self.worded(form) > 0, lane))

    def _between(self, other: Tensor, lane: Tensor) -> Gaps | None:
        """The gaps of texts; in sentences that have another wording, `other` bool (n, S), words are a blank apart."""
        if self.gaps is None:
            return None
        gaps, inner = self.gaps[lane], torch.arange(self.width, device=lane.device) > 0
        blank = (other.unsqueeze(2) & inner).flatten(1)
        return torch.cat([torch.where(blank, 0, gaps[:, :-1]), gaps[:, -1:]], 1), self.spaces

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> TextInput:
        """A sentence of weight u mixes its wordings slot by slot; a word of weight w mixes inside its wording.

        Slot: (1 - u) E[clean] + u (1 - w) E[wording] + u w E[substitute].
        """
        n = len(form)
        lane = torch.arange(n, device=form.device) if rows is None else rows
        said, (slot, new) = self._said(form, lane), self._words(form, lane)
        swap = F.pad(said, (0, 1), value=-1).scatter(1, slot, new)[:, :-1]
        own = (form[..., 0] >= 0) & (form[..., 0] < self.sentences)
        u = weights.new_ones(n, self.sentences + 1)
        u = u.scatter(1, torch.where(own, form[..., 0], self.sentences), weights)[:, : self.sentences]
        u = u.repeat_interleave(self.width, 1)
        w = weights.new_zeros(n, said.shape[1] + 1).scatter(1, slot, weights)[:, :-1]
        clean = self.wordings[lane, :, 0].flatten(1)
        parts = torch.stack([u * (1 - w), u * w], 2)
        whole = (self.worded(form) > 0) & (u.detach()[:, :: self.width] == 1)
        return TextInput(
            clean, self.lexicon.vocabulary, torch.stack([said, swap], 2), parts, self._between(whole, lane)
        )  # fmt: skip

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[TextInput, list[Tensor]]:
        """Leaves of weight 0: for every wording (n, S, C), and for every word of the wordings in use (n, S * G, W).

        The gain of a wording is summed over slots aligned by position, to first order (see `TextBatch.leaves`).
        """
        n = len(form)
        lane = torch.arange(n, device=form.device) if rows is None else rows
        plain = self.inputs(form, rows)
        sentence = torch.zeros(n, self.sentences, self.versions - 1, device=form.device, requires_grad=True)
        others = self.wordings[lane, :, 1:].transpose(2, 3).flatten(1, 2)
        swaps = self._active(form, lane)
        word = torch.zeros(swaps.shape, device=form.device, requires_grad=True)
        weight = torch.cat([sentence.repeat_interleave(self.width, 1), word], 2)
        return TextInput(
            plain.ids, plain.vocabulary, torch.cat([others, swaps], 2), weight, plain.gaps
        ), [sentence, word]  # fmt: skip

    def _active(self, form: Tensor, lane: Tensor) -> Tensor:
        """int64 (n, S * G, W): the substitutes of the words of the wordings in use."""
        now, s = self.worded(form), torch.arange(self.sentences, device=form.device)
        out = self.swaps[lane.unsqueeze(1), s, now.clamp_max(self.versions - 1)]
        return out.masked_fill((now == self.versions).view(*now.shape, 1, 1), -1).flatten(1, 2)

    def rank_by(
        self, form: Tensor, grads: list[Tensor | None], k: int, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `EditsBatch.rank_by`: wordings, and words of the wordings in use, where the budgets have room."""
        if grads[0] is None:
            raise AdvgymError("this victim has no word embeddings to take gradients of: use a score-based agent")
        n, others = len(form), self.versions - 1
        lane = torch.arange(n, device=form.device) if rows is None else rows
        held = torch.zeros(n, self.sites + 1, dtype=torch.bool, device=form.device)
        held.scatter_(1, torch.where(form[..., 0] >= 0, form[..., 0], self.sites), True)
        open_ = self.room(form, rows).expand(-1, self.sites) & ~held[:, :-1]
        s, g = torch.arange(self.sentences, device=form.device), torch.arange(self.width, device=form.device)
        assert self.grid is not None
        able = [(self.grid[lane, : self.sentences, :others] & open_[:, : self.sentences].unsqueeze(2)).flatten(1)]
        cell = [(s.unsqueeze(1) * self.choices + torch.arange(others, device=form.device)).flatten().expand(n, -1)]
        gain = [grads[0].flatten(1)]
        if self.words and grads[1] is not None:
            count = self.swaps.shape[4]
            version = (s * self.versions + self.worded(form).clamp_max(self.versions - 1)).unsqueeze(2)
            site = (self.sentences + version * self.width + g).flatten(1)
            able.append((self._active(form, lane) >= 0).flatten(1) & open_.gather(1, site).repeat_interleave(count, 1))
            cell.append((site.unsqueeze(2) * self.choices + torch.arange(count, device=form.device)).flatten(1))
            gain.append(grads[1].flatten(1))
        value = torch.where(torch.cat(able, 1), torch.cat(gain, 1), -torch.inf)
        best, at = F.pad(value, (0, max(k - value.shape[1], 0)), value=-torch.inf).topk(k, 1)
        flat = torch.cat(cell, 1)
        found = flat.gather(1, at.clamp_max(flat.shape[1] - 1))
        edit = torch.stack([found // self.choices, found % self.choices], 2)
        return torch.where(best.isfinite().unsqueeze(2), edit, -1), best

    # -- what policies and files see -------------------------------------------------------------------------
    def view(self) -> dict[str, Tensor]:
        """`words` int64 (B, S * G) and `site_features` as of `TextBatch.view`, for sentences (means) and words."""
        out = {"words": self.wordings[:, :, 0].flatten(1)}
        closed, grid = self.choices - 1, self.grid
        assert grid is not None
        if self.sites * (3 + 2 * closed) > FEATURES:
            return out
        batch, count = len(self), self.swaps.shape[4]
        columns = []
        for table in (self.lexicon.odds, self.lexicon.frequency):
            mean = _mean(table.to(self.ids.device), self.wordings)
            own, new = mean[:, :, 0], F.pad(mean[:, :, 1:], (0, closed - self.versions + 1))
            if self.words:
                word = _mean(table.to(self.ids.device), self.wordings.unsqueeze(4)).reshape(batch, -1)
                swap = _mean(table.to(self.ids.device), self.swaps.unsqueeze(5)).reshape(batch, -1, count)
                own, new = torch.cat([own, word], 1), torch.cat([new, F.pad(swap, (0, closed - count))], 1)
            change = torch.where(grid[:, :, :closed], new - own.unsqueeze(2), 0.0)
            columns.append((own.unsqueeze(2), change))
        open_ = grid.any(2, keepdim=True).to(torch.float32)
        return {**out, "site_features": torch.cat([open_, *(c[0] for c in columns), *(c[1] for c in columns)], 2)}

    def payload(self, row: int, site: int, choice: int) -> str:
        """The words of a choice; empty for the probe."""
        if choice == self.probe:
            return ""
        word, s, v, g = (int(x) for x in self.parts(torch.tensor(site)))
        ids = self.swaps[row, s, v, g, choice : choice + 1] if word else self.wordings[row, s, choice + 1]
        return self.lexicon.vocabulary.text(ids.tolist())


def _mean(table: Tensor, ids: Tensor) -> Tensor:
    """Mean of table[ids] over the words of the last axis; 0 where there are none."""
    here = ids >= 0
    return torch.where(here, table[ids.clamp_min(0)], 0.0).sum(-1) / here.sum(-1).clamp_min(1)
