"""Recipes of the fused victims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from advgym.core import rng
from advgym.core.victim import Victim
from advgym.envs.fusion import data
from advgym.envs.fusion.models import Fused
from advgym.lib.content import digest
from advgym.lib.fit import accuracy, descend
from advgym.lib.weights import load_or_train

WEIGHTS = Path(__file__).parent / "weights"


def fused(
    name: str, *, parts: Sequence[str], fusion: str, dataset: str = "", classes: int = 10, width: int = 16,
    epochs: int = 8, batch: int = 64, rate: float = 5e-3, seed: int = 0,
) -> Victim:  # fmt: skip
    """A `Fused` net trained on pairs of two tasks' training splits, AdamW with one cycle of the rate."""
    both = tuple(parts)
    train = data.load(both, "train")  # type: ignore[arg-type]

    def learn(module: nn.Module) -> dict[str, Any]:
        optimiser = torch.optim.AdamW(module.parameters(), rate, weight_decay=1e-2)
        steps = -(-len(train.labels) // batch) * epochs
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.25)
        keys = torch.arange(len(train.labels))
        orders = (rng.bits(seed, keys, (), e).argsort().split(batch) for e in range(epochs))
        descend(module, lambda i: F.cross_entropy(module(train.x[i]), train.labels[i]), orders, optimiser,
                schedule=schedule)  # fmt: skip
        test = data.load(both, "test")  # type: ignore[arg-type]
        return {"clean_accuracy": accuracy(module, test, test.labels), "classes": classes, "fusion": fusion}

    recipe = {"maker": "fusion-1", "parts": list(parts), "fusion": fusion, "width": width, "epochs": epochs,
              "batch": batch, "rate": rate, "seed": seed, "content": digest(train.x[:256])}  # fmt: skip
    module, card = load_or_train(
        name, lambda: Fused(train.shapes, classes, fusion, width), learn, recipe=recipe,
        shipped=WEIGHTS / f"{name}.safetensors",
    )  # fmt: skip
    return Victim(module, name=name, access="gradients", card=card)
