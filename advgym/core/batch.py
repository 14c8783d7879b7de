"""What a domain owes the core: a batch of clean samples, and what a perturbation does to them.

`rows` appears throughout: the lane of each row of a perturbation, int64 (n,), or None when row i is lane i.
The core never looks inside a model input; it moves it by `take` and counts it by `len`.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from advgym.core.rng import mix


class Look(NamedTuple):
    """One pass over n proposed perturbations, before any of them meets the victim.

    `form` is canonical (what a result file stores and `inputs` reads), differentiable in the proposal for Fields.
    """

    form: Tensor
    real: Tensor  # bool (n,): an input of the domain (finite, sites exist, no key twice)
    valid: Tensor  # bool (n,): real, inside the constraint, free of probes
    distance: Tensor  # float32 (n,): in the units of the constraint; 0 where not real
    digest: Tensor  # int64 (n,): equal exactly when the forms are equal (up to hash collisions)
    change: Tensor  # (n,): of the clean input, in any unit; 0 for none, where real

    @property
    def null(self) -> Tensor:
        """Bool (n,): the clean input."""
        return (self.change == 0) & self.real


@runtime_checkable
class Inputs(Protocol):
    """A batch of model inputs that is not a plain tensor (token rows, graphs with flips ...)."""

    def __len__(self) -> int: ...
    def take(self, index: Tensor) -> Inputs:
        """The rows at `index`, int64 (m,)."""
        ...


class Batch:
    """B clean samples of a task on one device. `FieldBatch` and `EditsBatch` are the two kinds.

    `shown` names, beside those of its bases, the fields that an attacker may see: no other one leaves the evaluator.
    """

    shown: ClassVar[str] = "ids"
    kind: str
    ids: Tensor  # int64 (B,): the samples' ids in their split
    labels: Tensor  # int64 (B, ...): the truth; no observation carries it
    shape: tuple[int, ...]  # of one perturbation
    reach: Tensor  # float32 (B,): the largest distance the constraint allows (d_ref of the reward)
    members: int = 1  # M: model rows per perturbation (bundles); the goal's scores are then (M, ...)

    @property
    def price(self) -> int:
        """Queries that one proposal costs: every member is an input of its own."""
        return self.members

    def __len__(self) -> int:
        return len(self.ids)

    def public(self) -> dict[str, Any]:
        """The fields that its classes declare as shown, as far as it has them."""
        names = dict.fromkeys(name for kind in type(self).__mro__ for name in getattr(kind, "shown", "").split())
        return {name: self.__dict__[name] for name in names if name in self.__dict__}

    def cap(self, form: Tensor, rows: Tensor | None = None) -> Tensor | None:
        """The most that an objective may be for the perturbation's own sake, whatever the victim says: float32 (n,).

        For goals that a perturbation must also reach by itself (enough taken away); None where there is no such thing.
        """
        return None

    def null(self) -> Tensor:
        """The clean perturbation of every lane, (B, *shape)."""
        raise NotImplementedError

    def look(self, p: Tensor, rows: Tensor | None = None) -> Look:
        """Canonical form, validity and distance of perturbations (n, *shape)."""
        raise NotImplementedError

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> Any:
        """What the victim sees: a tensor (n * members, ...) or `Inputs`."""
        raise NotImplementedError

    def fresh(self, keys: Tensor) -> Batch:
        """The samples that a verdict on these lanes takes in their place; themselves by default.

        A bundle's members may be draws of a random transform, which a verdict draws anew; members that were held out
        are the task's to deal (`Task.unseen`). What is answered to the null perturbation stays.

        Args:
            keys: int64 (B,), of the verdict's own.
        """
        return self

    def raw_distance(self, x: Any, rows: Tensor) -> Tensor | None:
        """How far raw inputs (n * members rows) lie from their lanes' clean ones, in units of `reach`: float32 (n,).

        None where a raw input has no such distance; a threat model that bounds what is evaluated then takes none.
        """
        return None

    def proposal(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        """The canonical form as a proposal again: what is held, shown and stored. Edits are their own form."""
        return form

    def distance(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """Distance in the units of `reach`, float32 (n,)."""
        return self.look(p, rows).distance

    def check(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """Whether each perturbation counts: bool (n,)."""
        return self.look(p, rows).valid

    def project(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """The nearest valid perturbation."""
        raise NotImplementedError

    def random(self, seed: int, rows: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        """A random valid perturbation per row, keyed by `keys` int64 (n,) (default: the samples' ids)."""
        raise NotImplementedError

    def steepest(self, g: Tensor, rows: Tensor | None = None, p: Tensor | None = None) -> Tensor:
        """Fields: the unit step from p (None: the clean sample) along which a function of gradient g rises fastest."""
        raise NotImplementedError

    def like(self, **changes: Any) -> Self:
        """The same batch but for these attributes; everything else is shared with it."""
        twin = copy.copy(self)
        for name, value in changes.items():
            setattr(twin, name, value)
        return twin

    def put(self, lanes: Tensor, other: Batch) -> Batch:
        """A copy of this batch whose `lanes` hold the samples of `other` (autoreset). No tensor is written in place.

        The default exchanges every tensor attribute whose first axis is the batch.
        """
        changed = {}
        for name, value in vars(self).items():
            new = getattr(other, name, None)
            # Of a tensor shared by all lanes (a graph, a vocabulary) both batches hold the same, or the same length.
            if not isinstance(value, Tensor) or not isinstance(new, Tensor) or new is value or not value.dim():
                continue
            if len(value) == len(self) and len(new) == len(other):
                value = value.clone()
                value[lanes] = new
                changed[name] = value
        return self.like(**changed)

    def view(self) -> dict[str, Tensor]:
        """What a policy may see of each sample: named tensors (B, ...), flat and of fixed shape for the task."""
        return {}

    def dump(self, form: Tensor, row: int) -> Any:
        """One canonical perturbation as JSON values."""
        raise NotImplementedError

    def load(self, stored: list[Any]) -> Tensor:
        """The inverse of `dump` for every lane: (B, *shape). Raises DataError on anything that is not a dump."""
        raise NotImplementedError


def capped(batch: Batch, objective: Tensor, form: Tensor, rows: Tensor | None = None) -> Tensor:
    """The objective (n,) of canonical perturbations, at most their cap."""
    cap = batch.cap(form, rows)
    return objective if cap is None else torch.minimum(objective, cap.to(objective))


def within(size: Tensor, reach: Tensor, factor: float) -> Tensor:
    """Bool (n,): sizes of at most `factor` times the largest distance allowed; False for NaN."""
    return size <= factor * reach * (1 + 1e-6) + 1e-6


def take(x: Any, index: Tensor) -> Any:
    """Rows of a model input: a tensor, a list, or anything with `take`."""
    if isinstance(x, list):
        return [x[i] for i in index.tolist()]
    return x[index] if isinstance(x, Tensor) else x.take(index)


def pick(values: Tensor, rows: Tensor | None) -> Tensor:
    """`values` of each row's lane; no copy when row i is lane i."""
    return values if rows is None else values[rows]


def hash_rows(values: Tensor) -> Tensor:
    """int64 (n, d) -> int64 (n,): a sum of values times mixed odd weights, wrapping."""
    weights = _hash_weights(values.shape[1], values.device)
    if values.device.type == "cpu":  # seven times faster there, and not to be had for integers on a GPU
        return torch.mv(values, weights)
    return (values * weights).sum(1)


@cache
def _hash_weights(size: int, device: torch.device) -> Tensor:
    return mix(torch.arange(1, size + 1, device=device)) | 1
