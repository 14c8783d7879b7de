"""Randomised smoothing by vote (Cohen et al. 2019; for words and edges, Ye et al. 2020, Bojchevski et al. 2020)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.wrapping import straight_through
from advgym.core.rng import mix, normal
from advgym.lib.settings import COUNT, POSITIVE, SHARE
from advgym.lib.tallies import log_shares


class Smoothed(nn.Module):
    """Scores are log vote shares over keyed draws; the backward pass is that of the mean log-probability (EoT)."""

    def __init__(self, victim: Victim, vary: Any, draws: int) -> None:
        super().__init__()
        self.victim, self.vary, self.draws = victim, vary, draws
        self.inner = victim.module

    def forward(self, x: Any, keys: Tensor) -> Tensor:
        """(n, ..., classes) log shares; one draw at a time, so memory does not grow with the draws."""
        votes = soft = torch.zeros(())
        for draw in range(self.draws):
            key = mix(keys * 2**8 + draw)
            noisy = self.vary(x, key)
            scores = self.victim(noisy, key) if self.victim.keyed else self.victim(noisy)
            votes = votes + F.one_hot(scores.detach().argmax(-1), scores.shape[-1])
            soft = soft + torch.log_softmax(scores, -1)
        return straight_through(log_shares(votes, self.draws), soft / self.draws)


@register_defense("smoothing", allowed={"draws": COUNT, "noise": POSITIVE, "rate": SHARE})
def defend(victim: Victim, task, *, draws: int = 16, noise: float = 1.0, rate: float = 0.15) -> Victim:
    """Vote over random variations of the input; the verdict is the majority over fresh draws.

    Fields get Gaussian noise whose size is `noise` times the threat's radius (for L2, L1 and L0 as its coordinates
    share it); edits, and Fields on inputs that are no tensor, the task's own random variation of an input at `rate`.
    What is smoothed is what arrived: no clean sample is known. Any victim can stand behind it, and nothing is
    certified: the graph victim `karate-gcn-smoothed`, which can be, is another method with other draws.
    """
    batch = task.samples(next(iter(task.sizes)), [0])
    if batch.kind == "field" and task.randomise is None:
        sigma = noise * batch.typical()

        def vary(x: Any, keys: Tensor) -> Any:
            return x + sigma * normal(0, keys, tuple(x.shape[1:]))
    else:
        if task.randomise is None:
            raise AdvgymError(f"{task.name} offers no random variation of its inputs, so it cannot be smoothed")

        def vary(x: Any, keys: Tensor) -> Any:
            return task.randomise(x, rate, keys)

    access = "gradients" if victim.access == "gradients" else "scores"
    model = Smoothed(victim, vary, draws)
    return victim.like(model, name=f"{victim.name}+smoothing({draws})", access=access, keyed=True, draws=1)
