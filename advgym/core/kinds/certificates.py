"""Certificates: what a defended victim proves about its own answers.

A model offers one by two methods, which wrappers do not inherit (a wrapper is another model):

    certificate(batch, *, seed=0, **settings) -> Certificate      of the clean samples of a `Batch`
    settled(x, keys, **settings) -> int64 (n,)                    what it answers at inputs x, -1 where it abstains

Whoever reads them knows no domain: a radius comes with its unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.field import FieldBatch
from advgym.core.victim import Victim
from advgym.errors import AdvgymError

UNITS = ("l2", "linf", "edits")  # that `sizes` measures; others can be stated, and not compared with an attack


class Certificate(NamedTuple):
    """What is certified of n samples.

    Attributes:
        prediction: int64 (n,), -1 where the model abstains.
        radius: float64 (n,), in `unit`, at least 0: no input at most so far (L2: nearer) is answered otherwise; inf:
            none that the task allows; 0 where the model abstains.
        unit: "l2", "linf" (of the input), "edits" (their number), or other words.
    """

    prediction: Tensor
    radius: Tensor
    unit: str


def certifier(victim: Victim) -> Callable[..., Certificate] | None:
    """The victim's own `certificate`; None where it offers none."""
    found: Callable[..., Certificate] | None = getattr(victim.module, "certificate", None)
    return found


def check_plain(batch: Batch, what: str) -> None:
    """Refuse what no certificate here is about: bundles, and goals that are not on one class."""
    if batch.members > 1 or batch.labels.dim() > 1:
        raise AdvgymError(f"{what} offers no certificate here: it is of one input and its class, not of bundles")


def sizes(batch: Batch, form: Tensor, unit: str) -> Tensor | None:
    """How far canonical perturbations (n, ...) of the batch's own lanes are from clean, in a unit: float64 (n,).

    None where the batch has no such distance.
    """
    if isinstance(batch, FieldBatch) and unit in ("l2", "linf"):
        if form.shape != batch.x.shape:
            return None
        change = (batch.inputs(form) - batch.x).flatten(1).double()
        found: Tensor = torch.linalg.vector_norm(change, ord=2 if unit == "l2" else torch.inf, dim=1)
        return found
    if batch.kind == "edits" and unit == "edits":
        return (form[..., 0] >= 0).sum(1).double()
    return None
