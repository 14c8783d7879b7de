"""One perturbation for many inputs: universal ones, judged on images that were held out, and patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.goals import BundleGoal
from advgym.core.norms import largest
from advgym.core.task import Spec, Task
from advgym.envs.image.perturb.patch import Draws, PatchBatch
from advgym.envs.image.perturb.shared import SharedBatch
from advgym.envs.image.tasks.common import (
    MOST_LEVELS,
    OTHERWISE,
    Parts,
    finish,
    not_negative,
    positive,
    read_parts,
    whole,
)  # fmt: skip
from advgym.errors import AdvgymError
from advgym.lib.given import check_radius

Make = Callable[..., Batch]


def universal(spec: Spec) -> Task:
    """One change added to every image (Moosavi-Dezfooli et al. 2017), fitted on `images` of the training split.

    A sample is a bundle of `images` training images; the verdict is on as many test images that nobody was asked about.

    Constraint:
        eps: radius in pixel units; norm: "linf" or "l2".
        images: M, of a bundle; asking about one perturbation costs M queries.
        lattice: see `balls.ball`.
    """
    options, norm = spec.threat.constraint, str(spec.row["norm"])
    eps, levels = positive("eps", options["eps"]), whole("lattice", options["lattice"], 0, MOST_LEVELS)
    images = whole("images", options["images"], 2, 1 << 16)

    def check(image: tuple[int, ...]) -> None:
        most = largest(norm, image[0] * image[1] * image[2], 1.0)
        check_radius("eps", eps, step=1 / levels if levels else 0.0, most=most, hint=OTHERWISE)

    def batch(ids: Tensor, labels: Tensor, x: Tensor) -> Batch:
        return SharedBatch(ids, labels, x, radius=eps, norm=norm, most=min(eps, 1.0), levels=levels or None)

    parts = read_parts(spec, levels or None, check)
    return _bundled(parts, batch, images, {"eps": eps, "images": images, "lattice": levels})


def patch(spec: Spec) -> Task:
    """A square texture laid over the image (Brown et al. 2017), at places, turns, sizes and lights drawn at random.

    A sample is an image under `draws` of them, or with `images` above 1 a bundle of so many training images with one
    draw each. The verdict is on fresh draws, and then on test images.

    Constraint:
        side: of the patch, in pixels, smaller than the image.
        draws: M where `images` is 1: one query for each.
        images: 1 for a patch of its own for each image; else M, for a universal one.
        place: how much of the way from the middle to the border places vary by; 0 for the middle.
        turn: degrees, either way. scale, light: shares, either way.
        lattice: see `balls.ball`.
    """
    options = spec.threat.constraint
    side, images = whole("side", options["side"], 1, 1 << 12), whole("images", options["images"], 1, 1 << 16)
    draws, levels = whole("draws", options["draws"], 1, 1 << 10), whole("lattice", options["lattice"], 0, MOST_LEVELS)
    vary = {name: not_negative(name, options[name]) for name in Draws._fields}
    for name, most in (("place", 1.0), ("turn", 180.0), ("scale", 0.9), ("light", 0.9)):
        if vary[name] > most:
            raise AdvgymError(f"{name} is a number from 0 to {most:g}, not {options[name]!r}")

    def check(image: tuple[int, ...]) -> None:
        if side >= min(image[1:]):
            raise AdvgymError(
                f"side={side}: the patch is as large as the image, which is {image[1]}x{image[2]} pixels. "
                f"Allowed: 1 to {min(image[1:]) - 1}."
            )

    def batch(ids: Tensor, labels: Tensor, x: Tensor) -> Batch:
        return PatchBatch(ids, labels, x, side=side, draws=Draws(**vary), levels=levels or None)

    parts = read_parts(spec, levels or None, check)
    constraint = {"side": side, "draws": draws, "images": images, **vary, "lattice": levels}
    if images > 1:
        return _bundled(parts, batch, images, constraint)

    def deal(split: str, ids: list[int], device: Any = "cpu") -> Batch:
        x, labels = (t.to(device).unsqueeze(1).repeat_interleave(draws, 1) for t in parts.source(split, ids))
        return batch(torch.tensor(ids, dtype=torch.int64, device=device), labels, x)

    return finish(parts, deal, constraint, goal=BundleGoal(parts.goal(), draws, every=True))


def _bundled(parts: Parts, batch: Make, images: int, constraint: dict[str, Any]) -> Task:
    """Bundle i of "test" is asked about training images and judged on test images; of "train", on training images.

    The caller's own samples without train= are halved: one half is asked about, the other judged on.
    """
    sizes = parts.sizes
    note: tuple[str, ...] = ()
    alone = "train" not in sizes
    many = {"test": sizes["test"] // (2 * images) if alone else min(sizes.values()) // images}
    if not alone:
        many["train"] = sizes["train"] // images
    if not many["test"]:
        have = ", ".join(f"{size} in split {split!r}" for split, size in sizes.items())
        raise AdvgymError(
            f"a bundle of {images} images is fitted, and judged on {images} others; there are {have}. Ask for fewer: "
            f"images={max(2, min(sizes.values()) // (2 if alone else 1))}"
        )
    if alone:
        note = ("samples of even place are asked about, those of odd place judged on: there is no train=",)

    def served(split: str, places: list[int], ids: list[int], device: Any) -> Batch:
        x, labels = parts.source(split, places)
        n = len(ids)
        index = torch.tensor(ids, dtype=torch.int64, device=device)
        return batch(index, labels.view(n, images).to(device), x.view(n, images, *x.shape[1:]).to(device))

    def deal(split: str, ids: list[int], device: Any = "cpu") -> Batch:
        places = [i * images + k for i in ids for k in range(images)]
        return served("test", [2 * p for p in places], ids, device) if alone else served("train", places, ids, device)

    def unseen(split: str, ids: list[int], device: Any = "cpu") -> Batch:
        places = [i * images + k for i in ids for k in range(images)]
        return served(split, [2 * p + 1 for p in places] if alone else places, ids, device)

    goal = BundleGoal(parts.goal(), images, every=True)
    return finish(parts, deal, constraint, goal=goal, sizes=many, notes=note, unseen=unseen)
