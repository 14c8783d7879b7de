"""Backdoors of image classifiers: training images with a patch in the corner, before the victim learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from msgspec import Meta

from advgym.core.kinds.backdoors import Pairs, Poisoning, backdoor, check_victim
from advgym.core.kinds.poison import Trigger
from advgym.core.kinds.retraining import Retrained, retrained
from advgym.core.task import Spec, Task
from advgym.core.victim import Victim
from advgym.envs.image.data import own
from advgym.envs.image.data import sets as data
from advgym.envs.image.models.small import Cnn, Mlp
from advgym.envs.image.tasks.common import Lattice
from advgym.errors import AdvgymError, unknown
from advgym.lib.given import check_radius
from advgym.lib.options import takes

ROWS = 4000  # training images of a dataset that a run learns from, at most: the first ones


def retrained_victim(
    name: str, dataset: str = "", *, net: str = "cnn", widths: Sequence[int] = (16, 32), hidden: int = 64,
    given: tuple[Pairs, int] | None = None, **recipe: Any,
) -> Victim:  # fmt: skip
    """A classifier that is trained for every answer, on the first `ROWS` training images of `dataset`.

    Args:
        net: "cnn" (strided convolutions of `widths` and a layer of `hidden`) or "mlp" (layers of `widths`).
        given: (images and labels, classes) in place of a dataset.
        recipe: of `Retrained`: epochs, batch, rate.
    """
    (x, labels), classes = given or (_rows(dataset), 10)
    shape = tuple(x.shape[1:])
    classes = max(classes, int(labels.max()) + 1)
    nets = {"cnn": lambda: Cnn(shape, classes, widths, hidden, True), "mlp": lambda: Mlp(shape, classes, widths)}
    if net not in nets:
        raise unknown("net", net, nets)
    run = Retrained(x, labels, classes, nets[net], **recipe)
    return retrained(name, run, shape=list(shape))


def _rows(dataset: str, split: str = "train") -> Pairs:
    images = data.load(dataset, split)
    some = slice(ROWS if split == "train" else None)
    return images.pixels(some), images.labels[some]


class Patched(Poisoning, kw_only=True):
    """Of `patched`."""

    side: Annotated[int, Meta(ge=1, le=1 << 12, description="of the white square, in pixels")]
    lattice: Lattice


@takes(Patched)
def patched(spec: Spec, options: Patched) -> Task:
    """Training images get a white square in the corner, and another label; with `eps` they keep theirs."""
    lattice, side = options.lattice, options.side
    if options.eps:
        check_radius("eps", options.eps, step=1 / lattice if lattice else 0.0, most=1.0)
    train, test = _splits(spec, lattice)
    shape = tuple(train[0].shape[1:])
    if 2 * side > min(shape[1:]):
        raise AdvgymError(f"side={side}: allowed is at most half the image, {min(shape[1:]) // 2}")
    if spec.victim is None and (spec.samples is not None or "victim" not in spec.row):
        victim = retrained_victim("own-retrained", given=(train, int(test[1].max()) + 1))
    else:
        victim = spec.load_victim()
    cover = torch.zeros(shape)
    cover[:, -side:, -side:] = 1
    trigger = Trigger(cover, cover.clone(), 0.0, 1.0, lattice)
    return backdoor(spec, check_victim(spec, victim, len(train[1])), train, test, trigger, options)


def _splits(spec: Spec, lattice: int) -> tuple[Pairs, Pairs]:
    """What is learned from, and what is asked about."""
    if spec.samples is None:
        dataset = spec.load_dataset()
        return _rows(dataset), _rows(dataset, "test")
    given = own.rounded(own.read_own(spec), lattice or None)
    if "train" not in given:
        raise AdvgymError(f"{spec.name} poisons training data: pass train= beside samples=")
    return given["train"], given["test"]
