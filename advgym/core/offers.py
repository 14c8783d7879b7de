"""What an agent cannot do without, and what a task offers: the words of both, and who fits whom.

`register_agent(..., needs=...)` names words of `needs.toml`. Probes, relaxed weights and the norm of what is added are
read off a task's samples; what else it offers its factory says in `Task.offers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advgym import registry
from advgym.core.batch import Batch
from advgym.core.edits import EditsBatch
from advgym.core.field import FieldBatch
from advgym.core.task import Task
from advgym.errors import AdvgymError
from advgym.lib.rooms import vocabulary
from advgym.registry import Agent


def offers(task: Task, batch: Batch | None = None) -> frozenset[str]:
    """The words that hold of a task.

    Args:
        batch: some of its samples; one is dealt where none are given.
    """
    batch = batch or task.samples(next(iter(task.sizes)), [0])
    if not isinstance(batch, EditsBatch):
        if not isinstance(batch, FieldBatch):
            return task.offers
        plain = {"plain"} if type(batch).inputs is FieldBatch.inputs else set()
        # Words of several norms join them: "l2-linf".
        return task.offers | plain | {word for word in vocabulary() if batch.norm in word.split("-")}
    probes = frozenset(batch.probes) if task.threat.probes else frozenset()
    relaxed = type(batch).relaxed_leaves is not EditsBatch.relaxed_leaves
    return task.offers | probes | ({"weights"} if relaxed else frozenset())


def needs_of(entry: Agent, settings: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """What an agent needs; where a setting names another agent that it plays, that one's needs too."""
    inner = (settings or {}).get(entry.inner) if entry.inner else None
    return (*entry.needs, *(registry.agent(str(inner)).needs if inner else ()))


def lacking(entry: Agent, offered: frozenset[str], settings: Mapping[str, Any] | None = None) -> list[str]:
    """What the agent needs and the task does not offer."""
    return [need for need in needs_of(entry, settings) if need not in offered]


def fits(entry: Agent, task: Task, batch: Batch | None = None) -> bool:
    """Whether an agent, as it is registered, plays a task: its kind of perturbation, and all that it needs."""
    batch = batch or task.samples(next(iter(task.sizes)), [0])
    return batch.kind in entry.kinds and not lacking(entry, offers(task, batch))


def check_fit(entry: Agent, task: Task, batch: Batch, settings: Mapping[str, Any] | None = None) -> None:
    """Refuse an agent that would have to play another's game here.

    Raises:
        AdvgymError: naming what is missing, what the task offers, and who plays it.
    """
    names = [entry, *([registry.agent(str(settings[entry.inner]))] if (settings or {}).get(entry.inner) else [])]  # type: ignore[index]
    for one in names:
        if batch.kind not in one.kinds:
            raise AdvgymError(
                f"agent {one.name!r} plays {' and '.join(one.kinds)}; {task.name} takes {batch.kind}. "
                f"`advgym list agents` shows which play what."
            )
    offered = offers(task, batch)
    missing = lacking(entry, offered, settings)
    if missing:
        words = "; ".join(f"{word}: {vocabulary()[word]}" for word in missing)
        players = sorted(e.name for e in registry.agents().values() if fits(e, task, batch))
        raise AdvgymError(
            f"agent {entry.name!r} needs what {task.name} does not offer ({words}). "
            f"It offers: {', '.join(sorted(offered)) or 'nothing of the kind'}. "
            f"Agents that play it: {', '.join(players)}."
        )
