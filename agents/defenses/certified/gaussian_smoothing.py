"""Randomised smoothing with Gaussian noise and its certificate (Cohen, Rosenfeld & Kolter 2019)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.certifying import trained
from advgym.agents.defenses.randomised.smoothing import Smoothed
from advgym.core import rng
from advgym.core.batch import Batch
from advgym.core.kinds.certificates import Certificate, check_plain
from advgym.core.task import Task
from advgym.lib.settings import COUNT, NATURAL, POSITIVE
from advgym.lib.tallies import lower_bounds, settles

OWN = 0x5DEECE66D  # of the keys of a victim that draws, too
VALUES = {"cpu": 100_000, "cuda": 1 << 26}  # numbers of noise drawn at once: what a cache holds, and a card


class GaussianSmoothed(Smoothed):
    """g(x) = the class that f(x + sigma e) is most often, e standard normal; draws are keyed."""

    def __init__(self, victim: Victim, sigma: float, draws: int) -> None:
        super().__init__(victim, self._vary, draws)
        self.sigma = sigma

    def _vary(self, x: Tensor, keys: Tensor) -> Tensor:
        return x + self.sigma * rng.normal_pairs(0, keys, tuple(x.shape[1:]))

    @torch.no_grad()
    def counts(self, x: Tensor, keys: Tensor, draws: int) -> Tensor:
        """Votes int64 (n, classes) over `draws` draws keyed by int64 (n,): the paper's SampleUnderNoise.

        Images and draws share each forward, so that few images with many draws fill it as well as many with few.
        """
        lane = torch.arange(len(x), device=x.device).repeat_interleave(draws)
        nth = torch.arange(draws, device=x.device).repeat(len(x))
        rows = max(1, VALUES[x.device.type] // x[0].numel())
        votes = None
        for at, some in zip(lane.split(rows), nth.split(rows), strict=True):
            key = rng.mix(keys[at] + some * 2**20)
            noisy = self._vary(x[at], key)
            # What a victim draws by itself may not hang on the noise.
            scores = self.victim(noisy, rng.mix(key + OWN)) if self.victim.keyed else self.victim(noisy)
            if votes is None:
                votes = torch.zeros(len(x), scores.shape[1], dtype=torch.int64, device=x.device)
            votes.index_add_(0, at, F.one_hot(scores.argmax(1), scores.shape[1]))
        assert votes is not None
        return votes

    def certificate(
        self, batch: Batch, *, seed: int = 0, pick: int = 100, draws: int = 1000, alpha: float = 0.001
    ) -> Certificate:
        """CERTIFY: a class c from n0 = `pick` draws, a lower bound pA of its probability from n = `draws` others.

        R = sigma Phi^-1(pA) in L2 where pA > 1/2, else it abstains. Each is wrong with probability at most alpha.
        """
        check_plain(batch, "gaussian-smoothing")
        x = batch.inputs(batch.look(batch.null()).form)
        keys = rng.bits(seed, batch.ids, (2,), 59)
        c = self.counts(x, keys[:, 0], pick).argmax(1)
        k = self.counts(x, keys[:, 1], draws).gather(1, c.unsqueeze(1)).squeeze(1)
        p = lower_bounds(k, draws, alpha)
        radius = self.sigma * torch.special.ndtri(p.clamp_min(0.5))
        return Certificate(torch.where(p > 0.5, c, -1), radius, "l2")

    def settled(self, x: Tensor, keys: Tensor, *, draws: int = 1000, alpha: float = 0.001) -> Tensor:
        """PREDICT: the class of most votes where a two-sided binomial test tells it from the next, else -1."""
        top, c = self.counts(x, keys, draws).topk(2, 1)
        return torch.where(settles(top[:, 0], top[:, 1], alpha), c[:, 0], -1)


@register_defense(
    "gaussian-smoothing", kinds=("field",),
    allowed={"sigma": POSITIVE, "draws": COUNT, "epochs": NATURAL, "samples": COUNT, "batch": COUNT, "lr": POSITIVE},
)  # fmt: skip
def defend(
    victim: Victim, task: Task, *, sigma: float = 0.25, draws: int = 16, epochs: int = 0, samples: int = 10000,
    batch: int = 128, lr: float = 1e-3, seed: int = 0,
) -> Victim:  # fmt: skip
    """Vote over Gaussian noise of deviation `sigma` (in units of the input); certified in L2 by `advgym certify`.

    A vote of `draws` stands in for the smoothed classifier where an attack asks; the certificate is on that of all
    draws, and `settled` asks it with as many as it takes. With `epochs` a copy of the victim first goes on learning on
    noisy training samples, as the paper does, and is kept in the cache; without, nothing is trained.
    """
    found = task.samples(next(s for s, size in task.sizes.items() if size), [0])
    if not isinstance(found.inputs(found.look(found.null()).form), Tensor):
        raise AdvgymError(f"{task.name} offers no tensor to add noise to: `smoothing` takes the task's own variations")
    if epochs:

        def loss(module: torch.nn.Module, part: Batch, share: float, step: int) -> Tensor:
            x = part.inputs(part.look(part.null()).form)
            noise = rng.normal_pairs(seed, rng.mix(part.ids + step * 2**32), tuple(x.shape[1:]))
            return F.cross_entropy(module(x + sigma * noise), part.labels)

        victim = trained(
            victim, task, f"noise{sigma:g}", loss, samples=samples, epochs=epochs, batch=batch, lr=lr, seed=seed,
            sigma=sigma,
        )  # fmt: skip
    model = GaussianSmoothed(victim, sigma, draws)
    access = "gradients" if victim.access == "gradients" else "scores"
    card: dict[str, Any] = {**victim.card, "sigma": sigma}
    name = f"{victim.name}+gaussian-smoothing({sigma:g})"
    return victim.like(model, name=name, access=access, keyed=True, draws=1, card=card)
