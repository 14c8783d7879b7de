"""Small image classifiers, trained by a recipe: one-cycle AdamW on clean images.

Each factory is named by a row of [victims]; widths, epochs and the rest are that row's arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.core import rng
from advgym.core.task import make_task
from advgym.core.victim import Victim
from advgym.envs.image.data import sets as data
from advgym.envs.image.models.small import Cnn, Mlp
from advgym.lib.fit import accuracy, descend
from advgym.lib.weights import load_or_train

WEIGHTS = Path(__file__).parents[1] / "weights"


def cnn(
    name: str,
    *,
    dataset: str,
    shape: Sequence[int],
    classes: int = 10,
    widths: Sequence[int] = (16, 32),
    hidden: int = 0,
    epochs: int = 30,
    batch: int = 64,
    rate: float = 3e-3,
    shift: int = 0,
    strided: bool = False,
    seed: int = 0,
) -> Victim:
    """A `Cnn` trained on the train split of `dataset`; `shift` is the most pixels of random translation."""
    shape, classes = _size(dataset, shape, classes)
    arch = "cnn-strided" if strided else "cnn"
    build = {"arch": arch, "shape": list(shape), "classes": classes, "widths": list(widths), "hidden": hidden}
    recipe = {**build, **_training(dataset, epochs, batch, rate, shift, seed)}
    return _victim(name, lambda: Cnn(shape, classes, widths, hidden, strided), recipe)


def mlp(
    name: str,
    *,
    dataset: str,
    shape: Sequence[int],
    classes: int = 10,
    widths: Sequence[int] = (128,),
    epochs: int = 30,
    batch: int = 64,
    rate: float = 3e-3,
    shift: int = 0,
    seed: int = 0,
) -> Victim:
    """An `Mlp` trained on the train split of `dataset`: the differently built surrogate."""
    shape, classes = _size(dataset, shape, classes)
    build = {"arch": "mlp", "shape": list(shape), "classes": classes, "widths": list(widths)}
    recipe = {**build, **_training(dataset, epochs, batch, rate, shift, seed)}
    return _victim(name, lambda: Mlp(shape, classes, widths), recipe)


def _training(dataset: str, epochs: int, batch: int, rate: float, shift: int, seed: int) -> dict[str, Any]:
    return {"dataset": dataset, "epochs": epochs, "batch": batch, "rate": rate, "shift": shift, "seed": seed,
            **data.content(dataset)}  # fmt: skip


def _size(dataset: str, shape: Sequence[int], classes: int) -> tuple[list[int], int]:
    """(shape of the images, number of classes): of a folder as its training split has them, else as the row says."""
    if dataset in data.DATASETS or "#" in dataset:
        return list(shape), classes
    seen = data.load(dataset, "train")
    return list(seen.levels.shape[1:]), max(classes, int(seen.labels.max()) + 1)


def _victim(name: str, build: Any, recipe: dict[str, Any]) -> Victim:
    def train(module: nn.Module) -> dict[str, Any]:
        clean, held = (data.load(recipe["dataset"], split) for split in ("train", "test"))
        fit(module, clean.pixels(slice(None)), clean.labels, recipe)
        return {
            "dataset": recipe["dataset"],
            "clean_accuracy": accuracy(module, held, held.labels),
            "train_samples": len(clean.labels),
            "parameters": sum(p.numel() for p in module.parameters()),
            "classes": recipe["classes"],
            "shape": recipe["shape"],
        }

    module, card = load_or_train(name, build, train, recipe=recipe, shipped=WEIGHTS / f"{name}.safetensors")
    return Victim(module, name=name, access="gradients", card=card)


def hardened(
    name: str, *, victim: str, task: str, defense: str, against: str, dataset: str | None = None, **settings: Any
) -> Victim:  # fmt: skip
    """A victim that a defense trained on one task, whichever it is asked on: for threats seen and unseen.

    Args:
        against: what the card says that it was.
    """
    found = make_task(task, victim=victim, dataset=dataset, defenses=[(defense, settings)]).victim
    return found.like(found.model, name=name, card={**found.card, "against": against})


def fit(module: nn.Module, x: Tensor, y: Tensor, recipe: dict[str, Any]) -> None:
    """Train in place with AdamW and a one-cycle rate (Smith & Topin 2018), in an order keyed by the seed."""
    epochs, batch, seed = int(recipe["epochs"]), int(recipe["batch"]), int(recipe["seed"])
    keys = torch.arange(len(x))
    optimiser = torch.optim.AdamW(module.parameters(), lr=recipe["rate"], weight_decay=1e-2)
    steps = -(-len(x) // batch) * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe["rate"], total_steps=steps, pct_start=0.25)

    def order(epoch: int) -> list[tuple[int, Tensor]]:
        return [(epoch, index) for index in rng.bits(seed, keys, (), 2 * epoch).argsort().split(batch)]

    def loss(part: tuple[int, Tensor]) -> Tensor:
        epoch, index = part
        inputs = shifted(x[index], recipe["shift"], seed, keys[index], 2 * epoch + 1)
        return F.cross_entropy(module(inputs), y[index])

    descend(module, loss, map(order, range(epochs)), optimiser, schedule=schedule)


def shifted(x: Tensor, most: int, seed: int, keys: Tensor, stream: int) -> Tensor:
    """Each image moved by up to `most` pixels either way, black where nothing was."""
    if not most:
        return x
    n, _, h, w = x.shape
    move = rng.bits(seed, keys, (2,), stream) % (2 * most + 1)
    rows = (move[:, :1] + torch.arange(h)).view(n, 1, h, 1)
    columns = (move[:, 1:] + torch.arange(w)).view(n, 1, 1, w)
    wide = F.pad(x, (most, most, most, most))
    return wide[torch.arange(n).view(n, 1, 1, 1), torch.arange(x.shape[1]).view(1, -1, 1, 1), rows, columns]
