"""Temporal dependency detection (Yang et al. 2019): does the first part alone read as it does in the whole?"""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.detectors import Risk, Statistics, watched
from advgym.agents.defenses.learning import clean_inputs
from advgym.envs.speech.goals.decode import greedy
from advgym.envs.speech.measures.errors import edit_distance, lengths
from advgym.lib.settings import COUNT, SHARE, Range


@register_defense(
    "temporal-dependency", domains=("speech",),
    allowed={"part": Range(0, 1, above=True), "rate": SHARE, "samples": COUNT},
)  # fmt: skip
def defend(
    victim: Victim, task, *, part: float = 0.5, rate: float = 0.05, samples: int = 200, adaptive: bool = True
) -> Victim:
    """The transcript of the first `part` of a clip is compared with as much of the whole clip's transcript.

    Risk is the character error rate e of the two, as e / (e + t): .5 at the threshold t that `rate` of clean clips of
    the split "train" reach. What is beyond the first part is silenced. `adaptive`: transcripts have no gradient, so
    where the risk is near the threshold it goes down the mean squared difference of the two outputs over the first
    part's frames, which is 0 where the two agree.

    Raises:
        AdvgymError: for a task without transcripts.
    """
    if len(task.goal.scores_shape) != 2:
        raise AdvgymError(f"{task.name} offers no transcripts, which temporal-dependency compares; distribution does")
    apart = Apart(victim, part, int(getattr(task.goal, "space", 1)))
    risk = Risk(apart, clean_inputs(task, samples, single=True), rate)
    return watched(victim, risk, f"temporal-dependency({part:g})", adaptive=adaptive)


class Apart(Statistics):
    """The character error rate of the first part's transcript against as much of the whole one's, (n, 1)."""

    def __init__(self, victim: Victim, part: float, space: int) -> None:
        super().__init__(victim)
        self.part, self.space = part, space

    def forward(self, x: Tensor) -> Tensor:
        until = (self.part * extent(x)).long().unsqueeze(1)
        whole, first = self.ask(x), self.ask(x * (torch.arange(x.shape[-1], device=x.device) < until))
        heard, every = greedy(first.detach(), self.space), greedy(whole.detach(), self.space)
        count = lengths(heard).unsqueeze(1)
        same = torch.where(torch.arange(every.shape[1], device=x.device) < count, every, -1)
        error = edit_distance(heard, same) / lengths(heard).clamp_min(1)
        frames = torch.arange(whole.shape[1], device=x.device) < until * whole.shape[1] // x.shape[-1]
        soft = ((whole.softmax(2) - first.softmax(2)).square().sum(2) * frames).sum(1) / frames.sum(1).clamp_min(1)
        return (error + (soft - soft.detach())).unsqueeze(1)  # the value of the one, the gradient of the other


def extent(x: Tensor) -> Tensor:
    """Samples up to the last that is not zero, int64 (n,); at least 1."""
    place = torch.arange(1, x.shape[-1] + 1, device=x.device)
    return ((x.detach() != 0) * place).amax(1).clamp_min(1)
