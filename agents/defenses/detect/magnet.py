"""MagNet (Meng and Chen 2017): an autoencoder that reforms, and detectors of what it changes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym import Victim, register_defense
from advgym.agents.defenses.detectors import Risk, Statistics, watched
from advgym.agents.defenses.learning import autoencoder, clean_inputs
from advgym.agents.defenses.wrapping import before
from advgym.core.rng import normal
from advgym.lib.settings import COUNT, POSITIVE, SHARE

TEMPERATURES = (10.0, 40.0)


@register_defense(
    "magnet", domains=("image",),
    allowed={"rate": SHARE, "noise": POSITIVE, "samples": COUNT, "epochs": COUNT},
)  # fmt: skip
def defend(
    victim: Victim, task, *, rate: float = 0.01, noise: float = 0.1, samples: int = 4000, epochs: int = 6,
    detect: bool = True, adaptive: bool = True, seed: int = 0,
) -> Victim:  # fmt: skip
    """The victim sees an autoencoder's version of the image; two kinds of detector watch the difference.

    Detectors: the mean |x - AE(x)| and its squares, and the divergence of the victim's answers to both at temperatures
    10 and 40. The risk is .5 at thresholds that together `rate` of clean training images pass at most. The autoencoder
    learns on images of the split "train" under noise of deviation `noise`. `detect=False`: the reformer alone.
    `adaptive=False`: the gradient of the undefended victim, as the paper's attacker has it; true: that of everything,
    and down the risk where it is near the threshold.
    """
    clean = clean_inputs(task, samples, seed, single=detect)

    def spoil(x: Tensor, step: int) -> Tensor:
        keys = torch.arange(len(x))
        return (x + noise * normal(step, keys, tuple(x.shape[1:]))).clamp(0, 1)

    recipe = {"defense": "magnet", "task": task.name, "noise": noise}
    reform = autoencoder("magnet", clean, spoil, recipe=recipe, epochs=epochs, seed=seed)
    guard = before(victim, reform, f"magnet({rate:g})", adaptive=adaptive)
    if not detect:
        return guard

    risk = Risk(Differences(victim, reform), clean, rate)
    return watched(guard, risk, "detectors", adaptive=adaptive)


class Differences(Statistics):
    """Of an image and its reformed version: mean |difference|, its squares, two divergences of the answers: (n, 4)."""

    def __init__(self, victim: Victim, reform: nn.Module) -> None:
        super().__init__(victim)
        self.reform = reform

    def forward(self, x: Tensor) -> Tensor:
        again = self.reform(x)
        apart = (x - again).abs().flatten(1)
        one, other = self.ask(x), self.ask(again)
        told = [divergence(one / t, other / t) for t in TEMPERATURES]
        return torch.stack([apart.mean(1), apart.square().mean(1), *told], 1)


def divergence(a: Tensor, b: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the distributions of scores (n, ..., classes), float32 (n,), mean over frames."""
    p, q = a.log_softmax(-1), b.log_softmax(-1)
    middle = ((p.exp() + q.exp()) / 2).clamp_min(1e-12).log()
    each = [F.kl_div(middle, v, reduction="none", log_target=True).sum(-1) for v in (p, q)]
    return ((each[0] + each[1]) / 2).flatten(1).mean(1) if a.dim() > 2 else (each[0] + each[1]) / 2
