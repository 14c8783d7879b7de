"""Modular robust redundancy (Rouhani et al. 2018, CuRTAIL, DeepFense): watchers beside a victim that stays as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.detectors import Risk, Statistics, threshold_at, watched
from advgym.agents.defenses.learning import CHUNK, answers, clean_inputs
from advgym.agents.defenses.mrr.dictionaries import dictionaries
from advgym.agents.defenses.mrr.latent import Latent, latent
from advgym.lib.content import digest
from advgym.lib.settings import COUNT, NATURAL, POSITIVE, SHARE, Range


@register_defense(
    "mrr", domains=("image",),
    allowed={"modules": NATURAL, "inputs": Range(0, 1), "layer": Range(-100, -1), "rate": SHARE, "gamma": NATURAL,
             "eps": NATURAL, "samples": COUNT, "epochs": COUNT, "lr": POSITIVE, "side": COUNT, "atoms": COUNT,
             "sparsity": COUNT},
)  # fmt: skip
def defend(
    victim: Victim, task, *, modules: int = 2, inputs: int = 1, layer: int = -1, rate: float = 0.01, gamma: float = 0.1,
    eps: float = 0.15, samples: int = 15000, epochs: int = 1, lr: float = 1e-3, side: int = 7, atoms: int = 225,
    sparsity: int = 5, adaptive: bool = True, seed: int = 0,
) -> Victim:  # fmt: skip
    """Latent and input defenders say how unlike the class that the victim answers an image is; the victim stays.

    A latent defender is a copy of the victim trained on so that its features at a checkpoint gather around centres of
    the classes (`gamma` weighs that); Gaussians of the classes are fitted to them. Each learns on what is strange to
    the one before. The input defender codes squares of the image with a dictionary of the class, and looks at what is
    left. Each has a threshold for each class that `rate` of its clean images of the split "train", held out from
    training, reach: the security parameter, so false positives add up over the modules. The risk is the largest.

    Args:
        modules: latent defenders; inputs: input defenders, 0 or 1.
        layer: of the victim's layers with weights, the one whose input is looked at; -1 is the last.
        eps: how far training images of the second module and later ones are moved against the one before.
        side, atoms, sparsity: of squares, of dictionaries, and atoms that code a square.

    Raises:
        AdvgymError: for a victim that is no module or whose answer is no class, or without any defender.
    """
    net = victim.module
    if net is None or len(task.goal.scores_shape) != 1:
        raise AdvgymError(f"{task.name} offers no network of classes: mrr copies the victim's, and needs its layers")
    if not modules + inputs:
        raise AdvgymError("modules=0 and inputs=0 leave nobody to watch: at least one of them")
    clean = clean_inputs(task, samples, seed, single=True)
    if clean.dim() != 4:
        raise AdvgymError(f"{task.name} offers no images (C, H, W) but inputs of shape {tuple(clean.shape[1:])}")
    y, held = answers(victim, clean).argmax(1), max(len(clean) // 5, 1)
    x, own = clean[held:], y[held:]
    classes, told = int(task.goal.scores_shape[0]), {"defense": "mrr", "task": task.name, "content": digest(clean, y)}
    latents: list[Latent] = []
    for n in range(modules):
        last = latents[-1] if n else None
        latents.append(latent(net, x, own, classes, last, layer=layer, gamma=gamma, eps=eps, epochs=epochs, lr=lr,
                              batch=128, seed=seed + n, recipe=told))  # fmt: skip
    parts: list[nn.Module] = [*latents]
    if inputs:
        parts.append(dictionaries(x, own, classes, (side, atoms, sparsity), seed, told))
    watchers = Redundant(victim, parts, clean[:held], y[:held], rate)
    risk = Risk(watchers, clean[:held], min(rate * len(parts), 1.0))
    return watched(victim, risk, f"mrr({modules}+{inputs},{rate:g})", adaptive=adaptive)


class Redundant(Statistics):
    """What each defender finds of the class that the victim answers, over the class's own threshold: (n, modules).

    All are brought to one scale: the logarithm, in deviations of that of clean inputs, and e to the power of it.

    Args:
        x, y: clean inputs that thresholds are set on, and the victim's answers to them.
        rate: the share of each class's that reaches its threshold.
    """

    limits: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, victim: Victim, parts: list[nn.Module], x: Tensor, y: Tensor, rate: float) -> None:
        super().__init__(victim)
        self.parts = nn.ModuleList(parts)
        classes = self.ask(x[:1]).shape[1]
        with torch.no_grad():
            found = torch.cat([self.found(a, b) for a, b in zip(x.split(CHUNK), y.split(CHUNK), strict=True)])
        self.register_buffer("mean", found.mean(0))
        self.register_buffer("deviation", found.std(0, correction=0).clamp_min(1e-3))
        z = (found - self.mean) / self.deviation
        limits = [threshold_at(rate, z[y == c] if bool((y == c).any()) else z) for c in range(classes)]
        self.register_buffer("limits", torch.stack(limits))

    def found(self, x: Tensor, y: Tensor) -> Tensor:
        """Logarithms of what is found in inputs of classes y, (n, modules)."""
        each = torch.stack([part.strangeness(x, y) for part in self.parts], 1)  # type: ignore[operator]
        return each.clamp_min(1e-6).log()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.ask(x).argmax(1)
        z = (self.found(x, y) - self.mean) / self.deviation
        return (z - self.limits[y]).clamp(-20, 20).exp()
