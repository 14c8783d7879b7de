"""Which single moves are open from a set of edits: the masks of the edit views."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.core.edits import EditsBatch


def edit_mask(batch: EditsBatch, p: Tensor, rows: Tensor | None = None) -> Tensor:
    """Bool (n, sites, choices): edits e for which `compose(p, e)` is within the limit.

    An edit that is already there may be undone, one of a used key may be replaced, a new key needs room.
    """
    grid = batch.mask(rows)
    room = batch.room(p, rows)
    if bool(room.all()):
        return grid
    return grid & (room.unsqueeze(2) | used_cells(batch, p))


def used_cells(batch: EditsBatch, p: Tensor) -> Tensor:
    """Bool (n, sites, choices): cells whose key p already holds."""
    n, used = len(p), p[..., 0] >= 0
    out = torch.zeros(n, batch.sites, batch.choices, dtype=torch.bool, device=p.device)
    lane = torch.arange(n, device=p.device).unsqueeze(1).expand_as(used)[used]
    site, choice = p[..., 0][used], p[..., 1][used]
    if batch.key == "site":
        out[lane, site] = True
    else:
        out[lane, site, choice] = True
        if batch.key == "pair":
            out[lane, choice, site] = True
    return out


def site_moves(batch: EditsBatch, p: Tensor, rows: Tensor | None = None) -> Tensor:
    """Bool (n, sites): sites with a move from p; the first step of the two-step view."""
    sites = batch.site_mask(rows)
    room = batch.room(p, rows)
    if bool(room.all()):
        return sites
    return sites & (room | _used_sites(batch, p))


def choice_moves(batch: EditsBatch, p: Tensor, site: Tensor, rows: Tensor | None = None) -> Tensor:
    """Bool (n, choices): choices at `site` (n,) that are open from p; the second step."""
    choices = batch.choice_mask(site, rows)
    room = batch.room(p, rows).expand(-1, batch.sites).gather(1, site.unsqueeze(1))
    if bool(room.all()):
        return choices
    every = torch.arange(batch.choices, device=p.device)
    keys = batch.keys(site.unsqueeze(1).expand(-1, batch.choices), every.expand(len(p), -1))
    held = torch.where(p[..., 0] >= 0, batch.keys(p[..., 0], p[..., 1]), -1)
    used = (keys.unsqueeze(2) == held.unsqueeze(1)).any(2)
    return choices & (room | used)


def _used_sites(batch: EditsBatch, p: Tensor) -> Tensor:
    out = torch.zeros(len(p), batch.sites, dtype=torch.bool, device=p.device)
    ends = (p[..., 0],) if batch.key != "pair" else (p[..., 0], p[..., 1])
    for end in ends:
        lane, e = (p[..., 0] >= 0).nonzero(as_tuple=True)
        out[lane, end[lane, e]] = True
    return out
