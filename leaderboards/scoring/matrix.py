"""A board's scores of some attacks against some defenses, from their results: for an author's own machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from advgym.judge.results import Result
from advgym.leaderboards.entries.entry import Interval, RowSet, TaskScore
from advgym.leaderboards.scoring.headline import Headline, headline_attack, headline_defense
from advgym.leaderboards.scoring.outcome import Facts
from advgym.leaderboards.scoring.task_scores import score_task

if TYPE_CHECKING:
    from advgym.leaderboards.rules.board_tables import Board

FORMAT = "advgym-score/1"
NONE = "none"  # the victim without a defense

Ground = Mapping[tuple[str, str], Facts]  # (task, defense) -> facts


class Line(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One attack, or one defense, over the whole board."""

    name: str
    headline: Interval
    eligible: bool
    footnote: str
    columns: dict[str, float]
    flags: list[str]
    tasks: list[TaskScore]


class Scored(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What `advgym score` writes.

    Attributes:
        attacks: against the undefended victims, best first. defenses: against all the attacks given, best first;
            "none" is the undefended victim.
        missing: "agent on task (defense)" -> why it was not played.
        sandbox: "none": everything ran in the author's own process.
    """

    format: str = FORMAT
    board: str
    board_hash: str
    scorer: str
    phase: str
    seeds: list[int]
    attacks: list[Line]
    defenses: list[Line]
    missing: dict[str, str]
    device: str
    versions: dict[str, str]
    sandbox: str = "none"


def score_attacks(board: Board, results: Sequence[Result], facts: Ground, agents: Sequence[str]) -> list[Line]:
    """A line for each agent, from its results on the undefended victims; best first."""
    lines = []
    for agent in agents:
        mine = [r for r in results if r.agent == agent and r.defense == NONE]
        scores = [_score([r for r in mine if r.task == t.id], facts[t.id, NONE])[1] for t in board.tasks]
        lines.append(_line(agent, headline_attack(board, scores), scores))
    return _sorted(lines)


def score_defenses(
    board: Board, results: Sequence[Result], facts: Ground, agents: Sequence[str], guards: Sequence[str],
    seeds: Sequence[int],
) -> list[Line]:  # fmt: skip
    """A line for each defense, the worst case over the agents that played; best first. A gap in `facts` scores 0."""
    if "defense" not in board.tracks:
        return []
    lines = []
    for guard in guards:
        sets: list[RowSet] = []
        scores = []
        for task in board.tasks:
            here = [r for r in results if r.task == task.id and r.defense == guard]
            base = facts.get((task.id, guard)) or facts[task.id, NONE]
            played = [a for a in agents if any(r.agent == a for r in here)]
            for agent in played or agents[:1]:
                own, score = _score([r for r in here if r.agent == agent], base, agent)
                sets += own
                scores.append(score)
        lines.append(_line(guard, headline_defense(board, sets, scores, seeds), scores))
    return _sorted(lines)


def _score(results: Sequence[Result], facts: Facts, attack: str = "") -> tuple[list[RowSet], TaskScore]:
    """(rows, score) of one attack on one victim. Rows of clean samples that a detector rejects are left out."""
    right = set(facts.right)
    sets = [
        RowSet(task=r.task, attack=attack, seed=r.seed, split=r.split, options=r.options,
               samples=[s for s in r.samples if s.id in right])
        for r in results
    ]  # fmt: skip
    threat: dict[str, Any] = results[0].threat if results else {}
    told = {k: threat[k] for k in ("knowledge", "queries", "gradients") if k in threat}
    return sets, score_task(sets, msgspec.structs.replace(facts, attack=attack, **told))


def _line(name: str, head: Headline, scores: list[TaskScore]) -> Line:
    return Line(
        name=name, headline=head.interval, eligible=head.eligible, footnote=head.footnote, columns=head.columns,
        flags=head.flags, tasks=scores,
    )  # fmt: skip


def _sorted(lines: list[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: (not line.eligible, -line.headline.low, line.name))
