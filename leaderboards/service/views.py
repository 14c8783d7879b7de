"""The figures of a board's page, from its entries: heat map, curves, tiles, flags. No HTML but the curves' SVG."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from advgym.leaderboards.entries.entry import Entry, Interval, Measured, TaskScore
from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.scoring.intervals import rate_interval
from advgym.leaderboards.service.shelf import Book, Placed
from advgym.report.matrix import CONTROL, Cell, Group, Matrix, Row, domains_of
from advgym.report.svg import DASHES, SLOTS, Line, figure

PER_PAGE = 100  # entries of a ranking
HEAT = 20  # of them in the heat map
DRAWN = 6  # in a figure
COLUMNS = 8  # defenses in the heat map
NAMED = 16  # characters of a name inside a figure


@dataclass
class Linked(Row):
    """A row of the heat map whose header leads to an entry."""

    entry: str = ""
    rank: str = ""


@dataclass
class Figure:
    """Curves of one task: the SVG, its legend (line, per cent, interval), and the same numbers as a table."""

    task: str
    svg: str
    legend: list[tuple[Line, str, str]]
    grid: list[int]
    rows: list[tuple[str, list[str]]] = field(default_factory=list)


def place(p: Placed) -> str:
    """A rank as the table shows it; "=" for a shared one."""
    return "–" if p.rank is None else f"{p.rank}{'=' if p.tied else ''}"


def team_path(team: str) -> str:
    """Where a team's page is: its name as far as an address can hold it, and a digest, for names are free.

    >>> team_path("Kestrel"), team_path("../Ødegård & co") != team_path("../degrd-co")
    ('/teams/kestrel-b48cde19', True)
    """
    plain = re.sub(r"[^a-z0-9]+", "-", team.lower()).strip("-")[:40]
    return f"/teams/{plain or 'team'}-{hashlib.sha256(team.encode()).hexdigest()[:8]}"


def lowered(entry: Entry) -> bool:
    """Whether a dispute lowered it, or one of the versions before it."""
    return entry.disputes > 0


def beside(entry: Entry) -> Interval | None:
    """The headline of valid successes alone, where the entry's tasks have a bar."""
    name = "valid_success" if entry.track == "attack" else "valid_robust"
    found = [entry.columns.get(key) for key in (name, f"{name}_low", f"{name}_high")]
    value, low, high = found
    return None if value is None or low is None or high is None else Interval(value, low, high)


def measured(entry: Entry) -> list[tuple[TaskScore, list[tuple[str, Measured]]]]:
    """(score, its columns, those with a bar first) of what was measured besides success."""
    return [
        (s, sorted(s.columns.items(), key=lambda item: (item[1].bar is None, item[0])))
        for s in entry.tasks
        if s.columns
    ]


def made_with(entry: Entry) -> list[str]:
    """What columns are made with, beyond the task and its samples, each said once."""
    found = [f"{name}: {what}." for s in entry.tasks if s.columns_about for name, what in s.columns_about.items()]
    return list(dict.fromkeys(found))


def worst(entry: Entry, task: str) -> TaskScore | None:
    """Of the scores on a task the one with the most success: the strongest attack, on the defense track."""
    some = [s for s in entry.tasks if s.task == task and s.status == "scored"]
    return max(some, key=lambda s: s.success.value, default=None)


def cell(score: TaskScore | None, name: str) -> Cell | str:
    """One task of an entry in the heat map."""
    if score is None or score.status != "scored":
        return "not attempted"
    marks = "†" if score.attacked and score.success.value <= score.control_rate else ""  # 0: not told
    ci = score.success
    ref = spot(score.task, score.attack or "")
    return Cell(ci.value, score.queries_median, ci.low, ci.high, score.attacked, marks, name, ref)


def spot(task: str, attack: str = "") -> str:
    """Where on an entry's page a score stands."""
    return "on-" + re.sub(r"[^A-Za-z0-9]+", "-", f"{task} {attack}").strip("-")


def spots(entry: Entry) -> list[str]:
    """Of each score of an entry; "" for one that would stand where another does."""
    seen: dict[str, int] = {}
    for i, s in enumerate(entry.tasks):
        seen.setdefault(spot(s.task, s.attack or ""), i)
    return [
        name if seen[name] == i else "" for i, s in enumerate(entry.tasks) for name in [spot(s.task, s.attack or "")]
    ]


def heat_attack(board: Board, table: Sequence[Placed]) -> Matrix:
    """A row per entry, in the ranking's order; a column per task; the random control below."""
    domains = domains_of(t.id for t in board.tasks)
    names = [t.id for d in domains for t in board.tasks if t.id.split("/")[0] == d]
    rows: list[Row] = [
        Linked(p.entry.name, [cell(worst(p.entry, n), p.entry.name) for n in names], p.id, place(p))
        for p in table[:HEAT]
    ]
    caption = "Success rate in per cent of the samples attacked, and the median number of queries (q)"
    foot = [Row("random control", [_control(table, name) for name in names])]
    spans = [(d, sum(n.split("/")[0] == d for n in names)) for d in domains]
    return Matrix(caption, names, [Group("", rows)], spans, foot)


def _control(table: Sequence[Placed], task: str) -> str | None:
    rates = [s.control_rate for p in table for s in p.entry.tasks if s.task == task and s.attacked]
    return f"{100 * max(rates):.0f}" if rates else None


def heat_defense(board: Board, table: Sequence[Placed]) -> tuple[Matrix, list[Placed]]:
    """A row per attack of the panel and task, a column per defense; what each defense costs below."""
    shown = list(table[:COLUMNS])
    groups, foot = [], []
    for task in [t.id for t in board.tasks]:
        by = [{s.attack: s for s in p.entry.tasks if s.task == task and s.status == "scored"} for p in shown]
        attacks = list(dict.fromkeys(a for scores in by for a in scores))
        if not attacks:
            continue
        pairs = list(zip(by, shown, strict=True))
        rows = [Row(a, [cell(scores.get(a), f"{a} against {p.entry.name}") for scores, p in pairs]) for a in attacks]
        groups.append(Group(task, rows))
        firsts = [next(iter(scores.values()), None) for scores in by]
        foot.append(Row(f"clean, {task.split('/')[-1]}", [_percent(s and s.clean_accuracy) for s in firsts]))
    caption = "Success rate in per cent of the panel's attacks (rows) against defenses (columns)"
    return Matrix(caption, [p.entry.name for p in shown], groups, foot=foot), shown


def _percent(value: Any) -> str | None:
    return None if value is None else f"{100 * value:.0f}"


def figures(board: Board, table: Sequence[Placed], track: str) -> list[Figure]:
    """Success against queries on every task, the first entries of the ranking that attempted it."""
    slots = {p.id: i for i, p in enumerate(table)}
    out = []
    for task in board.tasks:
        some = [(p, s) for p in table if (s := worst(p.entry, task.id)) is not None and s.curve][:DRAWN]
        if some:
            lines = [_line(s, p.entry.name, p.entry, slots[p.id]) for p, s in some]
            label = [p.entry.name if track == "attack" else f"{p.entry.name} ({s.attack})" for p, s in some]
            out.append(_figure(task.id, lines, label, [s for _, s in some]))
    return out


def own_figures(entry: Entry) -> list[Figure]:
    """The curves of one entry: all its tasks together, or a figure per task with the panel's attacks."""
    drawn = [s for s in entry.tasks if s.curve]
    if entry.track == "attack":
        parts = [drawn[i : i + SLOTS] for i in range(0, len(drawn), SLOTS)]
        return [_own(entry, "all tasks" if len(parts) == 1 else f"tasks, part {i}", p) for i, p in enumerate(parts, 1)]
    return [_own(entry, task, [s for s in drawn if s.task == task]) for task in dict.fromkeys(s.task for s in drawn)]


def _own(entry: Entry, title: str, scores: list[TaskScore]) -> Figure:
    names = [s.attack or s.task for s in scores]
    lines = [_line(s, name.split("/")[-1], entry, i) for i, (s, name) in enumerate(zip(scores, names, strict=True))]
    return _figure(title, lines, names, scores)


def _line(score: TaskScore, name: str, entry: Entry, slot: int) -> Line:
    points = []
    for q, rate in score.curve:
        ci = rate_interval(rate, score.attacked)
        points.append((max(q, 1), rate, ci.low, ci.high))
    needs = entry.knowledge if not score.attack and entry.knowledge in DASHES else score.knowledge
    short = name if len(name) <= NAMED else name[: NAMED - 1] + "…"
    return Line(short, needs, slot, points, name == CONTROL)


def _figure(task: str, lines: list[Line], names: list[str], scores: list[TaskScore]) -> Figure:
    grid = sorted({q for s in scores for q, _ in s.curve})
    legend = [
        (line, f"{100 * s.success.value:.0f}", f"{100 * s.success.low:.0f}–{100 * s.success.high:.0f}")
        for line, s in zip(lines, scores, strict=True)
    ]
    rows = []
    for name, s in zip(names, scores, strict=True):
        at = dict(s.curve)
        rows.append((name, [f"{100 * at[q]:.0f}" if q in at else "–" for q in grid]))
    return Figure(task, figure(lines, task), legend, grid, rows)


def tiles(book: Book, table: Sequence[Placed], track: str) -> list[tuple[str, str]]:
    """(figure, what it counts) of one phase and track."""
    ranked = [p for p in table if p.rank is not None]
    teams = {p.entry.team for p in table if p.entry.team}
    best = f"{100 * ranked[0].entry.headline.low:.1f} %" if ranked else "–"
    control = [s.control_rate for p in table for s in p.entry.tasks if s.status == "scored" and s.attacked]
    out = [
        (f"{len(table):,}", "entry" if len(table) == 1 else "entries"),
        (f"{len(teams):,}", "team" if len(teams) == 1 else "teams"),
        (f"{len(book.board.tasks)}", "task" if len(book.board.tasks) == 1 else "tasks"),
        (best, "best lower bound"),
    ]
    if track == "attack" and control:
        out.append((f"{100 * sum(control) / len(control):.1f} %", "random control"))
    return out


def flags(table: Sequence[Placed], most: int = 40) -> list[tuple[Placed, str]]:
    """(entry, what to know of it), in the ranking's order."""
    found = []
    for p in table:
        notes = [p.entry.footnote] if p.entry.footnote else []
        found += [(p, note) for note in [*notes, *p.entry.flags]]
    return found[:most]
