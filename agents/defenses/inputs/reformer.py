"""A network that learns to undo an attack, like APE-GAN (Shen et al. 2017) without its discriminator."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import Victim, register_defense
from advgym.agents.defenses.learning import autoencoder, clean_inputs
from advgym.agents.defenses.wrapping import asked, before
from advgym.core.rng import uniform
from advgym.lib.settings import COUNT, POSITIVE
from advgym.lib.weights import weights_hash


@register_defense("reformer", domains=("image",), allowed={"eps": POSITIVE, "samples": COUNT, "epochs": COUNT})
def defend(
    victim: Victim,
    task,
    *,
    eps: float = 0.3,
    samples: int = 4000,
    epochs: int = 6,
    adaptive: bool = True,
    seed: int = 0,
) -> Victim:
    """The victim sees an autoencoder's version of the image, which has learnt to give clean images back from attacked.

    The attack is one signed gradient step of up to `eps` against the victim's own answer, the loss the mean squared
    difference alone: APE-GAN has a discriminator as well, and this has none. A victim without gradients is met with
    random signs. `adaptive=False`: the gradient of the undefended victim.
    """
    clean = clean_inputs(task, samples, seed)

    def spoil(x: Tensor, step: int) -> Tensor:
        keys = torch.arange(len(x))
        size = eps * uniform(step, keys, (1,)).view(-1, *[1] * (x.dim() - 1))
        way = steepest(victim, x) if victim.access == "gradients" else uniform(step + 1, keys, tuple(x.shape[1:])) - 0.5
        return (x + size * way.sign()).clamp(0, 1)

    module = victim.module
    recipe = {"defense": "reformer", "task": task.name, "eps": eps,
              "victim": victim.name if module is None else weights_hash(module)}  # fmt: skip
    reform = autoencoder("reformer", clean, spoil, recipe=recipe, epochs=epochs, seed=seed)
    return before(victim, reform, f"reformer({eps:g})", adaptive=adaptive)


def steepest(victim: Victim, x: Tensor) -> Tensor:
    """The gradient by which the victim leaves its own answer."""
    at = x.detach().requires_grad_()
    scores = asked(victim, at, torch.zeros(len(x), dtype=torch.int64))
    own = torch.log_softmax(scores, -1).amax(-1).sum()
    (g,) = torch.autograd.grad(-own, at)
    return g
