"""Purification by a small diffusion model (DDPM, Ho et al. 2020; DiffPure, Nie et al. 2022)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym import Victim, register_defense
from advgym.agents.defenses.learning import images, learned
from advgym.agents.defenses.wrapping import before, straight_through
from advgym.core.rng import mix, normal, uniform
from advgym.lib.content import digest
from advgym.lib.settings import COUNT, Range


@register_defense(
    "purifier", domains=("image",),
    allowed={"time": Range(0, 0.95, above=True), "steps": COUNT, "samples": COUNT, "epochs": COUNT, "width": COUNT},
)  # fmt: skip
def defend(
    victim: Victim, task, *, time: float = 0.35, steps: int = 4, samples: int = 3000, epochs: int = 5, width: int = 16,
    adaptive: bool = True, seed: int = 0,
) -> Victim:  # fmt: skip
    """Noise is added as a diffusion has it at `time` (of 1), and taken off in `steps` steps; the victim sees the rest.

    The network learns on clean images of the split "train" to tell the noise in them. The noise is drawn by keys. The
    way back is the deterministic one of Song et al. (2021). Backward: through all the steps, the mean over draws;
    `adaptive=False`: the gradient of the undefended victim.
    """
    clean = images(task, samples, seed, "a purifier")

    def loss(module: Noise, x: Tensor, step: int) -> Tensor:
        keys = torch.arange(len(x))
        t = uniform(step, keys, (), 1).clamp(0.01, 0.99)
        noise = normal(step, keys, tuple(x.shape[1:]))
        return F.mse_loss(module(mixed(2 * x - 1, noise, t), t), noise)

    def told(module: Noise) -> dict[str, Any]:
        x, keys = clean[:500], torch.arange(len(clean[:500]))
        return {"left_over": round(float((Purify(module, time, steps)(x, keys) - x).square().mean()), 5)}

    recipe = {"defense": "purifier", "task": task.name, "content": digest(clean), "epochs": epochs, "width": width,
              "seed": seed}  # fmt: skip
    net = learned("purifier", lambda: Noise(clean.shape[1], width), clean, loss, told=told, recipe=recipe,
                  epochs=epochs, lr=4e-3, seed=seed)  # fmt: skip
    purify = Purify(net, time, steps)
    return before(victim, purify, f"purifier({time:g})", adaptive=adaptive, drawn=True)


class Noise(nn.Module):
    """What noise is in images (n, C, H, W) at times (n,): convolutions at two sizes, the time as a plane."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()

        def conv(c: int, d: int) -> nn.Conv2d:
            return nn.Conv2d(c, d, 3, padding=1)

        self.first, self.down = conv(channels + 2, width), conv(width, 2 * width)
        self.inside, self.inner = conv(2 * width, 2 * width), conv(2 * width, 2 * width)
        self.up, self.last = conv(3 * width, width), conv(width, channels)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = (math.pi / 2 * t).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        a = F.relu(self.first(torch.cat([x, angle.cos(), angle.sin()], 1)))
        b = F.relu(self.down(F.avg_pool2d(a, 2, ceil_mode=True)))
        b = b + F.relu(self.inner(F.relu(self.inside(b))))
        wide = F.interpolate(b, size=x.shape[2:], mode="nearest")
        found: Tensor = self.last(F.relu(self.up(torch.cat([a, wide], 1))))
        return found


class Purify(nn.Module):
    """Images in [0, 1] and keys int64 (n,) to images in [0, 1]."""

    def __init__(self, net: Noise, time: float, steps: int) -> None:
        super().__init__()
        self.net, self.time, self.steps = net, time, steps

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        times = torch.linspace(self.time, 0, self.steps + 1, device=x.device).unsqueeze(1).expand(-1, len(x))
        y = mixed(2 * x - 1, normal(0, mix(keys + 2**40), tuple(x.shape[1:])), times[0])
        for now, then in pairwise(times):
            noise = self.net(y, now)
            a = (math.pi / 2 * now).view(-1, 1, 1, 1)
            guess = (y - a.sin() * noise) / a.cos()
            y = mixed(straight_through(guess.clamp(-1, 1), guess), noise, then)
        return (y + 1) / 2


def mixed(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What a diffusion makes of x by time t in [0, 1]: cos of it, and sin of the noise (variance preserving)."""
    a = (math.pi / 2 * t).view(-1, 1, 1, 1)
    return a.cos() * x + a.sin() * noise
