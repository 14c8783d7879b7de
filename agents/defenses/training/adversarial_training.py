"""Training on what an inner attack finds (Goodfellow et al. 2015, Madry et al. 2018, Wong et al. 2020): five rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from advgym import Victim, registry
from advgym.agents.defenses.lessons import Lesson
from advgym.agents.defenses.loop import trained
from advgym.lib.settings import SHARE


@trained(allowed={"clean": SHARE})
def loss(lesson: Lesson, *, clean: float = 0.0) -> Tensor:
    """Min over θ of E[clean L(θ, x) + (1 - clean) max over δ of L(θ, x + δ)]; the maximum is what the agent finds.

    The graph victims `*-gcn-robust` are another method: trained from the start, on flips of the whole graph, with
    self-training.
    """
    found = lesson.loss(lesson.scores(lesson.attacked()))
    return found if not clean else (1 - clean) * found + clean * lesson.loss(lesson.scores())


def defend(victim: Victim, task: Any, **settings: Any) -> Victim:
    """The registered defense `adversarial-training`, for those who import it."""
    made: Victim = registry.defense("adversarial-training").defend(victim, task, **settings)
    return made
