"""Edits: sets of integer pairs (site, choice) over a table of choices.

A site is an address in the clean sample, so edits commute. A perturbation is int64 (E, 2), rows of -1 are padding.
Domains subclass `EditsBatch` and say what exists (`legal`, masks), what a set of edits does (`inputs`), and, for
white-box victims, how edits are relaxed and ranked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.core import rng
from advgym.core.batch import Batch, Look, pick
from advgym.errors import AdvgymError, DataError

KEYS = ("site", "pair", "cell")
FLAT = 1 << 16  # tables up to this many cells get a flat Discrete action with an exact mask


class Table:
    """The choices of every lane, as an agent sees them (`env.table`).

    `sites` x `choices` cells; `mask`, `site_mask` and `choice_mask` say which exist for a lane. Where words stand
    behind the choices, `payload` int64 (B, sites, choices) indexes `strings`, a pair (bytes, offsets).
    """

    def __init__(self, batch: EditsBatch, rows: Tensor | None = None) -> None:
        self._batch, self._rows = batch, rows
        self.sites, self.choices, self.key = batch.sites, batch.choices, batch.key
        self.cells = batch.sites * batch.choices

    @property
    def limit(self) -> Tensor:
        """Most edits that a valid perturbation of each lane may hold, int64 (lanes,)."""
        return pick(self._batch.limit, self._rows)

    @property
    def probe(self) -> int | None:
        """The choice that only asks ("word deleted"), never counts; None where the table has none."""
        return self._batch.probe

    @property
    def probes(self) -> dict[str, int]:
        """All choices that only ask, by name: "deleted", "unknown" (read as something unknown); {} without any."""
        return self._batch.probes

    def mask(self) -> Tensor:
        """Bool (lanes, sites, choices) without probes; only for tables of at most 2**16 cells."""
        return self._batch.mask(self._rows)

    def site_mask(self) -> Tensor:
        """Bool (lanes, sites): sites with at least one choice."""
        return self._batch.site_mask(self._rows)

    def choice_mask(self, sites: Tensor) -> Tensor:
        """Bool (lanes, choices) at one site per lane, int64 (lanes,), without probes."""
        return self._batch.choice_mask(sites, self._rows)

    @property
    def weighted(self) -> bool:
        """Whether `env.rank` takes weights of relaxed edits here."""
        return type(self._batch).relaxed_leaves is not EditsBatch.relaxed_leaves

    @property
    def under(self) -> Tensor | None:
        """Where sites live under choices of others: int64 (sites, 2), see `EditsBatch.under`; else None."""
        return self._batch.under

    @property
    def payload(self) -> Tensor | None:
        """What a choice stands for, where the task says so."""
        value = self._batch.payloads
        return None if value is None else pick(value, self._rows)

    @property
    def strings(self) -> tuple[bytes, np.ndarray] | None:
        """(utf-8 bytes, int64 offsets) of the vocabulary that `payload` indexes."""
        return self._batch.strings


class EditsBatch(Batch):
    """B clean samples perturbed by edits.

    Subclasses set `sites`, `choices`, `rows_max` (E), `key`, `limit` int64 (B,), `probe`, and write `legal`, `inputs`
    and either `grid` (bool (B, sites, choices), exact and without probes) or `site_mask` + `choice_mask`.
    """

    shown = "sites choices limit rows_max narrow"

    kind = "edits"
    sites: int
    choices: int
    rows_max: int
    key: str = "site"
    probe: int | None = None
    limit: Tensor
    grid: Tensor | None = None
    slots: int = 0  # choices that an agent may append (open tables), the last `slots` ids
    # Open cells of a lane up to which masks ask `admissible` about every one; 0 where that says nothing, or is dear.
    narrow: int = 0
    alphabet: int = 0  # payloads of appended choices are integers in [0, alphabet)
    payloads: Tensor | None = None  # int64 (B, sites, choices): what each choice stands for, as an index into `strings`
    strings: tuple[bytes, np.ndarray] | None = None
    # int64 (sites, 2), the site and choice that a site lives under (a word of a chosen paraphrase): choice -1 where it
    # is there while that site is unedited, (-1, -1) for a site of its own.
    under: Tensor | None = None

    @property
    def probes(self) -> dict[str, int]:
        """Choices that are answered and never count, by name; `probe` is "deleted"."""
        return {} if self.probe is None else {"deleted": self.probe}

    def asks_only(self, choice: Tensor) -> Tensor:
        """Bool, of the shape of `choice`: which are probes."""
        first, *rest = self.probes.values() or (-2,)  # no choice is -2
        out = choice == first
        for probe in rest:
            out = out | (choice == probe)
        return out

    # -- what a domain writes --------------------------------------------------------------------------------
    def legal(self, site: Tensor, choice: Tensor, rows: Tensor | None = None) -> Tensor:
        """Whether each (site, choice), int64 (n, E), in range, is a cell of its lane's table; probes included."""
        if self.grid is None:
            raise NotImplementedError
        lane = torch.arange(len(self), device=site.device) if rows is None else rows
        ok = self.grid[lane.unsqueeze(1), site, choice]
        if self.probes:
            ok = ok | (self.asks_only(choice) & self.site_mask(rows).gather(1, site))
        return ok

    def admissible(self, form: Tensor, rows: Tensor | None = None) -> Tensor | None:
        """Further constraints on real, canonical edits: bool (n,), or None when the table and the limit say it all."""
        return None

    def room(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """Bool (n, sites) or (n, 1): sites at which an edit of a new key, composed with p, stays within the limit."""
        return ((p[..., 0] >= 0).sum(1) < pick(self.limit, rows)).unsqueeze(1)

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> Any:
        """Inputs when edit e is applied with weight (n, E) in [0, 1]; differentiable in the weights."""
        raise NotImplementedError

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[Any, list[Tensor]]:
        """Inputs at `form`, and the tensors whose gradients `rank_by` needs."""
        raise NotImplementedError

    def relaxed_leaves(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> tuple[Any, list[Tensor]]:
        """As `leaves`, at edits of which each is applied with a weight (n, E) in [0, 1]."""
        raise AdvgymError("this task ranks edits on top of whole ones: rank without weights")

    def rank_by(
        self, form: Tensor, grads: list[Tensor | None], k: int, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The k single edits of largest first-order gain on top of `form`: int64 (n, k, 2), float32 (n, k).

        Padding (-1, gain -inf) where fewer exist. Keys that `form` already holds are not proposed again.
        """
        raise NotImplementedError

    def append(self, payload: Tensor, rows: Tensor | None = None) -> Tensor:
        """Open tables: one payload per row, int64 (n, width), becomes a choice; the ids, -1 where it is full."""
        raise NotImplementedError

    def site_mask(self, rows: Tensor | None = None) -> Tensor:
        """Bool (n, sites)."""
        return self.mask(rows).any(2)

    def choice_mask(self, sites: Tensor, rows: Tensor | None = None) -> Tensor:
        """Bool (n, choices) at one site per row."""
        grid = self.mask(rows)
        return grid[torch.arange(len(sites), device=sites.device), sites]

    # -- what the core does for all --------------------------------------------------------------------------
    @property
    def reach(self) -> Tensor:  # type: ignore[override]
        """The largest count of edits, as d_ref."""
        return self.limit.to(torch.float32)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(E, 2)."""
        return (self.rows_max, 2)

    def null(self) -> Tensor:
        """All padding."""
        return torch.full((len(self), self.rows_max, 2), -1, dtype=torch.int64, device=self.ids.device)

    def mask(self, rows: Tensor | None = None) -> Tensor:
        """Bool (n, sites, choices)."""
        if self.grid is None:
            raise NotImplementedError(f"a table of {self.sites} x {self.choices} cells has no dense mask")
        return pick(self.grid, rows)

    def keys(self, site: Tensor, choice: Tensor) -> Tensor:
        """The key of each edit: two edits of one perturbation never share it."""
        if self.key == "site":
            return site
        if self.key == "pair":
            return torch.minimum(site, choice) * self.sites + torch.maximum(site, choice)
        return site * self.choices + choice

    def look(self, p: Tensor, rows: Tensor | None = None) -> Look:
        """See `Batch.look`; the form is the same set sorted by key, padding last."""
        site, choice = p[..., 0], p[..., 1]
        pad = (site == -1) & (choice == -1)
        inside = (site >= 0) & (site < self.sites) & (choice >= 0) & (choice < self.choices)
        s, c = torch.where(inside, site, 0), torch.where(inside, choice, 0)
        exists = pad | (inside & self.legal(s, c, rows))
        key = torch.where(pad, torch.iinfo(torch.int64).max, self.keys(s, c))
        order = key.argsort(dim=1, stable=True)
        ordered = key.gather(1, order)
        twice = ((ordered[:, 1:] == ordered[:, :-1]) & ~pad.gather(1, order)[:, 1:]).any(1)
        real = exists.all(1) & ~twice
        form = p.gather(1, order.unsqueeze(2).expand_as(p))
        count = (~pad).sum(1)
        valid = real & (count <= pick(self.limit, rows))
        if self.probes:
            valid = valid & ~(self.asks_only(choice) & ~pad).any(1)
        extra = self.admissible(torch.where(real.view(-1, 1, 1), form, -1), rows)
        if extra is not None:
            valid = valid & extra
        cell = torch.where(pad, 0, rng.mix((s * self.choices + c + 1) * 2 + 1))
        distance = torch.where(real, count, 0).to(torch.float32)
        return Look(form, real, valid, distance, rng.mix(cell.sum(1)), count)

    # -- the pure functions of `env.threat` ------------------------------------------------------------------
    def project(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """A valid subset: unknown and repeated edits and probes go, and the first `limit` of the rest stay."""
        site, choice = p[..., 0], p[..., 1]
        inside = (site >= 0) & (site < self.sites) & (choice >= 0) & (choice < self.choices)
        s, c = torch.where(inside, site, 0), torch.where(inside, choice, 0)
        keep = inside & self.legal(s, c, rows) & ~self.asks_only(choice)
        position = torch.arange(p.shape[1], device=p.device)
        key = torch.where(keep, self.keys(s, c), -2 - position)
        order = key.argsort(dim=1, stable=True)
        ordered = key.gather(1, order)
        repeat = torch.zeros_like(keep)
        repeat[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        keep &= ~torch.zeros_like(keep).scatter(1, order, repeat)
        keep &= keep.cumsum(1) <= pick(self.limit, rows).unsqueeze(1)
        out = torch.where(keep.unsqueeze(2), p, -1)
        return self._feasible(out, rows)

    def _feasible(self, p: Tensor, rows: Tensor | None) -> Tensor:
        """Drop edits from the end until the domain's further constraints hold; the null perturbation always does."""
        for last in range(p.shape[1] - 1, -1, -1):
            form = self.look(p, rows)
            if bool(form.valid.all()):
                return p
            bad = ~form.valid
            p = p.clone()
            p[bad, last] = -1
        return p

    def compose(self, p: Tensor, edit: Tensor, rows: Tensor | None = None) -> Tensor:
        """`p` (n, E, 2) with one more edit (n, 2): the same edit again undoes it, one of the same key replaces it.

        An edit of -1, or one that finds no free row, leaves p as it is.
        """
        site, choice = edit[:, :1], edit[:, 1:]
        used = p[..., 0] >= 0
        hit = used & (self.keys(p[..., 0], p[..., 1]) == self.keys(site, choice))
        same = hit & (p[..., 0] == site) & (p[..., 1] == choice)
        if self.key == "pair":
            same = hit
        found = hit.any(1)
        free = (~used).to(torch.int8).argmax(1)
        where = torch.where(found, hit.to(torch.int8).argmax(1), free)
        able = (edit[:, 0] >= 0) & (found | (~used).any(1))
        value = torch.where(same.any(1, keepdim=True), -1, edit)
        n = torch.arange(len(p), device=p.device)
        out = p.clone()
        out[n, where] = torch.where(able.unsqueeze(1), value, p[n, where])
        return out

    def sample_edit(self, u: Tensor, rows: Tensor | None = None) -> Tensor:
        """One legal edit per row from uniforms (n, 2): a site with choices, then a choice. -1 where none exists."""
        sites = self.site_mask(rows)
        site = _choose(sites, u[:, 0])
        choice = _choose(self.choice_mask(site.clamp_min(0), rows), u[:, 1])
        some = (site >= 0) & (choice >= 0)
        return torch.where(some.unsqueeze(1), torch.stack([site, choice], 1), -1)

    def random(self, seed: int, rows: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        """A random valid set of one to `limit` edits per row (fewer where draws collide)."""
        keys = pick(self.ids, rows) if keys is None else keys
        limit = pick(self.limit, rows)
        u = rng.uniform(seed, keys, (self.rows_max, 2), 21)
        many = 1 + (rng.uniform(seed, keys, (), 22) * limit).long()
        p = self.null() if rows is None else self.null()[:1].expand(len(rows), -1, -1)
        p = p.clone()
        for e in range(self.rows_max):
            edit = self.sample_edit(u[:, e], rows)
            p[:, e] = torch.where((many > e).unsqueeze(1), edit, -1)
        return self.project(p, rows)

    # -- storage ---------------------------------------------------------------------------------------------
    def payload(self, row: int, site: int, choice: int) -> Any:
        """What a choice stands for, as stored beside the pair: a word, the integers of an appended payload, or None."""
        return None

    def dump(self, form: Tensor, row: int) -> dict[str, Any]:
        """{"edits": [[site, choice, payload?], ...]}."""
        edits = []
        for site, choice in form.tolist():
            if site >= 0:
                what = self.payload(row, site, choice)
                edits.append([site, choice] if what is None else [site, choice, what])
        return {"edits": edits}

    def restore(self, row: int, site: int, choice: int, payload: Any) -> int:
        """The choice id of a stored edit; open tables append its payload, closed ones compare it."""
        if payload is not None and self.payload(row, site, choice) != payload:
            raise DataError(f"edit ({site}, {choice}) stores {payload!r}, but the table has another choice there")
        return choice

    def load(self, stored: list[Any]) -> Tensor:
        """Inverse of `dump`."""
        out = self.null()
        for i, entry in enumerate(stored):
            try:
                edits = entry["edits"] if entry is not None else []
                if len(edits) > self.rows_max:
                    raise DataError(f"{len(edits)} edits, at most {self.rows_max} fit")
                for e, edit in enumerate(edits):
                    site, choice, *rest = edit
                    if not (isinstance(site, int) and isinstance(choice, int)):
                        raise DataError("sites and choices are integers")
                    if not (0 <= site < self.sites and 0 <= choice < self.choices):
                        raise DataError(f"no cell ({site}, {choice}) in a table of {self.sites} x {self.choices}")
                    out[i, e] = torch.tensor([site, self.restore(i, site, choice, rest[0] if rest else None)])
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"stored perturbation {i} is not a set of edits: {error}") from None
        return out


def _choose(mask: Tensor, u: Tensor) -> Tensor:
    """The index of one True per row of (n, m), uniformly by u in [0, 1); -1 where there is none."""
    total = mask.sum(1)
    nth = (u * total).long().clamp_max((total - 1).clamp_min(0))
    at = torch.searchsorted(mask.cumsum(1), (nth + 1).unsqueeze(1)).squeeze(1).clamp_max(mask.shape[1] - 1)
    return torch.where(total > 0, at, -1)
