"""Fields that are not added to pixels: flows, colour maps, JPEG coefficients; and a perceptual ball."""

from __future__ import annotations

import math

from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.task import Spec, Task
from advgym.envs.image.perturb.colour import ColourBatch
from advgym.envs.image.perturb.flow import FlowBatch
from advgym.envs.image.perturb.jpeg import JpegBatch
from advgym.envs.image.perturb.perceptual import Features, PerceptualBatch
from advgym.envs.image.tasks.common import MOST_LEVELS, image_task, not_negative, positive, read_parts, whole
from advgym.errors import AdvgymError
from advgym.lib.given import check_radius


def flow(spec: Spec) -> Task:
    """Pixels moved (Xiao et al. 2018).

    Constraint:
        eps: the longest displacement, in pixels, that a flow of no roughness may have.
        smooth: what one pixel's mean difference between neighbours counts beside it.
        lattice: see `balls.ball`.
    """
    options = spec.threat.constraint
    eps, smooth = positive("eps", options["eps"]), not_negative("smooth", options["smooth"])
    levels = whole("lattice", options["lattice"], 0, MOST_LEVELS)

    def check(image: tuple[int, ...]) -> None:
        check_radius("eps", eps, most=min(image[1:]), hint=f" Images are {image[1]}x{image[2]} pixels.")

    def batch(ids: Tensor, x: Tensor, labels: Tensor) -> Batch:
        return FlowBatch(ids, labels, x, radius=eps, smooth=smooth, levels=levels or None)

    return image_task(spec, batch, {"eps": eps, "smooth": smooth, "lattice": levels}, check)


def colour(spec: Spec) -> Task:
    """Colours moved, all pixels of one colour alike (Laidlaw & Feizi 2019).

    Constraint:
        eps: the largest shift: of a CIELUV coordinate in hundreds, or of a grey level in [0, 1].
        smooth: what the mean difference of neighbouring knots counts beside it.
        knots: of the grid, along each axis.
        lattice: see `balls.ball`.
    """
    options = spec.threat.constraint
    eps, smooth = positive("eps", options["eps"]), not_negative("smooth", options["smooth"])
    levels, knots = whole("lattice", options["lattice"], 0, MOST_LEVELS), whole("knots", options["knots"], 2, 256)
    check_radius("eps", eps, step=0.5 / levels if levels else 0.0, most=1.0, hint=" All colours lie within 1.")

    def check(image: tuple[int, ...]) -> None:
        if image[0] not in (1, 3):
            raise AdvgymError(f"{spec.name} recolours images of 1 channel (grey) or 3 (RGB), not of {image[0]}")
        if image[0] == 3 and knots > 64:
            raise AdvgymError(f"knots={knots} makes a grid of {knots**3} colours. Allowed: 2 to 64 for RGB.")

    def batch(ids: Tensor, x: Tensor, labels: Tensor) -> Batch:
        return ColourBatch(ids, labels, x, radius=eps, smooth=smooth, knots=knots, levels=levels or None)

    return image_task(spec, batch, {"eps": eps, "smooth": smooth, "knots": knots, "lattice": levels}, check)


def jpeg(spec: Spec) -> Task:
    """Quantised cosine coefficients changed (Kang et al. 2019).

    Constraint:
        eps: the largest change of a coefficient, in steps of the table.
        quality: of the table, 1 to 100.
        lattice: see `balls.ball`.
    """
    options = spec.threat.constraint
    eps, quality = positive("eps", options["eps"]), whole("quality", options["quality"], 1, 100)
    levels = whole("lattice", options["lattice"], 0, MOST_LEVELS)
    check_radius("eps", eps, most=2040.0, hint=" No coefficient of an image is larger than 2040.")

    def batch(ids: Tensor, x: Tensor, labels: Tensor) -> Batch:
        return JpegBatch(ids, labels, x, radius=eps, quality=quality, levels=levels or None)

    return image_task(spec, batch, {"eps": eps, "quality": quality, "lattice": levels}, lambda _: None)


def perceptual(spec: Spec) -> Task:
    """A ball of perceptual distance (Laidlaw et al. 2021).

    Constraint:
        eps: radius, of the distance of normalised features.
        network: the name of a registered victim; "self" for the victim's own features.
        lattice: see `balls.ball`.
    """
    options = spec.threat.constraint
    eps, name = positive("eps", options["eps"]), str(options["network"])
    levels = whole("lattice", options["lattice"], 0, MOST_LEVELS)
    parts = read_parts(spec, levels or None, lambda _: None)
    if name != "self":
        features = Features(name)
    elif spec.victim is None and spec.dataset is None and spec.samples is None:
        features = Features(str(spec.row["victim"]))
    elif parts.victim.module is not None:
        features = Features(module=parts.victim.module)
    else:
        raise AdvgymError(f"victim {parts.victim.name!r} is no torch module: name a network=, a registered victim's")
    most = math.sqrt(4.0 * len(features.layers))  # two unit vectors are at most 2 apart
    check_radius("eps", eps, most=most, hint=f" The network has {len(features.layers)} layers to measure by.")

    def batch(ids: Tensor, x: Tensor, labels: Tensor) -> Batch:
        return PerceptualBatch(ids, labels, x, radius=eps, features=features, levels=levels or None)

    constraint = {"eps": eps, "network": name, "lattice": levels}
    return image_task(spec, batch, constraint, lambda _: None, parts)
