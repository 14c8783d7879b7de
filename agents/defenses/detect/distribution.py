"""Detection by the distribution of the victim's output (Pizarro, Kolossa and Fischer 2024, DistriBlock)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import Victim, register_defense
from advgym.agents.defenses.detectors import Risk, Statistics, watched
from advgym.agents.defenses.learning import answers, clean_inputs
from advgym.lib.settings import COUNT, SHARE


@register_defense("distribution", domains=("image", "speech"), allowed={"rate": SHARE, "samples": COUNT})
def defend(victim: Victim, task, *, rate: float = 0.05, samples: int = 400, adaptive: bool = True) -> Victim:
    """Outputs whose distributions are unlike those of clean inputs raise the risk; .5 is the threshold.

    Of each frame (an output of one frame is a class) the entropy, the largest and the median probability, and from
    frame to frame the Jensen-Shannon divergence; mean and maximum of each over the frames. A Gaussian is fitted to each
    on clean samples of the split "train", and the risk is the mean distance in deviations. `rate` of these samples lie
    beyond the threshold. `adaptive`: where the risk is near it the gradient goes down the risk.
    """
    clean = clean_inputs(task, samples, single=True)
    risk = Risk(Distances(victim, characteristics(answers(victim, clean))), clean, rate)
    return watched(victim, risk, f"distribution({rate:g})", adaptive=adaptive)


class Distances(Statistics):
    """The mean distance of the characteristics from those of clean inputs (N, k), in deviations: (n, 1)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, victim: Victim, known: Tensor) -> None:
        super().__init__(victim)
        self.register_buffer("mean", known.mean(0))
        self.register_buffer("deviation", known.std(0, correction=0).clamp_min(1e-3))

    def forward(self, x: Tensor) -> Tensor:
        return ((characteristics(self.ask(x)) - self.mean) / self.deviation).abs().mean(1, keepdim=True)


def characteristics(scores: Tensor) -> Tensor:
    """Of scores (n, [frames,] classes): float32 (n, 3) of one frame, (n, 8) of several."""
    logp = torch.log_softmax(scores, -1)
    p = logp.exp()
    entropy = -(p * logp).sum(-1)
    told = torch.stack([entropy, p.amax(-1), p.median(-1).values], -1)
    if scores.dim() == 2:
        return told
    middle = ((p[:, 1:] + p[:, :-1]) / 2).clamp_min(1e-12).log()
    steps = [(a * (b - middle)).sum(-1) for a, b in ((p[:, 1:], logp[:, 1:]), (p[:, :-1], logp[:, :-1]))]
    change = (steps[0] + steps[1]) / 2
    return torch.cat([told.mean(1), told.amax(1), change.mean(1, keepdim=True), change.amax(1, keepdim=True)], 1)
