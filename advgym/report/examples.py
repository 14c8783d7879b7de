"""Examples of a result: the stored perturbations put on their samples again, and shown by the task."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advgym.clients.render import ask
from advgym.core.batch import Batch
from advgym.core.task import Task
from advgym.judge.results import Result, Sample


@dataclass
class Example:
    """One success on the page."""

    agent: str
    sample: int
    before: str
    after: str
    fragment: str  # HTML by the task
    line: str
    queries: int
    distance: str
    told: bool = False  # whether the fragment says both answers, so that nothing beside it needs to


def forms(task: Task, split: str, samples: list[Sample]) -> tuple[Batch, Tensor]:
    """The clean samples as a batch on the CPU, and the canonical form of what each row stores."""
    batch = task.judged(split, [s.id for s in samples], "cpu")
    return batch, batch.look(batch.load([s.perturbation for s in samples])).form


def words(task: Task, output: Any) -> str:
    """A stored output in words."""
    return task.goal.describe(torch.as_tensor(output))


def _tells(fragment: str, before: str, after: str) -> bool:
    """Whether both answers can be read in a fragment (a transcript's words stand apart there)."""
    seen = set(re.split(r"\W+", html.unescape(re.sub(r"<[^>]*>", " ", fragment))))
    return bool(fragment) and all(set(re.split(r"\W+", answer)) - {""} <= seen for answer in (before, after))


def pick(results: list[Result], most: int = 4) -> list[tuple[Result, Sample]]:
    """Successes to show: different samples and agents, the strongest agents first, the nearest success of each."""
    ranked = sorted(results, key=lambda r: (-r.success_rate, r.queries_mean))
    chosen: list[tuple[Result, Sample]] = []
    seen: set[int] = set()
    for r in [*ranked, *ranked]:
        wins = sorted(
            (s for s in r.samples if s.success and s.id not in seen), key=lambda s: (s.distance, s.queries, s.id)
        )
        if wins and len(chosen) < most:
            chosen.append((r, wins[0]))
            seen.add(wins[0].id)
    return chosen


def examples(task: Task, results: list[Result], most: int = 4) -> list[Example]:
    """Ready for the template."""
    out = []
    for r, s in pick(results, most):
        batch, form = forms(task, r.split, [s])
        before, after = torch.as_tensor(s.before), torch.as_tensor(s.after)
        with torch.no_grad():
            line = ask(task, task.line, batch, 0, form[0]) if task.line is not None else ""
            fragment = ask(task, task.show, batch, 0, form[0], before, after) if task.show is not None else ""
        out.append(
            Example(
                r.agent,
                s.id,
                words(task, s.before),
                words(task, s.after),
                fragment,
                line,
                s.queries,
                f"{s.distance:.3g}",
                _tells(fragment, words(task, s.before), words(task, s.after)),
            )
        )
    return out
