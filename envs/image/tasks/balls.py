"""Image tasks: norm balls (Fields) and few-pixel edits, on registered data or the caller's own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.field import FieldBatch
from advgym.core.norms import largest
from advgym.core.task import Spec, Task
from advgym.envs.image.perturb.pixels import PixelBatch, random_levels
from advgym.envs.image.tasks.common import MOST_LEVELS, OTHERWISE, image_task, positive, whole
from advgym.lib.given import check_radius


class ImageBatch(FieldBatch):
    """Images under an additive perturbation; a policy sees the clean image."""

    def view(self) -> dict[str, Tensor]:
        """`clean`: float32 (B, C, H, W)."""
        return {"clean": self.x}


def ball(spec: Spec) -> Task:
    """A perturbation added to the image, within `eps` in the row's `norm`.

    Constraint:
        eps: radius in pixel units (image values are in [0, 1]), a number or a fraction such as "8/255"; in "l0" how
            many values (pixels, for one channel) may change, a whole number.
        lattice: whole levels per unit, 255 for bytes; what the victim sees is rounded to them. 0 for plain floats.
    """
    norm = str(spec.row["norm"])
    eps = positive("eps", spec.threat.constraint["eps"])
    if norm == "l0":
        eps = float(whole("eps", spec.threat.constraint["eps"], 1, 1 << 24))
    lattice = whole("lattice", spec.threat.constraint["lattice"], 0, MOST_LEVELS)
    step = 1 / lattice if lattice and norm != "l0" else 0.0
    if norm == "linf":
        meant = f" Pixels are in [0, 1]: {eps:g} levels of 255 are eps='{eps:g}/255'." if eps >= 1 else ""
        check_radius("eps", eps, step=step, most=1.0, hint=meant or OTHERWISE)

    def batch(ids: Tensor, x: Tensor, labels: Tensor) -> Batch:
        return ImageBatch(ids, labels, x, radius=eps, norm=norm, lattice=lattice or None)

    def check(values: int) -> None:
        if norm != "linf":  # that one is refused before any data is read
            hint = f" An image has {values} values." if norm == "l0" else OTHERWISE
            check_radius("eps", eps, step=step, most=largest(norm, values, 1.0), hint=hint)

    return image_task(spec, batch, {"eps": eps, "lattice": lattice}, check)


def pixel(spec: Spec) -> Task:
    """At most `pixels` values of the image, each set to any other level.

    Constraint:
        pixels: most changed pixels (values of an image with several channels).
        lattice: levels 0 to lattice; level / lattice is the pixel's value.
    """
    count = whole("pixels", spec.threat.constraint["pixels"], 1, 1 << 20)
    lattice = whole("lattice", spec.threat.constraint["lattice"], 1, MOST_LEVELS)

    def batch(ids: Tensor, x: Tensor, labels: Tensor) -> Batch:
        return PixelBatch(ids, labels, x, pixels=count, lattice=lattice)

    def check(values: int) -> None:
        check_radius("pixels", count, most=values, hint=f" An image has {values} values.")

    task = image_task(spec, batch, {"pixels": count, "lattice": lattice}, check)
    return replace(task, randomise=partial(random_levels, lattice=lattice))
