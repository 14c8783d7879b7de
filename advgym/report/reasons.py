"""Why cells of a matrix look as they do: a sentence for each that a stranger would take for a mistake."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from advgym.core.edits import FLAT, EditsBatch
from advgym.core.task import Task
from advgym.judge.results import Result
from advgym.lib.rates import median
from advgym.report.matrix import CONTROL, group_of

NEAR = 0.9  # random search that reaches this share of the best agent is told of
LEFT_OUT = "not shown here"  # why a cell is empty whose agent would fit


def reasons(
    results: Sequence[Result], tasks: Mapping[str, Task], missing: Mapping[tuple[str, str, str], str]
) -> list[tuple[str, str]]:
    """(sign or nothing, sentence), for the cells of `agents_by_tasks`.

    Args:
        tasks: by name; where one is missing its size is not told.
        missing: why a cell (agent, task, defense) is empty.
    """
    found: list[tuple[str, str]] = []
    for name in dict.fromkeys(r.task for r in results):
        rows = [r for r in results if r.task == name]
        size = _size(tasks.get(name))
        found += [("†", text) for text in _weak(name, rows, size)] + [("", text) for text in _chance(name, rows, size)]
    if any(group_of(r) == "transfer" for r in results):
        found.append(("", "Transfer: queries are asked of a surrogate; the victim answers none before the verdict."))
    why = {text for (_, _, guard), text in missing.items() if guard == "none"}
    if why - {LEFT_OUT}:
        found.append(("–", "the agent plays another kind of perturbation, or needs what the task does not offer."))
    if LEFT_OUT in why:
        found.append(("·", "the agent plays it, and is left out here for the time it takes."))
    return found


def _weak(name: str, rows: Sequence[Result], size: str) -> list[str]:
    """Agents that are no better than one random perturbation: whether they had spent all, and in how large a space."""
    weak = [r for r in rows if r.agent != CONTROL and r.success_rate <= r.control_rate]
    if not weak:
        return []
    agents, control = ", ".join(sorted(r.agent for r in weak)), weak[0].control_rate
    budget = weak[0].threat["queries"]
    lost = [float(s.queries) for r in weak for s in r.samples if not s.success]
    spent = f"all {budget} queries" if lost and min(lost) >= budget - 1 else f"{median(lost):.0f} of {budget} queries"
    had = f"samples that hold have cost {spent}" + (f", in a space of {size}" if size else "")
    won = "no sample falls to them" if control == 0 else f"one random perturbation does as well ({100 * control:.0f} %)"
    return [f"{agents} on {name}: {won}; {had}."]


def _chance(name: str, rows: Sequence[Result], size: str) -> list[str]:
    """Where chance does well: one random perturbation, or random search as good as the best agent."""
    out = []
    best = max((r.success_rate for r in rows), default=0.0)
    control = next((r for r in rows if r.agent == CONTROL and r.success_rate > 0), None)
    if control is not None:
        wins = sum(s.success for s in control.samples)
        out.append(f"{CONTROL} on {name}: on {wins} of {control.attacked} samples one random perturbation is enough.")
    blind = next((r for r in rows if r.agent == "random-search" and 0 < best * NEAR <= r.success_rate), None)
    if blind is not None:
        space = f"there are {size} to draw from" if size else "the space is small"
        most = f"; {blind.threat['queries']} draws find what there is"
        rates = f"reaches {100 * blind.success_rate:.0f} %, the best {100 * best:.0f} %"
        out.append(f"random-search on {name} {rates}: {space}{most}.")
    return out


def _size(task: Task | None) -> str:
    """How many edits or values a perturbation of the first sample may choose among."""
    if task is None:
        return ""
    batch = task.samples(next(iter(task.sizes)), [0])
    if isinstance(batch, EditsBatch):
        if batch.sites * batch.choices > FLAT:
            return ""
        open_ = batch.mask(torch.tensor([0]))[0]
        if batch.key == "pair":  # (a, b) is (b, a)
            open_ = (open_ | open_.T).triu()
        return f"{int(open_.sum()):,} edits"
    return f"{math.prod(batch.shape):,} values"
