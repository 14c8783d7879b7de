"""A small domain of our own for the core's tests: a linear classifier of 6 numbers, played as Field and as Edits."""

import torch
from torch import Tensor, nn

from advgym.core.batch import pick
from advgym.core.edits import EditsBatch
from advgym.core.field import FieldBatch
from advgym.core.goals import BundleGoal, ClassGoal
from advgym.core.task import Task, ThreatModel
from advgym.core.victim import Victim

SIZE, LEVELS, CLASSES, SAMPLES = 6, 5, 3, 40


def linear(seed: int = 0) -> nn.Module:
    layer = nn.Linear(SIZE, CLASSES)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(CLASSES, SIZE, generator=g))
        layer.bias.zero_()
    return layer.requires_grad_(False)


def samples() -> Tensor:
    g = torch.Generator().manual_seed(5)
    return torch.randint(0, LEVELS, (SAMPLES, SIZE), generator=g) / (LEVELS - 1)


class Cells(EditsBatch):
    """Each of the numbers may be set to another level; the last choice is a probe that sets it to 0.5."""

    shown = "x grid"

    sites, choices, key, probe = SIZE, LEVELS + 1, "site", LEVELS

    def __init__(self, ids: Tensor, labels: Tensor, x: Tensor, limit: int) -> None:
        self.ids, self.labels, self.x, self.rows_max = ids, labels, x, limit + 1
        self.limit = torch.full((len(ids),), limit, device=ids.device)
        level = torch.arange(LEVELS + 1, device=ids.device)
        self.grid = (x * (LEVELS - 1)).round().long().unsqueeze(2) != level
        self.grid[:, :, LEVELS] = False

    def _values(self, form: Tensor) -> Tensor:
        return torch.where(form[..., 1] == LEVELS, 0.5, form[..., 1] / (LEVELS - 1))

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.relaxed(form, torch.ones(form.shape[:2], device=form.device), rows)

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> Tensor:
        x, used = pick(self.x, rows), form[..., 0] >= 0
        site = form[..., 0].clamp_min(0)
        change = (self._values(form) - x.gather(1, site)) * weights * used
        return x.scatter_add(1, site, change)

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        x = self.inputs(form, rows).requires_grad_()
        return x, [x]

    def rank_by(self, form, grads, k, rows=None):  # type: ignore[no-untyped-def]
        x = self.inputs(form, rows)
        level = torch.arange(LEVELS + 1, device=x.device) / (LEVELS - 1)
        gain = grads[0].unsqueeze(2) * (level - x.unsqueeze(2))
        gain = gain.masked_fill(~self.mask(rows), -torch.inf)
        lane, e = (form[..., 0] >= 0).nonzero(as_tuple=True)
        gain[lane, form[lane, e, 0]] = -torch.inf
        top, at = gain.flatten(1).topk(min(k, gain[0].numel()), dim=1)
        edits = torch.stack([at // self.choices, at % self.choices], 2)
        edits = torch.where(top.isfinite().unsqueeze(2), edits, -1)
        more = k - top.shape[1]
        if more > 0:
            edits = torch.cat([edits, edits.new_full((len(edits), more, 2), -1)], 1)
            top = torch.cat([top, top.new_full((len(top), more), -torch.inf)], 1)
        return edits, top

    def view(self) -> dict[str, Tensor]:
        return {"site_features": self.x.unsqueeze(2)}


def task(
    kind: str = "field", *, victim: Victim | None = None, eps: float = 0.5, limit: int = 2, lattice: int | None = 4,
    norm: str = "linf", **threat,
) -> Task:  # fmt: skip
    x, layer = samples(), linear()
    labels = layer(x).argmax(1)
    labels[::10] = (labels[::10] + 1) % CLASSES  # some that the victim has wrong
    goal = ClassGoal(CLASSES, threat.get("goal", "untargeted"))

    def deal(split, ids, device):  # type: ignore[no-untyped-def]
        at = torch.tensor(ids, device=device)
        if kind == "edits":
            return Cells(at, labels.to(device)[at], x.to(device)[at], limit)
        return FieldBatch(at, labels.to(device)[at], x.to(device)[at], radius=eps, norm=norm, lattice=lattice)

    return Task(
        name=f"toy/{kind}", victim=victim or Victim(layer, name="linear"), goal=goal,
        threat=ThreatModel(**{"queries": 20, "gradients": 20, **threat}), sizes={"train": SAMPLES, "test": SAMPLES},
        deal=deal, surrogate=Victim(linear(1), name="other"),
    )  # fmt: skip


class Shared(Cells):
    """One set of cells for several members, each at an offset of its own."""

    members = 3

    def __init__(self, ids: Tensor, labels: Tensor, x: Tensor, limit: int, offsets: Tensor) -> None:
        super().__init__(ids, labels, x, limit)
        self.offsets = offsets

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        return (super().inputs(form, rows).unsqueeze(1) + pick(self.offsets, rows)).flatten(0, 1)

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        x = super().inputs(form, rows).requires_grad_()
        return (x.unsqueeze(1) + pick(self.offsets, rows)).flatten(0, 1), [x]

    def rank_by(self, form, grads, k, rows=None):  # type: ignore[no-untyped-def]
        x = Cells.inputs(self, form, rows)
        gain = grads[0].unsqueeze(2) * (torch.arange(LEVELS + 1) / (LEVELS - 1) - x.unsqueeze(2))
        top, at = gain.masked_fill(~self.mask(rows), -torch.inf).flatten(1).topk(k, dim=1)
        return torch.stack([at // self.choices, at % self.choices], 2), top


def bundle(**threat) -> Task:
    """Edits shared by three members; the victim's answers to their clean inputs are the labels."""
    whole, x, layer = task("edits", **threat), samples(), linear()
    offsets = 0.3 * torch.randn(SAMPLES, Shared.members, SIZE, generator=torch.Generator().manual_seed(6))
    labels = layer(x.unsqueeze(1) + offsets).argmax(2)

    def deal(split, ids, device):  # type: ignore[no-untyped-def]
        at = torch.tensor(ids, device=device)
        return Shared(at, labels[at], x[at], 2, offsets[at])

    whole.name, whole.goal, whole.deal = "toy/bundle", BundleGoal(whole.goal, Shared.members), deal
    return whole
