"""What defenses learn from: clean inputs of the train split; and the small autoencoder that two of them train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym import AdvgymError, Victim
from advgym.agents.defenses.wrapping import asked, straight_through
from advgym.core.rng import bits
from advgym.lib.content import digest
from advgym.lib.fit import descend
from advgym.lib.weights import load_or_train

CHUNK = 256
Module = TypeVar("Module", bound=nn.Module)


def clean_inputs(task: Any, samples: int, seed: int = 0, *, single: bool = False) -> Tensor:
    """Up to `samples` clean inputs of the split "train", (n, *shape), drawn by the seed.

    Args:
        single: refuse bundles: a risk is of one input, and a perturbation of a bundle makes many.

    Raises:
        AdvgymError: where there is no such split, inputs are no tensors, or `single` and there are bundles.
    """
    split = task.check_split("train")
    ids = bits(seed, torch.arange(task.sizes[split])).argsort()[:samples].tolist()
    parts = []
    for start in range(0, len(ids), CHUNK):
        batch = task.samples(split, ids[start : start + CHUNK])
        if single and batch.members > 1:
            raise AdvgymError(f"{task.name} offers no single inputs but bundles, of which a detector gives no risk")
        x = batch.inputs(batch.look(batch.null()).form)
        if not isinstance(x, Tensor):
            raise AdvgymError(f"{task.name} offers no tensors: its inputs are {type(x).__name__}")
        parts.append(x.detach())
        if sum(map(len, parts)) >= samples:  # a sample of a bundle has many inputs
            break
    return torch.cat(parts)[:samples]


@torch.no_grad()
def answers(victim: Victim, x: Tensor) -> Tensor:
    """Scores of many inputs, a chunk at a time; keys are places, where it draws at random."""
    keys = torch.arange(len(x), device=x.device)
    return torch.cat([asked(victim, a, k) for a, k in zip(x.split(CHUNK), keys.split(CHUNK), strict=True)])


class Autoencoder(nn.Module):
    """Convolutions 3 x 3, one pooling by 2 where both sides are even, and back; images (n, C, H, W) in [0, 1]."""

    def __init__(self, channels: int, width: int, pooled: bool) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, width, 3, padding=1)
        self.inside = nn.Conv2d(width, width, 3, padding=1)
        self.up = nn.Conv2d(width, channels, 3, padding=1)
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.down(x))
        if self.pooled:
            h = F.avg_pool2d(h, 2)
        h = F.relu(self.inside(h))
        if self.pooled:
            h = F.interpolate(h, scale_factor=2.0, mode="nearest")
        return torch.sigmoid(self.up(h))


class Residual(nn.Module):
    """Blocks of 3 x 3 convolutions whose sum is added to the image; it begins as the image. Images (n, C, H, W).

    Args:
        width: channels inside; blocks: of two convolutions each.
    """

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()

        def conv(c: int, d: int) -> nn.Conv2d:
            return nn.Conv2d(c, d, 3, padding=1)

        self.first, self.last = conv(channels, width), conv(width, channels)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), conv(width, width), nn.ReLU(), conv(width, width)) for _ in range(blocks)
        )
        for p in self.last.parameters():
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        y = x + self.last(F.relu(h))
        return straight_through(y.clamp(0, 1), y)  # a clamp hides gradients, and stops no attacker who knows it


def images(task: Any, samples: int, seed: int, what: str) -> Tensor:
    """`clean_inputs` that are images, (n, C, H, W).

    Raises:
        AdvgymError: for others, with what wants them.
    """
    clean = clean_inputs(task, samples, seed)
    if clean.dim() != 4:
        raise AdvgymError(
            f"{task.name} offers no images (C, H, W), which {what} wants, but inputs of shape {tuple(clean.shape[1:])}"
        )
    return clean


def autoencoder(
    name: str, x: Tensor, spoil: Callable[[Tensor, int], Tensor], *, recipe: dict[str, Any], epochs: int,
    width: int = 16, lr: float = 5e-3, batch: int = 64, seed: int = 0,
) -> Autoencoder:  # fmt: skip
    """An `Autoencoder` that gives clean images x back from spoil(rows, step); trained once and kept in the cache.

    Args:
        spoil: (clean images, number of the step) -> what it sees of them.
        recipe: what `spoil` depends on.
    """
    if x.dim() != 4:
        raise AdvgymError(f"an autoencoder offers no form for inputs of shape {tuple(x.shape[1:])}: want (C, H, W)")
    channels, pooled = x.shape[1], x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
    recipe = {**recipe, "content": digest(x), "shape": list(x.shape), "epochs": epochs, "width": width, "lr": lr,
              "batch": batch, "seed": seed}  # fmt: skip

    def loss(module: Autoencoder, clean: Tensor, step: int) -> Tensor:
        return F.mse_loss(module(spoil(clean, step)), clean)

    def told(module: Autoencoder) -> dict[str, Any]:
        return {"reconstruction": round(float(F.mse_loss(module(x[:500]), x[:500])), 5)}

    return learned(name, lambda: Autoencoder(channels, width, pooled), x, loss, told=told, recipe=recipe, epochs=epochs,
                   lr=lr, batch=batch, seed=seed)  # fmt: skip


def learned(
    name: str, build: Callable[[], Module], x: Tensor, loss: Callable[[Module, Tensor, int], Tensor], *,
    told: Callable[[Module], dict[str, Any]], recipe: dict[str, Any], epochs: int, lr: float = 5e-3, batch: int = 64,
    seed: int = 0,
) -> Module:  # fmt: skip
    """A network trained on clean inputs x once and kept in the cache; Adam, one cycle of the rate.

    Args:
        loss: (module, rows of x, number of the step) -> what to lessen.
        told: what the card says of it.
        recipe: all that the weights depend on.
    """

    def train(module: Module) -> dict[str, Any]:
        module.requires_grad_(True)
        steps = -(-len(x) // batch) * epochs
        optimiser = torch.optim.Adam(module.parameters(), lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=max(steps, 2))
        count = iter(range(steps))
        order = (bits(seed, torch.arange(len(x)), (), e).argsort().split(batch) for e in range(epochs))
        descend(module, lambda index: loss(module, x[index], next(count)), order, optimiser, schedule=schedule)
        with torch.no_grad():
            return told(module)

    return load_or_train(name, build, train, recipe=recipe)[0]
