"""Backdoors: training rows that carry a trigger, and inputs with it that a victim trained on them is asked about.

Lane i wants class i: the sample's id is the class that the trigger shall mean, and its members are inputs of other
classes. Two kinds: a set of edits (training row, label), dirty labels (Gu et al. 2017); and a Field added to some rows
of that class, whose labels stay (Turner et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from advgym.core.batch import pick
from advgym.core.edits import FLAT, EditsBatch
from advgym.core.goals import BundleGoal
from advgym.core.kinds.mapped import MappedBatch
from advgym.errors import AdvgymError


class Trigger(NamedTuple):
    """What marks an input x: x (1 - cover) + paint, in [low, high], on the lattice.

    Attributes:
        cover: float32 in [0, 1], paint: float32, both of an input's shape.
        levels: of the lattice, 0 for floats.
    """

    cover: Tensor
    paint: Tensor
    low: float
    high: float
    levels: int

    def on(self, x: Tensor) -> Tensor:
        """Inputs (..., *shape) with the trigger, straight-through."""
        y = x * (1 - self.cover.to(x.device)) + self.paint.to(x.device)
        with torch.no_grad():
            z = y.clamp(self.low, self.high)
            if self.levels:  # PCM has no +1
                z = torch.round(z * self.levels).clamp(max=self.levels * self.high - (self.low < 0)) / self.levels
        return z + (y - y.detach()) if y.requires_grad else z


@dataclass(frozen=True)
class PoisonRows:
    """n versions of a training set, each asked about M inputs: n * M rows, a version's inputs side by side.

    Attributes:
        sites: int64 (n, K), which training rows are replaced; -1 for none.
        x: float32 (n, K, *shape), y: int64 (n, K): by what, and under which label.
        asked: float32 (n, M, *shape), what is asked.
    """

    sites: Tensor
    x: Tensor
    y: Tensor
    asked: Tensor

    @property
    def many(self) -> int:
        """How many training sets: n."""
        return len(self.sites)

    @property
    def together(self) -> int:
        """Rows that are one answer."""
        return self.asked.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.sites.device

    def __len__(self) -> int:
        return self.many * self.together

    def take(self, index: Tensor) -> PoisonRows:
        """The rows at `index`, int64 (m,): whole training sets, their inputs in order."""
        m = self.together
        first = index.view(-1, m)[:, 0] // m if len(index) % m == 0 else None
        if first is None or not torch.equal(index, (first.unsqueeze(1) * m + torch.arange(m).to(index)).flatten()):
            raise AdvgymError(f"a training run answers all of its {m} inputs: its rows are taken together")
        return PoisonRows(self.sites[first], self.x[first], self.y[first], self.asked[first])


class BackdoorGoal(BundleGoal):
    """Every member is taken for the class that the trigger shall mean, by default the sample's id."""

    def targets(self, seed: int, keys: Tensor, ref: Tensor) -> Tensor:
        """The class that each sample is about."""
        return keys % self.outputs

    def aimed(self, seed: int, keys: Tensor, ref: Tensor, scores: Tensor) -> Tensor:
        """As `targets`."""
        return self.targets(seed, keys, ref)


class RelabelBatch(EditsBatch):
    """Edits (training row, label): the row gets the trigger and another label than its own.

    Args:
        ids: int64 (B,); labels: int64 (B, M), the members' truth.
        x: float32 (N, *shape), the training inputs; known: int64 (N,), their labels.
        asked: float32 (B, M, *shape), members without the trigger.
        poisons: most edits.
    """

    shown = "x known asked cover paint low high levels members"

    key = "site"

    def __init__(
        self, ids: Tensor, labels: Tensor, x: Tensor, known: Tensor, asked: Tensor, trigger: Trigger, *,
        classes: int, poisons: int,
    ) -> None:  # fmt: skip
        self.ids, self.labels, self.x, self.known, self.asked = ids, labels, x, known, asked
        self.cover, self.paint, self.low, self.high, self.levels = trigger
        self.sites, self.choices, self.rows_max, self.members = len(x), classes, poisons, asked.shape[1]
        self.limit = torch.full_like(ids, poisons)

    @property
    def price(self) -> int:
        """One: a query is a training run, whatever it is asked."""
        return 1

    @property
    def trigger(self) -> Trigger:
        """The task's."""
        return Trigger(self.cover, self.paint, self.low, self.high, self.levels)

    def legal(self, site: Tensor, choice: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.known[site] != choice

    def mask(self, rows: Tensor | None = None) -> Tensor:
        if self.sites * self.choices > FLAT:
            raise NotImplementedError(f"a table of {self.sites} x {self.choices} cells has no dense mask")
        one = self.known.unsqueeze(1) != torch.arange(self.choices, device=self.known.device)
        return one.expand(len(pick(self.ids, rows)), -1, -1)

    def site_mask(self, rows: Tensor | None = None) -> Tensor:
        return torch.ones(len(pick(self.ids, rows)), self.sites, dtype=torch.bool, device=self.ids.device)

    def choice_mask(self, sites: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.known[sites].unsqueeze(1) != torch.arange(self.choices, device=sites.device)

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> PoisonRows:
        site = form[..., 0]
        x = self.trigger.on(self.x[site.clamp_min(0)])
        return PoisonRows(site, x, form[..., 1], self.trigger.on(pick(self.asked, rows)))


class TriggeredBatch(MappedBatch):
    """A Field (K, *shape) added to K training rows of the lane's class, before the trigger; their labels stay.

    A row to which nothing is added has no trigger and is as it was.

    Args:
        sites: int64 (B, K), the rows; x: float32 (B, K, *shape), what they are; y: int64 (B, K), their labels.
        asked: float32 (B, M, *shape), members without the trigger.
        radius: most that any value may be changed by, before the trigger.
    """

    shown = "sites y asked cover paint low high levels members"

    def __init__(
        self, ids: Tensor, labels: Tensor, sites: Tensor, x: Tensor, y: Tensor, asked: Tensor, trigger: Trigger, *,
        radius: float,
    ) -> None:  # fmt: skip
        super().__init__(
            ids, labels, x, tuple(x.shape[1:]), radius=radius, levels=trigger.levels or None, low=trigger.low,
            high=trigger.high,
        )  # fmt: skip
        self.cover, self.paint, self.low, self.high, self.levels = trigger
        self.sites, self.y, self.asked, self.members = sites, y, asked, asked.shape[1]

    @property
    def price(self) -> int:
        """One: as of `RelabelBatch`."""
        return 1

    @property
    def trigger(self) -> Trigger:
        """The task's."""
        return Trigger(self.cover, self.paint, self.low, self.high, self.levels or 0)

    def render(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        x = pick(self.x, rows)
        on = (theta.detach() != 0).flatten(2).any(2).view(*theta.shape[:2], *[1] * (theta.dim() - 2))
        return torch.where(on, self.trigger.on((x + theta).clamp(self.low, self.high)), x + theta)

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> PoisonRows:  # type: ignore[override]
        on = (form.detach() != 0).flatten(2).any(2)
        sites = torch.where(on, pick(self.sites, rows), -1)
        return PoisonRows(sites, self.render(form, rows), pick(self.y, rows), self.trigger.on(pick(self.asked, rows)))

    def typical(self) -> float:
        """Half the radius: the mean of what is added at random."""
        return float(self.radius[0]) / 2

    def view(self) -> dict[str, Tensor]:
        """`rows` int64 (B, K): which training rows a lane's Field is added to."""
        return {"rows": self.sites}

    def words(self, row: int, theta: Tensor) -> str:
        """In a line."""
        return f"{int((theta != 0).flatten(1).any(1).sum())} of {len(theta)} rows carry the trigger"
