"""Which single moves are open from a set of edits: the masks of the edit views.

They are exact in what the table and the limit say and, where a batch is `narrow` enough, in what whole sets must keep.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.core.edits import EditsBatch

AT_ONCE = 4096  # sets that are checked together


def edit_mask(batch: EditsBatch, p: Tensor, rows: Tensor | None = None) -> Tensor:
    """Bool (n, sites, choices): edits e for which `compose(p, e)` is within the limit, and admissible where asked.

    An edit that is already there may be undone, one of a used key may be replaced, a new key needs room.
    """
    grid = batch.mask(rows)
    room = batch.room(p, rows)
    if not bool(room.all()):
        grid = grid & (room.unsqueeze(2) | used_cells(batch, p))
    if not batch.narrow:
        return grid
    lane, site, choice = grid.nonzero(as_tuple=True)
    if len(lane) > batch.narrow * len(p):
        return grid
    return torch.zeros_like(grid).index_put((lane, site, choice), _admitted(batch, p, lane, site, choice, rows))


def _admitted(batch: EditsBatch, p: Tensor, lane: Tensor, site: Tensor, choice: Tensor, rows: Tensor | None) -> Tensor:
    """Bool (m,): whether each edit on top of its lane's set leaves one that counts."""
    edit, of = torch.stack([site, choice], 1), lane if rows is None else rows[lane]
    parts = [torch.zeros(0, dtype=torch.bool, device=p.device)]
    for start in range(0, len(lane), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        parts.append(batch.check(batch.compose(p[lane[part]], edit[part], of[part]), of[part]))
    return torch.cat(parts)


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
    if not bool(room.all()):
        sites = sites & (room | _used_sites(batch, p))
    if not batch.narrow:
        return sites
    lane, site = sites.nonzero(as_tuple=True)
    if len(lane) * batch.choices > batch.narrow * len(p):
        return sites
    some = choice_moves(batch, p[lane], site, lane if rows is None else rows[lane]).any(1)
    return torch.zeros_like(sites).index_put((lane, site), some)


def choice_moves(batch: EditsBatch, p: Tensor, site: Tensor, rows: Tensor | None = None) -> Tensor:
    """Bool (n, choices): choices at `site` (n,) that are open from p; the second step."""
    choices = batch.choice_mask(site, rows)
    room = batch.room(p, rows).expand(-1, batch.sites).gather(1, site.unsqueeze(1))
    if not bool(room.all()):
        choices = choices & (room | _held(batch, p, site))
    if not batch.narrow:
        return choices
    lane, choice = choices.nonzero(as_tuple=True)
    if len(lane) > batch.narrow * len(p):
        return choices
    return torch.zeros_like(choices).index_put((lane, choice), _admitted(batch, p, lane, site[lane], choice, rows))


def _held(batch: EditsBatch, p: Tensor, site: Tensor) -> Tensor:
    """Bool (n, choices): choices at `site` (n,) whose key p already holds."""
    every = torch.arange(batch.choices, device=p.device)
    keys = batch.keys(site.unsqueeze(1).expand(-1, batch.choices), every.expand(len(p), -1))
    held = torch.where(p[..., 0] >= 0, batch.keys(p[..., 0], p[..., 1]), -1)
    return (keys.unsqueeze(2) == held.unsqueeze(1)).any(2)


def _used_sites(batch: EditsBatch, p: Tensor) -> Tensor:
    out = torch.zeros(len(p), batch.sites, dtype=torch.bool, device=p.device)
    ends = (p[..., 0],) if batch.key != "pair" else (p[..., 0], p[..., 1])
    for end in ends:
        lane, e = (p[..., 0] >= 0).nonzero(as_tuple=True)
        out[lane, end[lane, e]] = True
    return out
