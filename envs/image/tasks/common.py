"""What all image tasks share: samples on their lattice, the victim and its classes, options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn

from advgym.core.batch import Batch
from advgym.core.goals import ClassGoal
from advgym.core.task import Spec, Task, untrained
from advgym.core.victim import Victim, first_answer, one_hot
from advgym.envs.image.data import own
from advgym.envs.image.data import sets as data
from advgym.envs.image.show.frames import draw
from advgym.envs.image.show.pictures import line, show
from advgym.errors import DataError, VictimError
from advgym.lib.given import names_of
from advgym.lib.options import Options

OTHERWISE = " Or another lattice=, lattice=0 for plain floats."

Source = Callable[[str, list[int]], tuple[Tensor, Tensor]]  # (split, ids) -> pixels, labels

RADIUS = 'radius in pixel units, which are in [0, 1]; "8/255" is fine'
Eps = Annotated[float, Meta(gt=0, description=RADIUS)]
Images = Annotated[int, Meta(ge=2, le=1 << 16, description="images that one perturbation is for")]


Lattice = Annotated[
    int, Meta(ge=0, le=1 << 16, description="whole levels per unit that pixels are rounded to; 0 for plain floats")
]


class Latticed(Options):
    """What every image task asks."""

    lattice: Lattice


@dataclass
class Parts:
    """What was read for a task.

    Attributes:
        given: the caller's own samples by split, {} for a dataset.
        sizes, source: of the splits, and what serves (pixels, labels) of some ids, on the lattice.
    """

    spec: Spec
    lattice: int | None
    given: dict[str, own.Part]
    sizes: dict[str, int]
    source: Source
    victim: Victim
    classes: int
    image: tuple[int, ...]

    def goal(self) -> ClassGoal:
        """Of one image."""
        names = names_of(self.victim)
        return ClassGoal(self.classes, self.spec.threat.goal, names if len(names) == self.classes else None)


def read_parts(spec: Spec, lattice: int | None, check: Callable[[tuple[int, ...]], None]) -> Parts:
    """Samples and victim of a task; `check` is told the shape of an image before the victim is asked about one."""
    given = own.read_own(spec) if spec.samples is not None else {}
    sizes, source = source_of(spec, given, lattice)
    first = "test" if sizes.get("test") else "train"
    image = tuple(source(first, [0])[0].shape[1:])
    check(image)
    victim, classes = victim_of(spec, given, sizes, source)
    for part in given.values():
        part.check_labels(classes, victim.name)
    if not given and classes:
        for split in sizes:
            check_labels(data.labels(spec.load_dataset(), split), classes, victim.name, split)
    return Parts(spec, lattice, given, sizes, source, victim, classes, image)


def check_labels(labels: Tensor, classes: int, victim: str, split: str) -> None:
    """Refuse labels of a dataset that the victim has no score for: all samples are looked at."""
    beyond = ((labels < 0) | (labels >= classes)).nonzero().flatten()
    if len(beyond):
        i = int(beyond[0])
        raise DataError(
            f"sample {i} of split {split!r} has the label {int(labels[i])}, but victim {victim!r} scores {classes} "
            f"classes (0 to {classes - 1})"
        )


def finish(parts: Parts, deal: Callable[..., Batch], **more: Any) -> Task:
    """The task; `more` are fields of `Task` in place of those of single images (goal, sizes ...)."""
    spec = parts.spec
    fields: dict[str, Any] = {"goal": parts.goal(), "sizes": parts.sizes} | more
    task = Task(name=spec.name, victim=parts.victim, threat=spec.threat, deal=deal, **fields)
    task = untrained(task) if parts.given and "train" not in parts.given else task
    notes = (*task.notes, *own_notes(parts.given), *_notes(spec, parts.given, parts.lattice))
    return replace(task, show=partial(show, task=task), line=partial(line, task=task), draw=draw, notes=notes)


def image_task(
    spec: Spec, batch: Callable[[Tensor, Tensor, Tensor], Batch], check: Callable[[tuple[int, ...]], None],
    parts: Parts | None = None,
) -> Task:  # fmt: skip
    """A task of single images: `batch` makes one of ids, pixels and labels; `check` is told the shape of an image."""
    parts = parts or read_parts(spec, spec.threat.constraint["lattice"] or None, check)

    def deal(split: str, ids: list[int], device: Any = "cpu") -> Batch:
        x, labels = parts.source(split, ids)
        return batch(torch.tensor(ids, dtype=torch.int64, device=device), x.to(device), labels.to(device))

    return finish(parts, deal)


def own_notes(given: dict[str, own.Part]) -> tuple[str, ...]:
    """What reading the caller's samples changed of them."""
    return tuple(dict.fromkeys(note for part in given.values() for note in part.notes))


def _notes(spec: Spec, given: dict[str, own.Part], lattice: int | None) -> tuple[str, ...]:
    """What the lattice changes of the pixels, of the caller's samples or of a dataset's levels."""
    if lattice is None:
        return ()
    if given:
        off = own.rounding(given, lattice)
    else:
        top = data.top(spec.load_dataset())
        levels = torch.arange(top + 1) / top
        off = float((data.canonical(levels, lattice) - levels).abs().max())
    # A float that is on the lattice but for its own rounding is as it was.
    return (f"pixels are rounded to k/{lattice}: they move by up to {off:.2g}",) if off > 1e-6 else ()


def source_of(spec: Spec, given: dict[str, own.Part], lattice: int | None) -> tuple[dict[str, int], Source]:
    """Sizes of the splits, and what serves (pixels, labels) of some ids, rounded onto the lattice."""
    if given:
        held = own.rounded(given, lattice)
        sizes = {split: len(labels) for split, (_, labels) in held.items()}
        return sizes, lambda split, ids: (held[split][0][ids], held[split][1][ids])
    dataset = spec.load_dataset()

    def source(split: str, ids: list[int]) -> tuple[Tensor, Tensor]:
        images, index = data.load(dataset, split), torch.tensor(ids, dtype=torch.int64)
        return images.pixels(index, lattice), images.labels[index]

    return data.sizes(dataset), source


def victim_of(spec: Spec, given: dict[str, own.Part], sizes: dict[str, int], source: Source) -> tuple[Victim, int]:
    """The victim and its number of classes; one that the task does not name is asked about the first sample."""
    victim = spec.load_victim()
    if spec.victim is None and spec.samples is None and spec.dataset is None:
        return victim, int(victim.card["classes"])
    split = "test" if sizes.get("test") else "train"
    x, truth = source(split, [0])
    place = next(victim.module.parameters(), x).device if victim.module is not None else x.device
    what = f"images of {spec.name}, float32 {tuple(x.shape)} in [0, 1]"
    with torch.no_grad():
        try:
            scores = first_answer(victim, x.to(place), torch.zeros(1, dtype=torch.int64, device=place), what)
        except VictimError as error:
            raise _channels(victim, x, error) from error
    if victim.access == "labels" and scores.dim() == 1:
        classes = int(victim.card.get("classes", 0)) or _most_label(spec, given, sizes, int(scores[0])) + 1
        return _labels_only(victim, classes), classes
    if scores.dim() != 2 or scores.shape[1] < 2 or not bool(torch.isfinite(scores).all()):
        raise VictimError(
            f"victim {victim.name!r} answers {tuple(scores.shape)} to one image; want finite scores (1, classes), "
            "two classes or more (labels alone need Victim(model, access='labels'))"
        )
    if int(truth[0]) >= scores.shape[1]:
        raise DataError(
            f"sample 0 has the label {int(truth[0])}, but victim {victim.name!r} scores {scores.shape[1]} classes"
        )
    return victim, scores.shape[1]


def _channels(victim: Victim, x: Tensor, error: VictimError) -> VictimError:
    """The error, with what is the matter where the first convolution reads other channels than the images have."""
    first = next((m for m in victim.module.modules() if isinstance(m, nn.Conv2d)), None) if victim.module else None
    if first is None or first.in_channels == x.shape[1]:
        return error
    return VictimError(
        f"{error}. Its first convolution reads {first.in_channels} channels, and these images have {x.shape[1]}: "
        f"give images of {first.in_channels}, or wrap the model: for grey, lambda x: model(x.expand(-1, 3, -1, -1))"
    )


def _most_label(spec: Spec, given: dict[str, own.Part], sizes: dict[str, int], answer: int) -> int:
    """The largest label known of: of the samples, or in the victim's first answer."""
    if given:
        known = own.most_label(given)
    else:
        known = max(int(data.labels(spec.load_dataset(), split).max()) for split in sizes)
    return max(known, answer, 1)


class _OneHot(nn.Module):
    """A victim of labels as one of one-hot scores, so that every goal reads it."""

    def __init__(self, victim: Victim, classes: int) -> None:
        super().__init__()
        self.victim, self.classes, self.inner = victim, classes, victim.module  # inner: moved along with this module

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        labels = self.victim(x, keys).long()
        if not bool(((labels >= 0) & (labels < self.classes)).all()):
            raise VictimError(
                f"victim {self.victim.name!r} answered a label outside 0 to {self.classes - 1}, the labels known: "
                "give their number as Victim(..., card={'classes': n})"
            )
        return one_hot(labels, self.classes).to(x.device)


def _labels_only(victim: Victim, classes: int) -> Victim:
    return victim.like(_OneHot(victim, classes), access="labels", card={**victim.card, "classes": classes})
