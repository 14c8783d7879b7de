"""Free adversarial training (Shafahi et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.agents.defenses.lessons import Lesson
from advgym.agents.defenses.loop import trained


@trained()
def loss(lesson: Lesson, *, step_size: float = 1.0) -> Tensor:
    """L(θ, x + δ), whose one backward pass moves θ and δ: δ <- project(δ + step_size ε sign(∇δ L)).

    Each batch comes `replays` times in a row; δ stays from batch to batch, by place.
    """
    lesson.needs_field("free-training")
    n, batch = len(lesson.ids), lesson.batch
    last = lesson.memory.get("δ")
    δ = lesson.null if last is None or len(last) < n else batch.project(last[:n])
    δ = δ.detach().requires_grad_()
    α = step_size * batch.reach.view(-1, *[1] * len(batch.shape))

    def ascend(g: Tensor) -> None:
        d = δ.detach()
        moved = batch.project(d + α * batch.steepest(g, None, d))
        lesson.memory["δ"] = moved if last is None else torch.cat([moved, last[n:]])  # the last batch may be short

    δ.register_hook(ascend)  # type: ignore[no-untyped-call]
    return lesson.loss(lesson.scores(δ))
