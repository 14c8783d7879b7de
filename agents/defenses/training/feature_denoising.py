"""Feature denoising: blocks that smooth feature maps, trained against attacks (Xie et al. 2019)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.loop import ALLOWED, COMMON, train
from advgym.agents.defenses.training.adversarial_training import loss
from advgym.agents.defenses.windows import windowed

FILTERS = ("mean", "median", "non-local")
OWN = ("steps", "step_size", "samples", "epochs", "batch", "lr", "queries")


@register_defense(
    "feature-denoising", domains=("image",),
    allowed={**{k: ALLOWED[k] for k in OWN}, "filter": FILTERS},
)  # fmt: skip
def defend(
    victim: Victim, task, *, filter: str = "mean", agent: str = "", steps: int = 4, step_size: float = 0.4,
    samples: int = 0, epochs: int = 0, batch: int = 0, lr: float = 0.0, queries: int = 60, seed: int = 0,
) -> Victim:  # fmt: skip
    """A denoising block after every convolution of the victim, all trained on what an inner attack finds.

    A block adds to its maps a 1 x 1 convolution of them smoothed: 3 x 3 means or medians, or non-local means (every
    pixel a softmax average of all, which costs the square of their number). It begins as nothing. The other settings
    are those of `adversarial-training`. Gradients are the network's own, so there is nothing else to adapt to.

    Raises:
        AdvgymError: for a victim that is no module or has no two-dimensional convolution.
    """
    net = victim.module
    if net is None or not any(isinstance(m, nn.Conv2d) for m in net.modules()):
        raise AdvgymError(f"{task.name} offers no convolutions of its victim, whose feature maps would be denoised")
    twin = blocked(copy.deepcopy(net), filter)
    given = {**COMMON, "agent": agent, "steps": steps, "step_size": step_size, "samples": samples, "epochs": epochs,
             "batch": batch, "lr": lr, "queries": queries, "seed": seed, "clean": 0.0, "filter": filter}  # fmt: skip
    return train("feature-denoising", loss, victim.like(twin), task, given)


def blocked(net: nn.Module, filter: str) -> nn.Module:
    """The module with a block after each convolution, in place; itself a convolution, a sequence of both."""
    if isinstance(net, nn.Conv2d):
        return nn.Sequential(net, Block(net.out_channels, filter).to(net.weight.device))
    for name, child in list(net.named_children()):
        setattr(net, name, blocked(child, filter))
    return net


class Block(nn.Module):
    """Maps (n, C, H, W) and a 1 x 1 convolution, zero at first, of them denoised."""

    def __init__(self, channels: int, filter: str) -> None:
        super().__init__()
        self.filter = filter
        self.mix = nn.Conv2d(channels, channels, 1)
        for p in self.mix.parameters():
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(denoised(x, self.filter))


def denoised(x: Tensor, filter: str) -> Tensor:
    """Maps smoothed by one of `FILTERS`; edges are repeated."""
    if filter == "mean":
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    if filter == "median":
        return windowed(x, 3).median(-1).values
    flat = x.flatten(2)
    like = torch.softmax(flat.transpose(1, 2) @ flat / flat.shape[1] ** 0.5, -1)
    return (flat @ like.transpose(1, 2)).view_as(x)
