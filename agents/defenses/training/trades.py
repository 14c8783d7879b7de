"""TRADES (Zhang et al. 2019) and, on random perturbations, stability training (Zheng et al. 2016)."""

from __future__ import annotations

from torch import Tensor

from advgym.agents.defenses.lessons import Lesson, divergence
from advgym.agents.defenses.loop import trained
from advgym.lib.settings import NATURAL


@trained(allowed={"beta": NATURAL})
def loss(lesson: Lesson, *, beta: float = 6.0) -> Tensor:
    """L(θ, x) + β KL(f(x) || f(x + δ)).

    δ is what the agent finds with its own loss against the victim's own answer; the paper's climbs the divergence.
    """
    δ = lesson.attacked()
    clean = lesson.scores()
    return lesson.loss(clean) + beta * divergence(clean, lesson.scores(δ))
