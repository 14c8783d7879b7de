"""What an audit will play, and what that costs at most, before anything is attacked."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from advgym import registry
from advgym.core.clean import answer
from advgym.core.task import Task
from advgym.errors import AdvgymError, unknown
from advgym.evaluations.subject import table

BELOW = {"white-box": "score", "score": "decision"}  # the black-box row beside the strongest one
SLOPES = ("white-box", "transfer")  # where gradients are to be had
TWICE = 3.0  # a forward and its backward pass in forwards


@dataclass(frozen=True)
class Planned:
    """One row before it is played."""

    name: str
    agent: str
    knowledge: str
    queries: int
    gradients: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """Of the task."""
        return {"knowledge": self.knowledge, "queries": self.queries, "gradients": self.gradients}


def plan(task: Task, name: str, budget: str, surrogate: bool) -> list[Planned]:
    """The rows: the strongest attacker, one who sees less, and where there is another victim one who sees that alone.

    Args:
        task: as made with the most knowledge; name: of its row.
        budget: quick, standard or thorough.
        surrogate: whether there is a victim to transfer from.
    """
    budgets = table().budgets
    if budget not in budgets:
        raise unknown("budget", budget, budgets)
    many = int(budgets[budget])
    batch = task.samples(next(s for s, size in task.sizes.items() if size), [0])
    if many < batch.price:
        raise AdvgymError(
            f"a {budget} audit spends {many} propagations a sample, and one query of {name} costs {batch.price}: "
            "take a larger --budget, or a task with smaller bundles"
        )
    agents, top = table().agents[batch.kind], task.threat.knowledge
    levels = [top, *([BELOW[top]] if top in BELOW else [])]
    rows = [_row(level, agents[level], level, many, batch.price) for level in levels]
    if surrogate and top != "transfer":
        rows.append(_row("transfer", agents["transfer"], "transfer", many, batch.price))
    return rows


def _row(name: str, agent: str, knowledge: str, many: int, price: int) -> Planned:
    """Half of the propagations of a white-box row are gradients."""
    told = registry.agent(agent).knowledge == "white-box" or knowledge == "transfer"
    queries = max(many // 2 if told else many, price)
    return Planned(name, agent, knowledge, queries, queries)


def pace(task: Task, split: str, ids: list[int], device: Any) -> float:
    """Seconds that the victim needs for one clean input, measured on a few."""
    batch = task.samples(split, ids, device)
    victim = task.victim.on(device)
    with torch.no_grad(), victim.tally.during("clean"):
        answer(victim, batch, task.goal)
        start = time.perf_counter()
        answer(victim, batch, task.goal)
    return (time.perf_counter() - start) / len(ids)


def lines(rows: list[Planned], episodes: int, second: float) -> list[str]:
    """What will be played, and how long it takes at most, at `second` an input."""
    out = []
    for r in rows:
        more = f" and {r.gradients} gradients" if r.knowledge in SLOPES else ""
        out.append(f"  {r.name}: {r.agent}, {r.queries} queries{more} a sample")
    inputs = sum(r.queries * (TWICE if r.knowledge in SLOPES else 1.0) for r in rows)
    queries, seconds = sum(r.queries for r in rows), inputs * episodes * second
    about = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return [*out, f"at most {episodes} samples x {queries} queries, about {about}; less where samples break sooner"]
