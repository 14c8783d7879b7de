"""Image to sequence: a change within a ball, after which the victim writes another caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.kinds.sequences import UNSEEN, SequenceGoal
from advgym.core.norms import largest
from advgym.core.task import Spec, Task, untrained
from advgym.core.victim import Victim, first_answer
from advgym.envs.image.data import readers, scenes, sets
from advgym.envs.image.show.frames import draw
from advgym.envs.image.show.pictures import line, show
from advgym.envs.image.tasks.balls import ImageBatch
from advgym.envs.image.tasks.common import OTHERWISE, Eps, Latticed
from advgym.errors import AdvgymError, DataError, VictimError
from advgym.lib.given import check_radius, inside
from advgym.lib.options import takes


class Caption(Latticed):
    """Of `caption`."""

    eps: Eps
    keywords: Annotated[int, Meta(ge=1, le=3, description='how many must appear, goal "keyword"')]
    bleu: Annotated[float, Meta(gt=0, le=100, description="the bound in points of a caption that counts as another")]
    rate: Annotated[float, Meta(gt=0, le=1, description="the share of words in error that counts as a success")]


@takes(Caption)
def caption(spec: Spec, options: Caption) -> Task:
    """A change added to the image; the victim writes `length` tokens about it.

    Goals are those of `core.kinds.sequences.SequenceGoal`, on the victim's own clean output.
    """
    norm, eps, levels = str(spec.row["norm"]), options.eps, options.lattice
    victim = spec.load_victim()
    if not {"words", "length"} <= set(victim.card):
        raise VictimError(
            f"victim {victim.name!r} does not say what it writes: give card={{'words': [...], 'length': T}} of scores "
            "(n, T, 1 + words), token 0 being the end"
        )
    words, length = [str(w) for w in victim.card["words"]], int(victim.card["length"])
    held = _scenes(levels) if spec.samples is None else _own(spec.samples, victim, words, length, levels)
    shape = held["test"][0].shape[1:]
    check_radius(
        "eps", eps, step=1 / levels if levels else 0.0, most=largest(norm, int(shape.numel()), 1.0), hint=OTHERWISE
    )
    goal = SequenceGoal(
        words, length, spec.threat.goal, options.keywords,
        pool=_pool(held), phrases=_captions(held), bound=options.bleu, rate=options.rate,
        joined=str(victim.card.get("joined", " ")).join,
    )  # fmt: skip

    def deal(split: str, ids: list[int], device: Any = "cpu") -> Batch:
        x, labels = (t[ids].to(device) for t in held[split])
        return ImageBatch(
            torch.tensor(ids, dtype=torch.int64, device=device),
            labels,
            x,
            radius=eps,
            norm=norm,
            lattice=levels or None,
        )

    task = Task(
        name=spec.name, victim=victim, goal=goal, threat=spec.threat,
        sizes={split: len(labels) for split, (_, labels) in held.items()}, deal=deal,
    )  # fmt: skip
    task = untrained(task) if "train" not in held else task
    return replace(task, show=partial(show, task=task), line=partial(line, task=task), draw=draw)


Held = dict[str, tuple[Tensor, Tensor]]


def _scenes(levels: int) -> Held:
    parts = {split: scenes.load(split) for split in scenes.SIZES}
    return {split: (sets.canonical(p.pixels(slice(None)), levels or None), p.captions) for split, p in parts.items()}


def _captions(held: Held) -> Tensor:
    """Whole captions that targets are drawn from: int64 (P, T)."""
    found = torch.cat([labels for _, labels in held.values()])
    found = found[(found != UNSEEN).all(1) & (found[:, 0] > 0)]
    return found.unique(dim=0)


def _pool(held: Held) -> Tensor:
    found = torch.cat([labels.flatten() for _, labels in held.values()]).unique()
    return found[found > 0]


def _own(samples: Any, victim: Victim, words: Sequence[str], length: int, levels: int) -> Held:
    """The caller's images with captions: texts of the victim's words, or None for what the victim says itself."""
    notes: set[str] = set()
    pixels: list[Tensor] = []
    captions: list[Any] = []
    for i, sample in enumerate(samples):
        try:
            image, text = sample
            x = readers.as_pixels(image, notes)
        except (TypeError, ValueError) as error:
            raise DataError(f"sample {i} is not a pair (image, caption): {error}") from None
        fits = inside(x.unsqueeze(0) if x.dim() == 2 else x, 0.0, 1.0)
        if fits is None or (pixels and fits.shape != pixels[0].shape):
            raise DataError(f"sample {i} has an image of shape {tuple(x.shape)}; want all of one, values in [0, 1]")
        pixels.append(fits)
        captions.append(text)
    if not pixels:
        raise DataError("samples= is empty; want a list of (image, caption) pairs")
    x = sets.canonical(torch.stack(pixels), levels or None)
    module = victim.module
    place = next(iter(module.parameters()), x).device if module is not None else x.device
    with torch.no_grad():
        scores = first_answer(victim, x[:1].to(place), None, f"images {tuple(x.shape[1:])}")
        if tuple(scores.shape) != (1, length, len(words) + 1):
            raise VictimError(
                f"victim {victim.name!r} answers {tuple(scores.shape)}; want (1, {length}, {len(words) + 1})"
            )
        said = torch.cat([victim(part.to(place)).argmax(2).cpu() for part in x.split(16)])
    own = torch.where((said == 0).cumsum(1) > 0, -1, said)
    index = {w: i + 1 for i, w in enumerate(words)}
    apart = str.split if victim.card.get("joined", " ") else list  # words, or characters
    rows = [own[i] if t is None else _row(apart(str(t)), index, length, i) for i, t in enumerate(captions)]
    return {"test": (x, torch.stack(rows))}


def _row(words: list[str], index: dict[str, int], length: int, i: int) -> Tensor:
    found = [index.get(w, UNSEEN) for w in words]
    if len(found) >= length:
        raise AdvgymError(f"sample {i} has a caption of {len(found)} words; the victim writes at most {length - 1}")
    return torch.tensor(found + [-1] * (length - len(found)))
