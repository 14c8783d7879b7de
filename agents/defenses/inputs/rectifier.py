"""A perturbation rectifying network in front of a victim that stays as it is (Akhtar, Liu and Mian 2018)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.inputs.reformer import steepest
from advgym.agents.defenses.learning import Residual, images, learned
from advgym.agents.defenses.wrapping import asked, before
from advgym.core.rng import bits, uniform
from advgym.lib.content import digest
from advgym.lib.settings import COUNT, POSITIVE
from advgym.lib.weights import weights_hash

UNIVERSAL = 8  # perturbations of many images at once, that half of each batch is moved by
BATCHES = 12  # gradient steps of each


@register_defense(
    "rectifier", domains=("image",),
    allowed={"eps": POSITIVE, "samples": COUNT, "epochs": COUNT, "width": COUNT, "blocks": COUNT},
)  # fmt: skip
def defend(
    victim: Victim, task, *, eps: float = 0.2, samples: int = 3000, epochs: int = 3, width: int = 8, blocks: int = 2,
    adaptive: bool = True, seed: int = 0,
) -> Victim:  # fmt: skip
    """Layers before the victim's first, trained through the frozen victim so that it answers as to the clean image.

    Half of the images that it learns on are moved by universal perturbations of size `eps`, a quarter by their own
    gradient step of up to that, a quarter not at all. The paper's detector, a classifier of the difference, is left
    out: `magnet` and `mrr` detect. `adaptive=False`: the gradient of the undefended victim.

    Raises:
        AdvgymError: for a victim without gradients, through which nothing can be learnt.
    """
    if victim.access != "gradients":
        raise AdvgymError(f"{task.name} offers no gradients of its victim, through which a rectifier learns")
    clean = images(task, samples, seed, "a rectifier")
    moves = universal(victim, clean, eps, seed)

    def loss(module: Residual, x: Tensor, step: int) -> Tensor:
        keys = torch.arange(len(x))
        with torch.no_grad():
            wanted = asked(victim, x, keys * 0).softmax(-1)
        own = eps * uniform(step, keys, (1,)).view(-1, 1, 1, 1) * steepest(victim, x).sign()
        many = moves[bits(step, keys, (), 1) % len(moves)]
        turn = (keys % 4).view(-1, 1, 1, 1)
        moved = (x + torch.where(turn < 2, many, torch.where(turn == 2, own, torch.zeros_like(own)))).clamp(0, 1)
        told = asked(victim, module(moved), keys * 0).log_softmax(-1)
        return -(wanted * told).flatten(1).sum(1).mean()

    def told(module: Residual) -> dict[str, Any]:
        part = clean[:500]
        keys = torch.zeros(len(part), dtype=torch.int64)
        same = asked(victim, module(part), keys).argmax(-1) == asked(victim, part, keys).argmax(-1)
        return {"agrees": round(float(same.float().mean()), 4)}

    module = victim.module
    recipe = {
        "defense": "rectifier", "task": task.name, "eps": eps, "content": digest(clean), "epochs": epochs,
        "width": width, "blocks": blocks, "seed": seed,
        "victim": victim.name if module is None else weights_hash(module),
    }  # fmt: skip
    net = learned("rectifier", lambda: Residual(clean.shape[1], width, blocks), clean, loss, told=told, recipe=recipe,
                  epochs=epochs, lr=3e-3, seed=seed)  # fmt: skip
    return before(victim, net, f"rectifier({eps:g})", adaptive=adaptive)


def universal(victim: Victim, clean: Tensor, eps: float, seed: int) -> Tensor:
    """Perturbations of size `eps` in Linf that move many images at once, (UNIVERSAL, C, H, W).

    Signed steps along the mean gradient of batches, each from a start of its own: a simple form of those of
    Moosavi-Dezfooli et al. (2017), which the paper trains on.
    """
    starts = 2 * uniform(seed, torch.arange(UNIVERSAL), tuple(clean.shape[1:]), 7) - 1
    found = []
    for n, start in enumerate(starts):
        v = eps * start.sign()
        for k in range(BATCHES):
            pick = bits(seed + n, torch.arange(64), (), k) % len(clean)
            g = steepest(victim, (clean[pick] + v).clamp(0, 1)).mean(0)
            v = (v + eps / 4 * g.sign()).clamp(-eps, eps)
        found.append(v)
    return torch.stack(found)
