"""Whether the values of a board's file make sense by themselves: keys, types and ranges, every problem in words."""

from __future__ import annotations

import datetime as dt
import difflib
import math
import re
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from advgym.leaderboards.rules.board_tables import PHASES, TRACKS, Board, Phase

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
SOURCES = '"split:NAME", "generator" or "path:DIR"'
ORDERS = ("listed", "shuffled")
DEVICES = ("cpu", "cuda")


def shape_problems(raw: Any, kind: Any, place: str) -> list[str]:
    """Unknown keys, missing keys and wrong types of a table, against a Struct; each with its place."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return list(_other(raw, kind, place))
    if not isinstance(raw, dict):
        return [f"{place or 'the file'} is a table, not {_word(raw)}"]
    fields = {f.name: f for f in msgspec.structs.fields(kind)}
    problems = []
    for key in raw:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else "."
            problems.append(f"{_at(place, key)} is no key of a board{guess} Known here: {', '.join(fields)}.")
    for name, field in fields.items():
        if name in raw:
            problems += shape_problems(raw[name], field.type, _at(place, name))
        elif field.required:
            problems.append(f"{_at(place, name)} is missing")
    return problems


def _other(raw: Any, kind: Any, place: str) -> Iterator[str]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is list and isinstance(raw, list):
        for i, item in enumerate(raw):
            yield from shape_problems(item, inner[0], f"{place}[{i}]")
        return
    if origin is dict and isinstance(raw, dict):
        for key, item in raw.items():
            yield from shape_problems(item, inner[1], _at(place, key))
        return
    try:
        msgspec.convert(raw, kind)
    except msgspec.ValidationError:
        yield f"{place} is {_want(kind)}, not {_word(raw)}"


def _want(kind: Any) -> str:
    words = {
        int: "a whole number", float: "a number", str: "a text", bool: "true or false",
        dt.datetime: "a date and time such as 2026-01-01T00:00:00Z",
    }  # fmt: skip
    origin = typing.get_origin(kind) or kind
    return words.get(origin, {list: "a list", dict: "a table"}.get(origin, str(kind)))


def _word(value: Any) -> str:
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)[:80]


def _at(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)


def value_problems(board: Board) -> list[str]:
    """What is out of range in a board of the right shape."""
    return [*_head(board), *_tasks(board), *_phases(board), *_limits(board)]


def _head(board: Board) -> Iterator[str]:
    if not NAME.fullmatch(board.name):
        yield f"name is {board.name!r}; a board (and its file) is named with a-z, 0-9 and -, at most 40 of them"
    for name, text, most in (("title", board.title, 120), ("summary", board.summary, 2000)):
        if len(text) > most or not all(c.isprintable() or (c == "\n" and name == "summary") for c in text):
            yield f"{name} is at most {most} printable characters"
    if not board.title.strip():
        yield "title is empty"
    for name, when in (("opens", board.opens), ("closes", board.closes)):
        if when.tzinfo is None:
            yield f"{name} needs its offset, such as {when.isoformat()}Z"
    if (board.opens.tzinfo is None) == (board.closes.tzinfo is None) and board.opens >= board.closes:
        yield f"opens ({board.opens.isoformat()}) is not before closes ({board.closes.isoformat()})"
    yield from _among("tracks", board.tracks, TRACKS)
    if not 0 <= board.defense.floor <= 1:
        yield f"defense.floor is a share in [0, 1], not {board.defense.floor}"
    yield from _among("defense.device", [board.defense.device], DEVICES)
    if "defense" in board.tracks and not board.defense.panel:
        yield "defense.panel is empty: the defense track needs agents that attack (`advgym list agents`)"


def _tasks(board: Board) -> Iterator[str]:
    if not board.tasks:
        yield "tasks is empty: a board has at least one [[tasks]]"
    seen: set[str] = set()
    for i, task in enumerate(board.tasks):
        if task.id in seen:
            yield f"tasks[{i}].id: {task.id!r} is there twice; a task has one row"
        seen.add(task.id)
        yield from _range(f"tasks[{i}].queries", task.queries, 1, 10**7)
        yield from _range(f"tasks[{i}].widen", task.widen, 1, 10**6)
        differentiable = task.knowledge in ("white-box", "transfer")
        if differentiable:
            yield from _range(f"tasks[{i}].gradients", task.gradients, 1, 10**7)
        elif task.gradients:
            yield f"tasks[{i}].gradients is {task.gradients}, but {task.knowledge!r} knowledge has none; leave it out"


def _phases(board: Board) -> Iterator[str]:
    if not board.phases:
        yield f"phases is empty: a board has at least one of {', '.join(f'[phases.{p}]' for p in PHASES)}"
    yield from _among("phases", list(board.phases), PHASES)
    for name, phase in board.phases.items():
        yield from _phase(f"phases.{name}", phase)
    yield from _among("shards.order", [board.shards.order], ORDERS)
    yield from _range("shards.lanes", board.shards.lanes, 1, 1024)


def _phase(place: str, phase: Phase) -> Iterator[str]:
    yield from _range(f"{place}.samples", phase.samples, 1, 100_000)
    yield from _range(f"{place}.seeds", phase.seeds, 1, 100)
    kind, _, rest = phase.source.partition(":")
    if (kind, bool(rest)) not in (("split", True), ("path", True)) and phase.source != "generator":
        yield f"{place}.source is {phase.source!r}; allowed: {SOURCES}"


def _limits(board: Board) -> Iterator[str]:
    limits, quota = board.limits, board.quota
    yield from _range("limits.cpu_s", limits.cpu_s, 1, 86_400)
    yield from _range("limits.wall_s", limits.wall_s, 1, 86_400)
    yield from _range("limits.memory_mb", limits.memory_mb, 256, 1 << 20)
    yield from _range("limits.processes", limits.processes, 1, 4096)
    yield from _range("limits.size_mb", limits.size_mb, 1, 1024)
    yield from _range("limits.job_s", limits.job_s, 60, 604_800)
    yield from _range("quota.per_day", quota.per_day, 1, 10**6)
    yield from _range("quota.total", quota.total, 1, 10**6)


def _range(place: str, value: float, low: float, high: float) -> Iterator[str]:
    if not (math.isfinite(value) and low <= value <= high):
        yield f"{place} is from {low:g} to {high:g}, not {value:g}"


def _among(place: str, values: list[str], allowed: tuple[str, ...]) -> Iterator[str]:
    for value in values:
        if value not in allowed:
            near = difflib.get_close_matches(value, allowed, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else "."
            yield f"{place}: unknown {value!r}{guess} Known: {', '.join(allowed)}."
    if not values or len(set(values)) != len(values):
        yield f"{place} names each of its values once, and at least one of {', '.join(allowed)}"
