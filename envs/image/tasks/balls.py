"""Image tasks: norm balls (Fields) and few-pixel edits, on registered data or the caller's own."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Annotated

from msgspec import Meta
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.field import FieldBatch
from advgym.core.norms import largest
from advgym.core.task import Spec, Task
from advgym.envs.image.perturb.pixels import PixelBatch, random_levels
from advgym.envs.image.tasks.common import OTHERWISE, Eps, Latticed, image_task
from advgym.errors import AdvgymError
from advgym.lib.given import check_radius
from advgym.lib.options import takes


class ImageBatch(FieldBatch):
    """Images under an additive perturbation; a policy sees the clean image."""

    def view(self) -> dict[str, Tensor]:
        """`clean`: float32 (B, C, H, W)."""
        return {"clean": self.x}


class Ball(Latticed):
    """Of `ball`."""

    eps: Eps


class Pixels(Latticed):
    """Of `pixel`."""

    pixels: Annotated[int, Meta(ge=1, le=1 << 20, description="most changed pixels, values of several channels")]
    lattice: Annotated[int, Meta(ge=1, le=1 << 16, description="levels: level / lattice is a pixel's value")]


@takes(Ball)
def ball(spec: Spec, options: Ball) -> Task:
    """A perturbation added to the image, within `eps` in the row's `norm`; in "l0" as many values (pixels) change."""
    norm, eps, lattice = str(spec.row["norm"]), options.eps, options.lattice
    if norm == "l0" and eps != int(eps):
        raise AdvgymError(f"eps is a whole number in l0 (how many values may change), not {eps:g}")
    step = 1 / lattice if lattice and norm != "l0" else 0.0
    if norm == "linf":
        meant = f" Pixels are in [0, 1]: {eps:g} levels of 255 are eps='{eps:g}/255'." if eps >= 1 else ""
        check_radius("eps", eps, step=step, most=1.0, hint=meant or OTHERWISE)

    def batch(ids: Tensor, x: Tensor, labels: Tensor) -> Batch:
        return ImageBatch(ids, labels, x, radius=eps, norm=norm, lattice=lattice or None)

    def check(image: tuple[int, ...]) -> None:
        values = math.prod(image)
        if norm != "linf":  # that one is refused before any data is read
            hint = f" An image has {values} values." if norm == "l0" else OTHERWISE
            check_radius("eps", eps, step=step, most=largest(norm, values, 1.0), hint=hint)

    return image_task(spec, batch, check)


@takes(Pixels)
def pixel(spec: Spec, options: Pixels) -> Task:
    """At most `pixels` values of the image, each set to any other level."""
    count, lattice = options.pixels, options.lattice

    def batch(ids: Tensor, x: Tensor, labels: Tensor) -> Batch:
        return PixelBatch(ids, labels, x, pixels=count, lattice=lattice)

    def check(image: tuple[int, ...]) -> None:
        values = math.prod(image)
        check_radius("pixels", count, most=values, hint=f" An image has {values} values.")

    task = image_task(spec, batch, check)
    return replace(task, randomise=partial(random_levels, lattice=lattice))
