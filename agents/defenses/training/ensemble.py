"""Ensemble adversarial training (Tramer et al. 2018)."""

from __future__ import annotations

from torch import Tensor

from advgym import Victim, registry
from advgym.agents.defenses.lessons import Lesson
from advgym.agents.defenses.loop import trained
from advgym.core.task import load_victim
from advgym.lib.settings import SHARE


@trained(allowed={"clean": SHARE})
def loss(lesson: Lesson, *, sources: str = "", clean: float = 0.5) -> Tensor:
    """As stored-training, δ found against each source in turn, and in its turn against the victim itself.

    Args:
        sources: names of static victims with "+" between them; the victim before training, and the task's surrogate
            where it has one, if none is named.
    """
    models = lesson.memory.setdefault("sources", None) or _sources(lesson, sources)
    lesson.memory["sources"] = models
    nth = lesson.step % (len(models) + 1)
    δ = lesson.attacked(models[nth] if nth < len(models) else None)
    return clean * lesson.loss(lesson.scores()) + (1 - clean) * lesson.loss(lesson.scores(δ))


def _sources(lesson: Lesson, names: str) -> list[Victim]:
    if names:
        return [load_victim(name) for name in names.split("+")]
    other = registry.tasks().get(lesson.task.name, {}).get("surrogate")
    return [lesson.given, *([load_victim(other)] if other and lesson.given.name == _victim(lesson) else [])]


def _victim(lesson: Lesson) -> str:
    """The victim of the task's row: its surrogate is of other shapes than a caller's own model."""
    return str(registry.tasks()[lesson.task.name].get("victim", ""))
