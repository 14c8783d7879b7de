"""What an agent cannot do without, and what a task offers: the words of both, and who fits whom.

`register_agent(..., needs=...)` names words of `needs.WORDS`. Most of what a task offers is read off its samples and
its context; what only the domain knows (where a table's words come from) it says in `Task.offers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advgym import registry
from advgym.batch import Batch
from advgym.edits import EditsBatch
from advgym.errors import AdvgymError
from advgym.needs import WORDS
from advgym.registry import Agent
from advgym.task import Task


def offers(task: Task, batch: Batch | None = None) -> frozenset[str]:
    """Words of `needs.WORDS` that hold of a task.

    Args:
        batch: some of its samples; one is dealt where none are given.
    """
    batch = batch or task.samples(next(iter(task.sizes)), [0])
    found, context, view = set(task.offers), task.context, batch.view()
    if "edge_index" in context and "num_nodes" in context:
        found |= _of_graph(task, batch, view)
    if "injected" in context:
        found.add("injection")
    if "words" in view and view["words"].dim() == 2 and "vocabulary" in context:
        found.add("text")
    if isinstance(batch, EditsBatch):
        found |= set(batch.probes) if task.threat.probes else set()
        if "text" in found and "keep" not in found and batch.payloads is not None and batch.payloads.dim() == 3:
            found |= {"words"} if view["words"].shape[1] == batch.sites == batch.payloads.shape[1] else set()
        if type(batch).relaxed_leaves is not EditsBatch.relaxed_leaves:
            found.add("weights")
    return frozenset(found)


def _of_graph(task: Task, batch: Batch, view: Mapping[str, Any]) -> set[str]:
    found = {"graph"}
    if "members" in view:
        found.add("members")
    if "target" in view:
        found.add("target")
    if not isinstance(batch, EditsBatch) or "injected" in task.context:
        return found
    if batch.sites == int(task.context["num_nodes"]):
        edges = batch.key == "pair" and batch.choices == batch.sites
        found |= {"edges", "flips"} if edges else {"flips"} if batch.key == "cell" else set()
    return found


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
        words = "; ".join(f"{word}: {WORDS[word]}" for word in missing)
        players = sorted(e.name for e in registry.agents().values() if fits(e, task, batch))
        raise AdvgymError(
            f"agent {entry.name!r} needs what {task.name} does not offer ({words}). "
            f"It offers: {', '.join(sorted(offered)) or 'nothing of the kind'}. "
            f"Agents that play it: {', '.join(players)}."
        )
