"""Defensive distillation (Papernot et al. 2016)."""

from __future__ import annotations

import copy

from torch import Tensor

from advgym.agents.defenses.lessons import Lesson
from advgym.agents.defenses.loop import trained
from advgym.lib.settings import Range


@trained(allowed={"temperature": Range(1)})
def loss(lesson: Lesson, *, temperature: float = 20.0) -> Tensor:
    """L of f(x) / T in the first half; in the second, from the first weights again, CE(teacher(x) / T, f(x) / T).

    The teacher is the victim as the first half left it. Scores are asked at T = 1: they have grown by T, so that
    softmax saturates and gradients of cross-entropy vanish, which margins and scores do not mind.
    """
    module = lesson.victim.module
    assert module is not None
    if lesson.step < lesson.total // 2:
        return lesson.loss(lesson.scores() / temperature)
    teacher = lesson.memory.get("teacher")
    if teacher is None:
        teacher = lesson.victim.like(copy.deepcopy(module).requires_grad_(False))
        lesson.memory["teacher"] = teacher
        assert lesson.given.module is not None
        module.load_state_dict(lesson.given.module.state_dict())
    soft = (lesson.scores(victim=teacher) / temperature).softmax(-1)
    log_p = (lesson.scores() / temperature).log_softmax(-1)
    return -(soft * log_p).flatten(1).sum(1)
