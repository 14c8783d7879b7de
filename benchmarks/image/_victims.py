"""A small MNIST net trained on attacked images, for the benchmarks of this room: trained once, then cached."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym import Victim
from advgym.core.task import make_task
from advgym.lib.weights import load_or_train

RECIPE = {"arch": "16-32-100 strided", "eps": 0.3, "steps": 4, "alpha": 0.12, "epochs": 6, "batch": 128, "seed": 0}


def strided() -> nn.Module:
    """Two strided convolutions of 16 and 32 channels, a layer of 100: 166,000 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 49, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip


def robust(recipe: dict[str, Any] = RECIPE) -> Victim:
    """The net, trained on what PGD finds within eps of MNIST's training images (Madry et al. 2018): 170 CPU s."""

    def train(module: nn.Module) -> dict[str, Any]:
        task = make_task("image/mnist-linf", victim=module)
        batch = task.samples("train", list(range(task.sizes["train"])))
        adversarial(module, batch.x, batch.labels, recipe)
        return {"inner": "pgd"}

    torch.manual_seed(recipe["seed"])
    module, card = load_or_train("mnist-strided-robust", strided, train, recipe=recipe)
    return Victim(module.eval().requires_grad_(False), name="mnist-strided-robust", card=card)


class Sure(nn.Module):
    """A net whose scores are so many times as large: the same answers, and a softmax that is 0 or 1 in float32."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.net(x)


def sure(factor: float = 300.0) -> Victim:
    """`robust`, surer of itself."""
    return Victim(Sure(robust().model, factor), name="mnist-strided-sure")


def adversarial(module: nn.Module, x: Tensor, labels: Tensor, recipe: dict[str, Any]) -> None:
    """Train in place; the radius grows to eps in the first epoch, the rate rises and falls."""
    eps, size, epochs = recipe["eps"], recipe["batch"], recipe["epochs"]
    optimiser, many = torch.optim.Adam(module.parameters()), len(x) // size
    total = many * epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda t: 2 * min(t / (0.3 * total), (total - t) / (0.7 * total))
    )
    for epoch in range(epochs):
        order = torch.randperm(len(x))
        for i in range(many):
            at = order[i * size : (i + 1) * size]
            ball = eps * min(1, (epoch * many + i + 1) / many)
            delta = attacked(module, x[at], labels[at], ball, recipe)
            loss = F.cross_entropy(module(x[at] + delta), labels[at])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def attacked(module: nn.Module, x: Tensor, labels: Tensor, ball: float, recipe: dict[str, Any]) -> Tensor:
    """PGD from a random point. The gradient is taken within the box: clamping would stop it at every black pixel."""
    delta = (x + torch.empty_like(x).uniform_(-ball, ball)).clamp(0, 1) - x
    for _ in range(recipe["steps"]):
        delta.requires_grad_()
        (g,) = torch.autograd.grad(F.cross_entropy(module(x + delta), labels), delta)
        delta = (delta.detach() + recipe["alpha"] * ball / recipe["eps"] * g.sign()).clamp(-ball, ball)
        delta = (x + delta).clamp(0, 1) - x
    return delta.detach()
