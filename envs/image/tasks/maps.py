"""Fields that are not added to pixels: flows, colour maps, JPEG coefficients; and a perceptual ball."""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.task import Spec, Task
from advgym.envs.image.perturb.colour import ColourBatch
from advgym.envs.image.perturb.flow import FlowBatch
from advgym.envs.image.perturb.jpeg import JpegBatch
from advgym.envs.image.perturb.perceptual import Features, PerceptualBatch
from advgym.envs.image.tasks.common import Latticed, image_task, read_parts
from advgym.errors import AdvgymError
from advgym.lib.given import check_radius
from advgym.lib.options import takes


class Flow(Latticed):
    """Of `flow`."""

    eps: Annotated[float, Meta(gt=0, description="longest displacement, in pixels, of a flow of no roughness")]
    smooth: Annotated[float, Meta(ge=0, description="what a pixel's mean difference between neighbours counts beside")]


class Colour(Latticed):
    """Of `colour`."""

    eps: Annotated[float, Meta(gt=0, description="largest shift: a CIELUV coordinate in hundreds, a grey in [0, 1]")]
    smooth: Annotated[float, Meta(ge=0, description="what the mean difference of neighbouring knots counts beside it")]
    knots: Annotated[int, Meta(ge=2, le=256, description="of the grid of colours, along each axis")]


class Jpeg(Latticed):
    """Of `jpeg`."""

    eps: Annotated[float, Meta(gt=0, description="largest change of a coefficient, in steps of the table")]
    quality: Annotated[int, Meta(ge=1, le=100, description="of the table")]


class Perceptual(Latticed):
    """Of `perceptual`."""

    eps: Annotated[float, Meta(gt=0, description="radius, of the distance of normalised features")]
    network: Annotated[str, Meta(description='the name of a registered victim; "self" for the victim\'s own features')]


@takes(Flow)
def flow(spec: Spec, options: Flow) -> Task:
    """Pixels moved (Xiao et al. 2018)."""
    eps, smooth, levels = options.eps, options.smooth, options.lattice

    def check(image: tuple[int, ...]) -> None:
        check_radius("eps", eps, most=min(image[1:]), hint=f" Images are {image[1]}x{image[2]} pixels.")

    def batch(ids: Tensor, x: Tensor, labels: Tensor) -> Batch:
        return FlowBatch(ids, labels, x, radius=eps, smooth=smooth, levels=levels or None)

    return image_task(spec, batch, check)


@takes(Colour)
def colour(spec: Spec, options: Colour) -> Task:
    """Colours moved, all pixels of one colour alike (Laidlaw & Feizi 2019)."""
    eps, smooth, knots, levels = options.eps, options.smooth, options.knots, options.lattice
    check_radius("eps", eps, step=0.5 / levels if levels else 0.0, most=1.0, hint=" All colours lie within 1.")

    def check(image: tuple[int, ...]) -> None:
        if image[0] not in (1, 3):
            raise AdvgymError(f"{spec.name} recolours images of 1 channel (grey) or 3 (RGB), not of {image[0]}")
        if image[0] == 3 and knots > 64:
            raise AdvgymError(f"knots={knots} makes a grid of {knots**3} colours. Allowed: 2 to 64 for RGB.")

    def batch(ids: Tensor, x: Tensor, labels: Tensor) -> Batch:
        return ColourBatch(ids, labels, x, radius=eps, smooth=smooth, knots=knots, levels=levels or None)

    return image_task(spec, batch, check)


@takes(Jpeg)
def jpeg(spec: Spec, options: Jpeg) -> Task:
    """Quantised cosine coefficients changed (Kang et al. 2019)."""
    eps, quality, levels = options.eps, options.quality, options.lattice
    check_radius("eps", eps, most=2040.0, hint=" No coefficient of an image is larger than 2040.")

    def batch(ids: Tensor, x: Tensor, labels: Tensor) -> Batch:
        return JpegBatch(ids, labels, x, radius=eps, quality=quality, levels=levels or None)

    return image_task(spec, batch, lambda _: None)


@takes(Perceptual)
def perceptual(spec: Spec, options: Perceptual) -> Task:
    """A ball of perceptual distance (Laidlaw et al. 2021)."""
    eps, name, levels = options.eps, options.network, options.lattice
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

    return image_task(spec, batch, lambda _: None, parts)
