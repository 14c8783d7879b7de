"""One perturbation for many inputs: universal ones, judged on images that were held out, and patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.goals import BundleGoal
from advgym.core.norms import largest
from advgym.core.task import Spec, Task
from advgym.envs.image.perturb.patch import Draws, PatchBatch
from advgym.envs.image.perturb.shared import SharedBatch
from advgym.envs.image.tasks.common import OTHERWISE, Eps, Images, Latticed, Parts, finish, read_parts
from advgym.errors import AdvgymError
from advgym.lib.given import check_radius
from advgym.lib.options import takes

Make = Callable[..., Batch]


class Universal(Latticed):
    """Of `universal`; asking about one perturbation costs as many queries as `images`."""

    eps: Eps
    images: Images


class Patch(Latticed):
    """Of `patch`."""

    side: Annotated[int, Meta(ge=1, le=1 << 12, description="of the patch, in pixels, smaller than the image")]
    draws: Annotated[int, Meta(ge=1, le=1 << 10, description="of the transform for one image: one query for each")]
    images: Annotated[
        int, Meta(ge=1, le=1 << 16, description="1: a patch for each image; more: one for as many, one draw each")
    ]
    place: Annotated[
        float, Meta(ge=0, le=1, description="of the way from the middle to the border that places vary by")
    ]
    turn: Annotated[float, Meta(ge=0, le=180, description="degrees, either way")]
    scale: Annotated[float, Meta(ge=0, le=0.9, description="a share of the size, either way")]
    light: Annotated[float, Meta(ge=0, le=0.9, description="a share of the brightness, either way")]


@takes(Universal)
def universal(spec: Spec, options: Universal) -> Task:
    """One change added to every image (Moosavi-Dezfooli et al. 2017), fitted on `images` of the training split.

    A sample is a bundle of `images` training images; the verdict is on as many test images that nobody was asked about.
    """
    norm, eps, images, levels = str(spec.row["norm"]), options.eps, options.images, options.lattice

    def check(image: tuple[int, ...]) -> None:
        most = largest(norm, image[0] * image[1] * image[2], 1.0)
        check_radius("eps", eps, step=1 / levels if levels else 0.0, most=most, hint=OTHERWISE)

    def batch(ids: Tensor, labels: Tensor, x: Tensor) -> Batch:
        return SharedBatch(ids, labels, x, radius=eps, norm=norm, most=min(eps, 1.0), levels=levels or None)

    parts = read_parts(spec, levels or None, check)
    return _bundled(parts, batch, images)


@takes(Patch)
def patch(spec: Spec, options: Patch) -> Task:
    """A square texture laid over the image (Brown et al. 2017), at places, turns, sizes and lights drawn at random.

    A sample is an image under `draws` of them, or with `images` above 1 a bundle of so many training images with one
    draw each. The verdict is on fresh draws, and then on test images.
    """
    side, images, draws, levels = options.side, options.images, options.draws, options.lattice
    vary = Draws(options.place, options.turn, options.scale, options.light)

    def check(image: tuple[int, ...]) -> None:
        if side >= min(image[1:]):
            raise AdvgymError(
                f"side={side}: the patch is as large as the image, which is {image[1]}x{image[2]} pixels. "
                f"Allowed: 1 to {min(image[1:]) - 1}."
            )

    def batch(ids: Tensor, labels: Tensor, x: Tensor) -> Batch:
        return PatchBatch(ids, labels, x, side=side, draws=vary, levels=levels or None)

    parts = read_parts(spec, levels or None, check)
    if images > 1:
        return _bundled(parts, batch, images)

    def deal(split: str, ids: list[int], device: Any = "cpu") -> Batch:
        x, labels = (t.to(device).unsqueeze(1).repeat_interleave(draws, 1) for t in parts.source(split, ids))
        return batch(torch.tensor(ids, dtype=torch.int64, device=device), labels, x)

    return finish(parts, deal, goal=BundleGoal(parts.goal(), draws, every=True))


def _bundled(parts: Parts, batch: Make, images: int) -> Task:
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
    return finish(parts, deal, goal=goal, sizes=many, notes=note, unseen=unseen)
