"""`advgym board check`: every problem of a board's file in plain words, with its place and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from advgym import registry
from advgym.core.goals import BundleGoal
from advgym.core.offers import fits
from advgym.core.task import Task, check_knowledge, make_task
from advgym.errors import AdvgymError, unknown
from advgym.leaderboards.rules.board import find, gives, load, read, task_options
from advgym.leaderboards.rules.board_tables import WIDEN, Board, BoardTask, Phase
from advgym.leaderboards.rules.board_values import shape_problems, value_problems
from advgym.leaderboards.rules.hidden import split_of
from advgym.lib.drawn import SPLIT


def check(name: str | Path, boards: str | Path | None = None) -> list[str]:
    """Every problem of a board; none: it can be opened. Tasks are made, so data and victims must be here.

    Args:
        name: of a board, or the path of its TOML.
        boards: a folder of boards; $ADVGYM_BOARDS by default.
    """
    try:
        path = find(name, boards)
        raw = read(path)
    except AdvgymError as error:
        return [str(error)]
    if problems := shape_problems(raw, Board, ""):
        return problems
    board = msgspec.structs.replace(msgspec.convert(raw, Board), name=raw.get("name", path.stem))
    if problems := value_problems(board):
        return problems
    board = load(path)
    made: dict[str, Task] = {}
    for i, row in enumerate(board.tasks):
        problems += [f"tasks[{i}]: {p}" for p in _task(board, row, made)]
    for phase, about in board.phases.items():
        problems += [f"phases.{phase}: {p}" for p in _phase(board, about, made)]
    return problems + [f"defense.panel: {p}" for p in _panel(board, made)]


def _task(board: Board, row: BoardTask, made: dict[str, Task]) -> Iterator[str]:
    try:
        name, about = registry.task_row(row.id)
        if name != row.id:
            raise AdvgymError(f"{row.id!r} is spelt {name!r} on a board; a plug-in's tasks come by its entry point")
        check_knowledge(row.id, row.knowledge, about, None)
        for key in row.constraint:
            if key not in about.get("constraint", {}):
                raise unknown(f"constraint of {row.id}", key, about.get("constraint", {}))
        if "dataset" not in about or "victim" not in about:
            raise AdvgymError(f"{row.id} has no data and victim of its own; a board's tasks have both")
        made[row.id] = make_task(row.id, **task_options(board, row))
        if row.widen > WIDEN and row.knowledge != "decision" and not made[row.id].threat.least:
            raise AdvgymError(
                f"widen is {row.widen:g}; more than {WIDEN:g} times the constraint, where one sample's queries may ask "
                "about another, is for decision knowledge and least distortion"
            )
    except (AdvgymError, TypeError, ValueError) as error:
        yield str(error)


def _phase(board: Board, about: Phase, made: dict[str, Task]) -> Iterator[str]:
    kind, _, rest = about.source.partition(":")
    if kind == "path" and not Path(rest).is_dir():
        yield f"{rest} is not a folder on this machine"
        return
    for name, task in made.items():
        row = registry.task_row(name)[1]
        if kind == "generator" and not row.get("generator"):
            able = sorted(n for n, r in registry.tasks().items() if r.get("generator"))
            yield f"{name} has no generator of samples, so it cannot be hidden. Tasks that have one: {', '.join(able)}."
            continue
        try:
            split, sizes = _sizes(name, task, about, kind, rest)
            if split not in sizes:
                raise unknown(f"split of {name}", split, sizes)
            if about.samples > sizes[split]:
                raise AdvgymError(f"samples is {about.samples}, but split {split!r} of {name} has {sizes[split]}")
        except (AdvgymError, TypeError, ValueError) as error:
            yield str(error)


def _sizes(name: str, task: Task, about: Phase, kind: str, rest: str) -> tuple[str, dict[str, Any]]:
    """(the split a phase takes, the sizes of a task's splits there)."""
    if kind == "split":
        return rest, dict(task.sizes)
    dataset = f"{registry.task_row(name)[1]['dataset']}#0:{about.samples}" if kind == "generator" else rest
    made = make_task(name, dataset=dataset, victim=task.victim)
    return (split_of(made, SPLIT) if kind == "generator" else "test"), dict(made.sizes)


def _panel(board: Board, made: dict[str, Task]) -> Iterator[str]:
    if "defense" not in board.tracks:
        return
    agents = []
    for name in board.defense.panel:
        try:
            agents.append(registry.agent(name))
        except AdvgymError as error:
            yield str(error)
    for row in board.tasks:
        if row.id not in made:
            continue
        if isinstance(made[row.id].goal, BundleGoal):
            yield f'{row.id} has samples of many members, which have no defense track: tracks = ["attack"]'
        batch = made[row.id].samples(next(iter(made[row.id].sizes)), [0])
        if not any(fits(a, made[row.id], batch) and gives(row.knowledge, a.knowledge) for a in agents):
            yield f"no agent of it plays {row.id}, which takes {batch.kind} and gives {row.knowledge!r} knowledge"
