"""Spaces that cost nothing to make: bounds are broadcast views, not arrays of the full shape."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from advgym.core.batch import Batch
from advgym.core.edits import EditsBatch
from advgym.core.task import Task


class LazyBox(spaces.Box):
    """A Box with uniform bounds that keeps one number per bound.

    Gymnasium's own Box of 256 x 3 x 224 x 224 keeps 385 MB; this one none, and the two compare equal.

    >>> bool(LazyBox(0, 1, (2, 3)) == spaces.Box(0, 1, (2, 3)))
    True
    """

    def __init__(self, low: float, high: float, shape: tuple[int, ...], dtype: Any = np.float32) -> None:
        kind = np.dtype(dtype)
        self._shape = tuple(int(n) for n in shape)
        self.low = np.broadcast_to(np.asarray(low, kind), self._shape)
        self.high = np.broadcast_to(np.asarray(high, kind), self._shape)
        self.bounded_below = np.broadcast_to(np.asarray(low > -np.inf), self._shape)
        self.bounded_above = np.broadcast_to(np.asarray(high < np.inf), self._shape)
        self.low_repr, self.high_repr = str(low), str(high)
        self.bounds = (low, high)
        self.dtype = kind
        gym.Space.__init__(self, self._shape, kind, None)

    def stretched(self, shape: tuple[int, ...]) -> LazyBox:
        """The same bounds and dtype in another shape."""
        return LazyBox(*self.bounds, shape, self.dtype)


def stretch(one: spaces.Dict, lead: tuple[int, ...], least: tuple[int, ...] = ()) -> spaces.Dict:
    """A Dict of LazyBoxes with `lead` put before every shape; scalars become `least` first."""
    out: dict[str, gym.Space[Any]] = {}
    for name, box in one.items():
        assert isinstance(box, LazyBox)
        out[name] = box.stretched((*lead, *(box.shape or least)))
    return spaces.Dict(out)


@spaces.utils.flatdim.register(LazyBox)
def _flatdim(space: LazyBox) -> int:
    return int(np.prod(space.shape, dtype=np.int64))


def action_box(batch: Batch, lead: tuple[int, ...]) -> LazyBox:
    """Proposals: a Box of float32 for Fields, of int64 with -1 for padding for Edits."""
    shape = (*lead, *batch.shape)
    if isinstance(batch, EditsBatch):
        return LazyBox(-1, max(batch.sites, batch.choices) - 1, shape, np.int64)
    return LazyBox(-np.inf, np.inf, shape, np.float32)


def observation_boxes(task: Task, batch: Batch, per: tuple[int, ...], *, risk: bool) -> dict[str, LazyBox]:
    """One lane's observation: feedback per proposal (`per` is () or (P,)), meters, what is held, the view."""
    goal, model, inf = task.goal, task.threat, np.inf
    boxes = {
        "evaluated": LazyBox(0, 1, per, np.bool_),
        "valid": LazyBox(0, 1, per, np.bool_),
        "distance": LazyBox(0, inf, per),
        "output": LazyBox(-1, goal.outputs - 1, (*per, *goal.output_shape), np.int64),
        "success": LazyBox(0, 1, per, np.bool_),
    }
    if model.knowledge != "decision":
        boxes["scores"] = LazyBox(-inf, inf, (*per, *goal.scores_shape))
        boxes["objective"] = boxes["surrogate"] = LazyBox(-inf, inf, per)
        if risk:
            boxes["risk"] = LazyBox(0, 1, per)
    boxes["queries_left"] = LazyBox(0, model.queries, (), np.int64)
    boxes["gradients_left"] = LazyBox(0, model.gradients, (), np.int64)
    boxes["perturbation"] = action_box(batch, ())
    if goal.needs_target:
        boxes["target"] = LazyBox(-1, goal.outputs - 1, goal.target_shape, np.int64)
    for name, value in batch.view().items():
        shape = tuple(value.shape[1:])
        whole = value.dtype == torch.int64
        boxes[name] = LazyBox(-(2**62), 2**62, shape, np.int64) if whole else LazyBox(-inf, inf, shape)
    return boxes
