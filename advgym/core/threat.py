"""`env.threat`: pure, free, batched functions of the threat model, over the lanes of an environment."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.edits import EditsBatch
from advgym.core.rng import mix
from advgym.core.task import ThreatModel


class Threat:
    """The constraint as functions of perturbations (lanes, *shape) or (lanes, P, *shape). Nothing here costs a query.

    Attributes:
        model: the `ThreatModel` (knowledge, goal, queries, gradients).
        reach: float32 (lanes,), the largest distance allowed: eps, or the number of edits.
        norm: of the ball, "linf", "l2", "l1" or "l0"; "edits" for Edits.
    """

    def __init__(self, batch: Batch, lanes: Tensor | None, model: ThreatModel) -> None:
        self._batch, self._lanes, self.model = batch, lanes, model
        self.reach = batch.reach if lanes is None else batch.reach[lanes]
        self.norm = str(getattr(batch, "norm", "edits"))
        self._last: tuple[weakref.ref[Tensor], int] | None = None

    def _flat(self, p: Any) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """(rows of perturbations, their lanes, the leading shape)."""
        p = torch.as_tensor(p, device=self.reach.device)
        lead = tuple(p.shape[: p.dim() - len(self._batch.shape)])
        lanes = self._lanes
        if len(lead) == 2:
            every = torch.arange(lead[0], device=p.device) if lanes is None else lanes
            lanes = every.repeat_interleave(lead[1])
            p = p.reshape(-1, *self._batch.shape)
        return p, lanes, lead

    def _over(self, function: Any, p: Any) -> Tensor:
        flat, lanes, lead = self._flat(p)
        out: Tensor = function(flat, lanes)
        return out.view(*lead, *out.shape[1:]) if len(lead) == 2 else out

    def null(self) -> Tensor:
        """The clean perturbation of every lane."""
        return self._batch.null() if self._lanes is None else self._batch.null()[self._lanes]

    def apply(self, p: Any) -> Any:
        """What the victim would see: the canonical inputs, straight-through in a Field."""
        flat, lanes, _ = self._flat(p)
        return self._batch.inputs(self._batch.look(flat, lanes).form, lanes)

    def distance(self, p: Any) -> Tensor:
        """In the units of `reach`; differentiable in a Field."""
        return self._over(self._batch.distance, p)

    def project(self, p: Any) -> Tensor:
        """The nearest valid perturbation; always valid."""
        return self._remember(self._over(self._batch.project, p))

    def projected(self, p: Tensor) -> bool:
        """Whether p is what `project` or `random` gave last, and nobody has written into it: nothing is asked of it."""
        return self._last is not None and self._last[0]() is p and self._last[1] == p._version

    def _remember(self, p: Tensor) -> Tensor:
        self._last = weakref.ref(p), p._version
        return p

    def check(self, p: Any) -> Tensor:
        """Whether each perturbation would count: bool."""
        return self._over(self._batch.check, p)

    def random(self, seed: int, proposals: int | None = None) -> Tensor:
        """Random valid perturbations keyed by (seed, sample): (lanes, *shape) or (lanes, proposals, *shape)."""
        ids = self._batch.ids if self._lanes is None else self._batch.ids[self._lanes]
        if proposals is None:
            return self._remember(self._batch.random(seed, self._lanes, ids))
        every = torch.arange(len(ids), device=ids.device) if self._lanes is None else self._lanes
        nth = torch.arange(proposals, device=ids.device).repeat(len(ids))
        keys = mix(ids.repeat_interleave(proposals) * 2**24 + nth + 1)
        out = self._batch.random(seed, every.repeat_interleave(proposals), keys)
        return out.view(len(ids), proposals, *self._batch.shape)

    def steepest(self, g: Any, p: Any = None) -> Tensor:
        """Fields: the unit step of the constraint's norm along which a function of gradient g rises fastest.

        From `p` (of the shape of g) on, where it is given: in l1 and l0 a value that the box holds fast is left out.
        """
        at = None if p is None else self._flat(p)[0].detach()
        return self._over(partial(self._batch.steepest, p=at), g)

    def mask(self, p: Any = None) -> Tensor:
        """Edits: bool (lanes, sites, choices), the edits that `compose` would leave within the limit.

        What whole sets must keep (edges per node, components ...) is in it where a table is small enough to ask.
        """
        from advgym.core.moves import edit_mask

        batch = self._batch
        assert isinstance(batch, EditsBatch)
        return edit_mask(batch, self.null() if p is None else torch.as_tensor(p), self._lanes)

    def compose(self, p: Any, edit: Any) -> Tensor:
        """Edits: one more edit (lanes, [P,] 2) on top; the same again undoes it, one of its key replaces it."""
        flat, lanes, lead = self._flat(p)
        batch = self._batch
        assert isinstance(batch, EditsBatch)
        out = batch.compose(flat, torch.as_tensor(edit, device=flat.device).reshape(-1, 2), lanes)
        return out.view(*lead, *out.shape[1:])

    def sample_edit(self, u: Tensor) -> Tensor:
        """Edits: one legal edit per lane from uniforms (lanes, [P,] 2); -1 where a lane has none."""
        batch = self._batch
        assert isinstance(batch, EditsBatch)
        if u.dim() == 2:
            return batch.sample_edit(u, self._lanes)
        every = torch.arange(len(u), device=u.device) if self._lanes is None else self._lanes
        return batch.sample_edit(u.reshape(-1, 2), every.repeat_interleave(u.shape[1])).view(*u.shape)
