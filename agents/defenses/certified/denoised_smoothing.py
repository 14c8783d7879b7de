"""Denoised smoothing: a denoiser before a victim that stays, and Cohen's certificate of both (Salman et al. 2020)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.certified.gaussian_smoothing import GaussianSmoothed
from advgym.agents.defenses.learning import Residual, images, learned
from advgym.agents.defenses.wrapping import asked, before, straight_through
from advgym.core.rng import normal
from advgym.lib.content import digest
from advgym.lib.settings import COUNT, NATURAL, POSITIVE
from advgym.lib.weights import weights_hash


@register_defense(
    "denoised-smoothing", domains=("image",), kinds=("field",),
    allowed={"sigma": POSITIVE, "draws": COUNT, "samples": COUNT, "epochs": COUNT, "width": COUNT, "blocks": COUNT,
             "stability": NATURAL},
)  # fmt: skip
def defend(
    victim: Victim, task, *, sigma: float = 0.5, draws: int = 8, samples: int = 3000, epochs: int = 3, width: int = 16,
    blocks: int = 2, stability: float = 0.02, adaptive: bool = True, seed: int = 0,
) -> Victim:  # fmt: skip
    """Vote over Gaussian noise of deviation `sigma`, which a denoiser takes off before the victim; certified in L2.

    The denoiser learns on images of the split "train" under that noise: mean squared error and `stability` times the
    cross-entropy to the victim's own answer, the paper's two losses. `advgym certify` gives the radii. Backward: the
    mean over the draws, through the denoiser; `adaptive=False`: the gradient of the undefended victim.

    Raises:
        AdvgymError: for a victim without gradients where `stability` is above 0.
    """
    if victim.access != "gradients" and (stability or not adaptive):
        raise AdvgymError(f"{task.name} offers no gradients of its victim: stability=0 trains without them")
    clean = images(task, samples, seed, "a denoiser")

    def loss(module: Residual, x: Tensor, step: int) -> Tensor:
        keys = torch.arange(len(x))
        y = module(x + sigma * normal(step, keys, tuple(x.shape[1:])))
        apart = F.mse_loss(y, x)
        if not stability:
            return apart
        with torch.no_grad():
            wanted = asked(victim, x, keys * 0).flatten(0, -2).argmax(1)
        return apart + stability * F.cross_entropy(asked(victim, y, keys * 0).flatten(0, -2), wanted)

    def told(module: Residual) -> dict[str, Any]:
        x = clean[:500]
        noisy = x + sigma * normal(0, torch.arange(len(x)), tuple(x.shape[1:]))
        return {"left_over": round(float(F.mse_loss(module(noisy), x)), 5)}

    own = weights_hash(victim.module) if victim.module is not None else victim.name
    recipe = {"defense": "denoised-smoothing", "task": task.name, "content": digest(clean), "sigma": sigma,
              "epochs": epochs, "width": width, "blocks": blocks, "seed": seed, "stability": stability,
              "victim": own if stability else ""}  # fmt: skip
    net = learned("denoiser", lambda: Residual(clean.shape[1], width, blocks), clean, loss, told=told, recipe=recipe,
                  epochs=epochs, lr=3e-3, seed=seed)  # fmt: skip
    guard = before(victim, net, "denoiser")
    model = GaussianSmoothed(guard, sigma, draws) if adaptive else Unaware(guard, sigma, draws, victim)
    name = f"{victim.name}+denoised-smoothing({sigma:g}){'' if adaptive else ',naive'}"
    return guard.like(model, name=name, keyed=True, draws=1, card={**victim.card, "sigma": sigma})


class Unaware(GaussianSmoothed):
    """The same votes with the gradient of the undefended victim."""

    def __init__(self, guard: Victim, sigma: float, draws: int, plain: Victim) -> None:
        super().__init__(guard, sigma, draws)
        self.plain, self.under = plain, plain.module

    def forward(self, x: Any, keys: Tensor) -> Tensor:
        """Log shares of the votes."""
        with torch.no_grad():
            shares = super().forward(x, keys)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return shares
        return straight_through(shares, torch.log_softmax(asked(self.plain, x, keys), -1))
