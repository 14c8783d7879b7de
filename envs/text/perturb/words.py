"""Edits of texts: swapped words and paraphrased sentences, in one slot representation.

A site covers G neighbouring slots: one for a word, as many as the longest wording for a sentence. A choice fills them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.core.batch import pick
from advgym.core.edits import EditsBatch
from advgym.envs.text.constraints import Law
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.inputs.vocabulary import UNKNOWN, Lexicon
from advgym.errors import AdvgymError, DataError

FEATURES = 16384  # most entries of `site_features`


class TextBatch(EditsBatch):
    """B texts of S sites of G slots each.

    After the closed choices come the probes: the site deleted and, for words, the site read as the unknown word (where
    the vocabulary has one). Appended choices (word swaps only) come after them: word ids, legal at every swappable site
    and admissible where either word lists the other as its neighbour.

    Args:
        ids, labels: int64 (B,) and (B, ...).
        clean: int64 (B, S, G), word ids, -1 in empty slots.
        segments: int64 (B, S, C, G), what each choice puts into its site.
        limit: int64 (B,), most edits.
        rows_max: E, most edits that a perturbation can hold.
        lexicon: of the task.
        slots: appended choices at most.
        exists: bool (B, S, C), the choices there are; None: those with words. A choice without words deletes its site.
        laws: constraints on whole texts.
        gaps: int64 (B, S * G + 1), what stands before each slot and after the text; None: one blank.
        spaces: the strings that they index.
    """

    shown = "gaps spaces clean lexicon slots laws width probe unknown first alphabet segments grid open appended"

    def __init__(
        self,
        ids: Tensor,
        labels: Tensor,
        clean: Tensor,
        segments: Tensor,
        *,
        limit: Tensor,
        rows_max: int,
        lexicon: Lexicon,
        slots: int = 0,
        exists: Tensor | None = None,
        laws: tuple[Law, ...] = (),
        gaps: Tensor | None = None,
        spaces: tuple[str, ...] = (),
    ) -> None:
        self.gaps, self.spaces = gaps, spaces
        self.ids, self.labels, self.clean, self.limit = ids, labels, clean, limit
        self.rows_max, self.lexicon, self.slots, self.laws = rows_max, lexicon, slots, laws
        batch, self.sites, closed, self.width = segments.shape
        unknown = lexicon.vocabulary.index.get(UNKNOWN) if self.width == 1 else None
        self.probe, self.unknown = closed, None if unknown is None else closed + 1
        self.first = closed + len(self.probes)  # of the appended choices
        self.choices = self.first + slots
        extra = segments.new_full((batch, self.sites, self.choices - closed, self.width), -1)
        self.segments = torch.cat([segments, extra], 2)
        self.grid = torch.zeros(self.segments.shape[:3], dtype=torch.bool, device=ids.device)
        self.grid[:, :, :closed] = (segments >= 0).any(3) if exists is None else exists
        self.open = self.grid.any(2)  # bool (B, S): sites that may be edited
        if unknown is not None:
            self.segments[:, :, self.unknown, 0] = torch.where(self.open, unknown, -1)
        self.appended = ids.new_full((batch, slots), -1)
        self.alphabet = len(lexicon.vocabulary) if slots else 0

    @property
    def probes(self) -> dict[str, int]:
        found = {"deleted": self.probe, "unknown": self.unknown}
        return {name: choice for name, choice in found.items() if choice is not None}

    @property
    def payloads(self) -> Tensor:  # type: ignore[override]  # appended choices change it
        """Vocabulary ids of every choice: int64 (B, S, C), or (B, S, C, G) for sentences; -1 is none."""
        return self.segments.squeeze(3) if self.width == 1 else self.segments

    @property
    def strings(self) -> tuple[bytes, np.ndarray]:  # type: ignore[override]  # the lexicon's
        """(utf-8 bytes, offsets) of the vocabulary."""
        return self.lexicon.vocabulary.strings

    @property
    def _cells(self) -> Tensor:
        """The grid; a subclass without one overrides whatever reads it."""
        assert self.grid is not None
        return self.grid

    # -- the table -------------------------------------------------------------------------------------------
    def site_mask(self, rows: Tensor | None = None) -> Tensor:
        return pick(self.open, rows)

    def legal(self, site: Tensor, choice: Tensor, rows: Tensor | None = None) -> Tensor:
        lane = torch.arange(len(self), device=site.device) if rows is None else rows
        ok = self._cells[lane.unsqueeze(1), site, choice]
        swap = self.asks_only(choice)
        if self.slots:
            filled = (self.appended >= 0)[lane.unsqueeze(1), (choice - self.first).clamp_min(0)]
            swap = swap | ((choice >= self.first) & filled)
        return ok | (swap & self.open[lane.unsqueeze(1), site])

    def admissible(self, form: Tensor, rows: Tensor | None = None) -> Tensor | None:
        lane = torch.arange(len(form), device=form.device) if rows is None else rows
        related = None
        if self.slots:
            site, choice = form[..., 0].clamp_min(0), form[..., 1].clamp_min(0)
            fine = (choice < self.first) | self._cells[lane.unsqueeze(1), site, choice]
            related = (fine | (form[..., 0] < 0)).all(1)
        return self._lawful(form, lane, related) if self.laws else related

    def _lawful(self, form: Tensor, lane: Tensor, fine: Tensor | None) -> Tensor:
        """Which forms the laws allow; only those are judged that the table and the limit let through."""
        used = form[..., 0] >= 0
        out = torch.ones(len(form), dtype=torch.bool, device=form.device) if fine is None else fine.clone()
        out &= (used.sum(1) <= self.limit[lane]) & ~(self.asks_only(form[..., 1]) & used).any(1)
        asked = (out & used.any(1)).nonzero().squeeze(1)
        if len(asked):
            texts = self.inputs(form[asked], lane[asked]).strings()
            clean = self.inputs(torch.full_like(form[asked], -1), lane[asked]).strings()
            for law in self.laws:
                out[asked] &= torch.tensor(law.allow(texts, clean), dtype=torch.bool, device=out.device)
        return out

    def append(self, payload: Tensor, rows: Tensor | None = None) -> Tensor:
        """Put one word id per row, int64 (n, 1), into its lane's table; a word already there keeps its choice."""
        if not self.slots:
            raise AdvgymError("this table is closed: make the task with slots=8, say, to append words")
        word = payload.reshape(len(payload), -1)[:, 0].to(self.ids.device)
        lane = torch.arange(len(self), device=word.device) if rows is None else rows
        known = (word >= 0) & (word < self.alphabet)
        old = self.appended[lane] == word.unsqueeze(1)
        fresh = known & ~old.any(1)
        if bool(fresh.any()):
            pair = torch.unique(lane[fresh] * self.alphabet + word[fresh])  # sorted, so lanes stand together
            at, new = pair // self.alphabet, pair % self.alphabet
            rank = torch.arange(len(at), device=at.device) - torch.searchsorted(at, at)
            place = (self.appended >= 0).sum(1)[at] + rank
            at, new, place = at[place < self.slots], new[place < self.slots], place[place < self.slots]
            column = self.first + place
            fits = self.lexicon.related(self.clean[at, :, 0], new.unsqueeze(1)) & self.open[at]
            self.appended, self.segments, grid = self.appended.clone(), self.segments.clone(), self._cells.clone()
            self.appended[at, place] = new
            self.segments[at, :, column, 0] = torch.where(self.open[at], new.unsqueeze(1), -1)
            grid[at, :, column] = fits
            self.grid = grid
            old = self.appended[lane] == word.unsqueeze(1)
        found = known & old.any(1)
        slot = old.to(torch.int8).argmax(1) if self.slots else torch.zeros_like(word)
        return torch.where(found, self.first + slot, -1)

    # -- texts -----------------------------------------------------------------------------------------------
    def inputs(self, form: Tensor, rows: Tensor | None = None) -> TextInput:
        n = len(form)
        lane = torch.arange(n, device=form.device) if rows is None else rows
        base = torch.cat([self.clean[lane], self.clean.new_full((n, 1, self.width), -1)], 1)
        # Padding writes to the extra site, which is cut off.
        at = torch.where(form[..., 0] >= 0, form[..., 0], self.sites).unsqueeze(2).expand(-1, -1, self.width)
        base.scatter_(1, at, self._chosen(form, lane))
        return self._spaced(base[:, : self.sites].reshape(n, -1), lane)

    def _spaced(
        self, ids: Tensor, lane: Tensor, swap: Tensor | None = None, weight: Tensor | None = None
    ) -> TextInput:  # fmt: skip
        """Texts of the lanes with what stands between their words."""
        gaps = None if self.gaps is None else (self.gaps[lane], self.spaces)
        return TextInput(ids, self.lexicon.vocabulary, swap, weight, gaps)

    def _chosen(self, form: Tensor, lane: Tensor) -> Tensor:
        """int64 (n, E, G): the words of each edit."""
        edit = form.clamp_min(0)
        return self.segments[lane.unsqueeze(1), edit[..., 0], edit[..., 1]]

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> TextInput:
        n, width = len(form), self.width
        lane = torch.arange(n, device=form.device) if rows is None else rows
        clean = self.clean[lane]
        site = torch.where(form[..., 0] >= 0, form[..., 0], self.sites)
        swap = torch.cat([clean, clean.new_full((n, 1, width), -1)], 1)
        swap.scatter_(1, site.unsqueeze(2).expand(-1, -1, width), self._chosen(form, lane))
        weight = weights.new_zeros(n, self.sites + 1).scatter(1, site, weights)[:, : self.sites]
        return self._spaced(
            clean.reshape(n, -1), lane, swap[:, : self.sites].reshape(n, -1, 1),
            weight.repeat_interleave(width, 1).unsqueeze(2),
        )  # fmt: skip

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[TextInput, list[Tensor]]:
        """The leaf is a weight of 0 for every cell, float32 (n, S, C): its gradient is the cell's first-order gain.

        For word w and substitute v at a site with embedding gradient g that is <g, E[v] - E[w]>; for sentences the sum
        over slots, aligned by position, with empty slots at zero (first order in the slot representation: words beyond
        the old wording's length add nothing).
        """
        plain = self.inputs(form, rows)
        n = len(form)
        lane = torch.arange(n, device=form.device) if rows is None else rows
        weight = torch.zeros(n, self.sites, self.choices, device=form.device, requires_grad=True)
        swap = self.segments[lane].transpose(2, 3).reshape(n, self.sites * self.width, self.choices)
        spread = weight if self.width == 1 else weight.repeat_interleave(self.width, 1)
        return self._spaced(plain.ids, lane, swap, spread), [weight]

    def rank_by(
        self, form: Tensor, grads: list[Tensor | None], k: int, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        gain = grads[0]
        if gain is None:
            raise AdvgymError("this victim has no word embeddings to take gradients of: use a score-based agent")
        n = len(form)
        able = self.mask(rows) & ~self.held(form).unsqueeze(2)
        flat = torch.where(able, gain, -torch.inf).reshape(n, -1)
        most = min(k, flat.shape[1])
        best, cell = flat.topk(most, 1)
        edit = torch.stack([cell // self.choices, cell % self.choices], 2)
        edit = torch.where(best.isfinite().unsqueeze(2), edit, -1)
        if most < k:
            edit = torch.cat([edit, edit.new_full((n, k - most, 2), -1)], 1)
            best = torch.cat([best, best.new_full((n, k - most), -torch.inf)], 1)
        return edit, best

    def held(self, form: Tensor) -> Tensor:
        """Bool (n, S): sites that the edits of `form` leave no room at."""
        out = torch.zeros(len(form), self.sites + 1, dtype=torch.bool, device=form.device)
        out.scatter_(1, torch.where(form[..., 0] >= 0, form[..., 0], self.sites), True)
        return out[:, : self.sites]

    # -- what policies and files see -------------------------------------------------------------------------
    def view(self) -> dict[str, Tensor]:
        """`words` int64 (B, W) and `site_features` float32 (B, S, F).

        F = 3 + 2 C: may it be edited; class log-odds and log-frequency of the site (means over its words); the
        change of each of these two by every choice. All from the training split, none from a victim.
        """
        out = {"words": self.clean.reshape(len(self), -1)}
        closed = self.segments.shape[2] - len(self.probes) - self.slots
        if self.sites * (3 + 2 * closed) > FEATURES:
            return out
        odds, frequency = self._means(self.clean)
        odds_new, frequency_new = self._means(self.segments[:, :, :closed])
        exists = self._cells[:, :, :closed]
        change = torch.cat(
            [
                torch.where(exists, odds_new - odds.unsqueeze(2), 0.0),
                torch.where(exists, frequency_new - frequency.unsqueeze(2), 0.0),
            ],
            2,
        )
        site = torch.stack([self.open.to(torch.float32), odds, frequency], 2)
        return {**out, "site_features": torch.cat([site, change], 2)}

    def _means(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Mean log-odds and log-frequency over the words of the last axis."""
        here = ids >= 0
        many = here.sum(-1).clamp_min(1)
        tables = (self.lexicon.odds.to(ids.device), self.lexicon.frequency.to(ids.device))
        odds, frequency = (torch.where(here, t[ids.clamp_min(0)], 0.0).sum(-1) / many for t in tables)
        return odds, frequency

    def pieces(self, row: int, form: Tensor) -> list[tuple[str, str | None]]:
        """(old text, new text or None where it stays) of every site in use, in the order of the text."""
        text, new = self.lexicon.vocabulary.text, {s: c for s, c in form.tolist() if s >= 0}
        old = [(site, text(ids)) for site, ids in enumerate(self.clean[row].tolist()) if any(i >= 0 for i in ids)]
        return [(said, self.payload(row, site, new[site]) if site in new else None) for site, said in old]

    def payload(self, row: int, site: int, choice: int) -> str:
        """The words of a choice; empty for a deletion."""
        return self.lexicon.vocabulary.text(self.segments[row, site, choice].tolist())

    def restore(self, row: int, site: int, choice: int, payload: Any) -> int:
        if choice < self.first:
            return super().restore(row, site, choice, payload)
        word = self.lexicon.vocabulary.index.get(payload) if isinstance(payload, str) else None
        if word is None:
            raise DataError(f"edit ({site}, {choice}) appends {payload!r}, which is no word of this task's vocabulary")
        found = int(self.append(torch.tensor([[word]]), torch.tensor([row], device=self.ids.device)))
        if found < 0:
            raise DataError(f"the table of sample {int(self.ids[row])} holds no more than {self.slots} appended words")
        return found
