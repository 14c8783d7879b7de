"""Entries for the pages' tests: real attacks on embedded tasks, scored by the boards' own functions."""

from __future__ import annotations

import datetime as dt
import hashlib
from functools import lru_cache
from pathlib import Path

from advgym.core.clean import assigned
from advgym.core.task import make_task
from advgym.judge.contract import CONTRACT
from advgym.judge.results import Result
from advgym.judge.run import attack
from advgym.leaderboards.entries.entry import Entry, Rows, RowSet, canonical
from advgym.leaderboards.rules.board import board_hash
from advgym.leaderboards.rules.board_tables import Board, BoardTask, Defended, Phase
from advgym.leaderboards.scoring import task_scores
from advgym.leaderboards.store.record import write_entry
from advgym.lib.machine import versions

FEW = (("image/digits-linf", 60), ("graph/sbm-edge", 40))
MANY = (
    ("image/digits-linf", 200), ("image/digits-pixel", 200), ("text/synth-wordswap", 100),
    ("graph/sbm-edge", 100), ("speech/synth-keyword", 100),
)  # fmt: skip
# (name, team, agent for fields, agent for edits, title)
FEW_PLAYERS = (
    ("evolve", "Kestrel", "genetic", "genetic", "Evolution with crossover"),
    ("squares", "North Shore", "square", "", "Random windows"),
    ("control", "", "noise", "noise", "One random perturbation"),
)
MANY_PLAYERS = (
    *FEW_PLAYERS,
    ("importance-first", "Kestrel", "", "greedy", "Sites in the order of their importance"),
    ("mixed-doubles", "Ada & Grace", "square", "greedy", "A window search for fields, importance for edits"),
    ("patience", "Slow Science", "random-search", "random-search", "Independent draws"),
    ("yes-or-no", "Slow Science", "decision-search", "decision-search", "From the label alone"),
)
MEASURED = (("text/synth-wordswap", 40), ("text/synth-charswap", 40), ("graph/sbm-edge", 40))
DEFENSES = (("quantised", "Fjord", "bit-depth", "image"), ("one-of-each", "Fjord", "merge-synonyms", "text"))


def board(tasks=FEW, samples: int = 8, seeds: int = 2) -> Board:
    day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    rows = [BoardTask(id=name, knowledge="score", queries=queries) for name, queries in tasks]
    phases = {
        "dev": Phase(samples=samples, source="split:test", seeds=seeds),
        "final": Phase(samples=samples, source="generator", seeds=5),
    }
    return Board(
        title="Small victims, four domains", opens=day, closes=dt.datetime(2027, 1, 1, tzinfo=dt.UTC), tasks=rows,
        phases=phases, name="showcase", defense=Defended(panel=["square", "genetic"], floor=0.9),
        summary="Score-based attacks on the embedded victims: few queries, tight constraints.",
    )  # fmt: skip


def row_set(result: Result, name: str = "") -> RowSet:
    return RowSet(
        task=result.task, attack=name, seed=result.seed, split=result.split, options=result.options,
        samples=result.samples,
    )  # fmt: skip


def facts(task: str, result: Result, queries: int, seeds: list[int], **more) -> task_scores.Facts:
    ids = assigned(make_task(task).sizes["test"], result.episodes)
    return task_scores.Facts(
        task=task, knowledge=str(result.threat["knowledge"]), split="test", queries=queries, gradients=10**6,
        assigned=ids, right=[s.id for s in result.samples], seeds=seeds, clean_accuracy=result.clean_accuracy,
        control_rate=result.control_rate, victim=str(result.victim.get("weights", "")),
        bars={name: c.bar for name, c in result.columns.items() if c.bar is not None},
        columns_about=result.columns_about, **more,
    )  # fmt: skip


def attack_entry(of: Board, player: tuple[str, str, str, str, str], created: str) -> tuple[Entry, Rows]:
    """A real attack on every task of the board that the player's agents play."""
    name, team, field, edits, title = player
    phase, sets, scores = of.phases["dev"], [], []
    for row in of.tasks:
        task = make_task(row.id)
        agent = {"field": field, "edits": edits}[task.samples("test", [0], "cpu").kind]
        seeds = list(range(phase.seeds))
        runs = [
            attack(row.id, agent, episodes=phase.samples, queries=row.queries, knowledge=row.knowledge, seed=s)
            for s in (seeds if agent else [0])
        ] if agent else [attack(row.id, "noise", episodes=phase.samples, queries=1, knowledge="score")]  # fmt: skip
        given = [row_set(r) for r in runs] if agent else []
        sets += given
        scores.append(task_scores.score_task(given, facts(row.id, runs[0], row.queries, seeds)))
    head = task_scores.headline_attack(of, scores)
    return _entry(of, "attack", name, team, title, scores, sets, head, created)


def defense_entry(of: Board, player: tuple[str, str, str, str], created: str) -> tuple[Entry, Rows]:
    """A real defense against the board's panel, on the tasks of its domain."""
    name, team, defense, domain = player
    phase, sets, scores = of.phases["dev"], [], []
    seeds = list(range(phase.seeds))
    for row in of.tasks:
        kind = make_task(row.id).samples("test", [0], "cpu").kind
        mine = row.id.startswith(domain)
        for agent in ["genetic"] if kind == "edits" else of.defense.panel:
            runs = [
                attack(
                    row.id, agent, episodes=phase.samples, queries=row.queries, knowledge=row.knowledge, seed=s,
                    defenses=defense if mine else (),
                )
                for s in (seeds if mine else [0])
            ]  # fmt: skip
            given = [row_set(r, agent) for r in runs] if mine else []
            sets += given
            plain = facts(row.id, runs[0], row.queries, seeds, attack=agent, clean_undefended=runs[0].clean_accuracy)
            scores.append(task_scores.score_task(given, plain))
    head = task_scores.headline_defense(of, sets, scores, seeds)
    return _entry(of, "defense", name, team, f"{defense} in front of the victim", scores, sets, head, created)


def _entry(of, track, name, team, title, scores, sets, head, created):
    rows = Rows(sets=sets)
    sha = hashlib.sha256(name.encode()).hexdigest()
    entry = Entry(
        board=of.name, phase="dev", track=track, name=name, team=team, title=title, licence="MIT",
        kind=["field", "edits"], knowledge="score", origin="submission" if team else "baseline", submission=sha,
        code=sha[::-1], board_hash=board_hash(of), scorer=task_scores.scorer_hash(of), created=created,
        headline=head.interval, eligible=head.eligible, footnote=head.footnote, columns=head.columns, tasks=scores,
        rows=hashlib.sha256(canonical(rows)).hexdigest(), transcript=sha[5:] + sha[:5], sandbox="bwrap", device="cpu",
        versions=versions(), run_seeds=[11, 12], flags=head.flags, contract=CONTRACT,
    )  # fmt: skip
    return entry, rows


def fill(root: Path, of: Board, players=FEW_PLAYERS, defenses=()) -> list[Entry]:
    """Entries of a board in the record, as a server keeps them."""
    made = [attack_entry(of, p, f"2026-11-{3 + i:02d}T09:30:00Z") for i, p in enumerate(players)]
    made += [defense_entry(of, p, f"2026-11-{12 + i:02d}T17:05:00Z") for i, p in enumerate(defenses)]
    for entry, rows in made:
        write_entry(root, entry, rows)
    return [entry for entry, _ in made]


@lru_cache(maxsize=1)
def few() -> list[tuple[Entry, Rows]]:
    """Four entries of a small board; the attacks are run once for all tests of a process."""
    of = board()
    made = [attack_entry(of, p, f"2026-11-{3 + i:02d}T09:30:00Z") for i, p in enumerate(FEW_PLAYERS)]
    return [*made, defense_entry(of, DEFENSES[0], "2026-11-12T17:05:00Z")]
