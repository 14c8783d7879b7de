"""One submission on one phase of a board: its shards, its scores, its entry."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec

from advgym.core.offers import fits
from advgym.judge import results
from advgym.judge.contract import CONTRACT
from advgym.leaderboards.boundary.fault import Fault
from advgym.leaderboards.boundary.guard import DefenseFailed
from advgym.leaderboards.entries.card import Card, code_hash, folder_hash
from advgym.leaderboards.entries.entry import Entry, Rows, RowSet, canonical
from advgym.leaderboards.rules.board import board_hash
from advgym.leaderboards.rules.phases import PhaseTask
from advgym.leaderboards.runs.contestant import LOADING, Played
from advgym.leaderboards.runs.engines import Engine, local
from advgym.leaderboards.runs.facts import measure
from advgym.leaderboards.runs.shards import Runner, Shard, ShardRun, against, plan
from advgym.leaderboards.runs.stage import Stage
from advgym.leaderboards.scoring.headline import headline_attack, headline_defense
from advgym.leaderboards.scoring.outcome import Facts
from advgym.leaderboards.scoring.scorer import scorer_hash
from advgym.leaderboards.scoring.task_scores import score_task
from advgym.lib import machine

LATE = "job-limit"
HOPELESS = 2  # shards that fail in a row, without one success, before the rest is left
Progress = Callable[[int, int], None]  # (shards done, of how many)


class Ground(msgspec.Struct, frozen=True):
    """What is settled of a submission before any shard: its seeds, the shard plan, the facts of each task.

    Attributes:
        played: (index of a task, attack of the panel or "") of all that is run.
    """

    seeds: list[int]
    played: list[tuple[int, str]]
    shards: list[Shard]
    facts: list[Facts]


class Failure(Exception):
    """The submission cannot be scored, by its own fault.

    Attributes:
        fault: what happened; code, detail: of reasons.toml; first, last: of its output.
    """

    def __init__(self, fault: Fault, first: bytes = b"", last: bytes = b"") -> None:
        super().__init__(f"{fault.code}: {fault.said()}")
        self.fault, self.code, self.detail, self.first, self.last = fault, fault.code, fault.said(), first, last


def evaluate(
    runner: Runner, *, created: str, engine: Engine = local, progress: Progress | None = None
) -> tuple[Entry, Rows]:
    """Run and score a submission.

    Args:
        created: when, as an ISO date-time.

    Raises:
        Failure: when the submission is to blame. Anything else is the platform's fault.
    """
    with closing(runner):
        runner.until = time.monotonic() + runner.stage.board.limits.job_s
        ground = settle_ground(runner)
        runs: list[ShardRun] = []
        for run in engine(ground.shards, runner):
            runs.append(run)
            _give_up(runs)
            if run.reason == LATE or time.monotonic() > runner.until:
                raise _failure(late(run, runner))
            if progress:
                progress(len(runs), len(ground.shards))
        if runs and all(_lost(r) for r in runs):
            raise _failure(runs[0])
        return make_entry(runner, ground, runs, created)


def settle_ground(runner: Runner) -> Ground:
    """Seeds, facts and shards of a submission; a defense is asked about the clean samples first."""
    stage, card = runner.stage, runner.card
    lanes = stage.board.shards.lanes
    seeds = stage.seeds(folder_hash(runner.folder, size_mb=stage.board.limits.size_mb))
    plain = [msgspec.structs.replace(f, seeds=seeds) for f in stage.facts]
    if card.track == "attack":
        covered = stage.covered(card.kinds, card.knowledge)
        if not any(covered):
            raise Failure(Fault(code="wrong-track", text=_uncovered(stage, card)))
        right = [f.right if c else [] for f, c in zip(plain, covered, strict=True)]
        played = [(n, "") for n, mine in enumerate(right) if mine]
        return Ground(seeds, played, plan(lanes, right, [[""]] * len(right), seeds), plain)
    facts: list[Facts] = []
    right, attacks = [], []
    for here, base in zip(stage.tasks, plain, strict=True):
        able = [a for a in stage.panel if fits(runner.agent(a, here), here.task)]
        found = _measure_defended(runner, here, base, able)
        facts += found
        right.append(found[0].right if found else [])
        attacks.append(able)
    played = [(n, attack) for n, able in enumerate(attacks) for attack in able]
    return Ground(seeds, played, plan(lanes, right, attacks, seeds), facts)


def _uncovered(stage: Stage, card: Card) -> str:
    """Why no task of the board is one for this attack."""
    tasks = ", ".join(
        f"{t.row.id} ({kind}, {t.task.threat.knowledge})" for t, kind in zip(stage.tasks, stage.kinds, strict=True)
    )
    return f"the card says kind {' and '.join(card.kinds)} and knowledge {card.knowledge}; the board has {tasks}"


def _measure_defended(runner: Runner, here: PhaseTask, base: Facts, attacks: list[str]) -> list[Facts]:
    """The facts of a defended task, for each attack of the panel."""
    played = Played()
    try:
        with runner.defended(here, played) as task:
            one = measure(
                task, here.split, here.ids, base.seeds, device=runner.stage.device, undefended=base.clean_accuracy,
                victim=base.victim,
            )  # fmt: skip
            told = [against(task, here.task.victim, runner.agent(a, here)).threat.knowledge for a in attacks]
    except DefenseFailed:
        ended = played.ended
        log = (ended.stderr_first, ended.stderr_last) if ended else ()
        raise Failure(played.fault, *log) from None
    return [msgspec.structs.replace(one, attack=a, knowledge=k) for a, k in zip(attacks, told, strict=True)]


def _give_up(runs: list[ShardRun]) -> None:
    """Stop a submission that no further shard would save; decided in the plan's order, whoever ran them."""
    if runs[0].reason in LOADING or (len(runs) == HOPELESS and all(_lost(r) for r in runs)):
        raise _failure(runs[0])


def _lost(run: ShardRun) -> bool:
    """A shard that failed before it did anything."""
    return bool(run.reason) and all(s.reason == run.reason for s in run.samples)


def _failure(run: ShardRun) -> Failure:
    return Failure(run.fault, run.first, run.last)


def late(run: ShardRun, runner: Runner) -> ShardRun:
    """The shard in which the job's time ran out."""
    allowed = f"{runner.stage.board.limits.job_s:g} s allowed"
    return msgspec.structs.replace(run, fault=Fault(code=LATE, text=allowed, dealt=True))


def make_entry(runner: Runner, ground: Ground, runs: list[ShardRun], created: str) -> tuple[Entry, Rows]:
    """The entry and its rows."""
    card, stage = runner.card, runner.stage
    board = stage.board
    sets = list(_row_sets(ground, runs, stage.tasks))
    scores = [score_task([s for s in sets if (s.task, s.attack) == (f.task, f.attack)], f) for f in ground.facts]
    head = (
        headline_attack(board, scores)
        if card.track == "attack"
        else headline_defense(board, sets, scores, ground.seeds)
    )
    rows = Rows(sets=sets)
    runner.log = logs(ground, runs, stage.tasks)
    size = board.limits.size_mb
    entry = Entry(
        board=board.name, phase=stage.phase, track=card.track, name=card.name, team=card.team, title=card.title,
        licence=card.licence, kind=list(card.kinds), knowledge=card.knowledge, proposals=card.proposals,
        submission=folder_hash(runner.folder, size_mb=size), code=code_hash(runner.folder, size_mb=size),
        board_hash=board_hash(board), scorer=scorer_hash(board), created=created, headline=head.interval,
        eligible=head.eligible, footnote=head.footnote, columns=head.columns, tasks=scores,
        rows=hashlib.sha256(canonical(rows)).hexdigest(), transcript=transcript(runs), sandbox=runner.level,
        device=machine.device_name(stage.device), versions=machine.versions(), run_seeds=ground.seeds,
        flags=[*head.flags, *_failed_flags(runs)], contract=CONTRACT,
    )  # fmt: skip
    return entry, rows


def _row_sets(ground: Ground, runs: list[ShardRun], tasks: list[PhaseTask]) -> Iterator[RowSet]:
    """The judged samples of each (task, attack, seed); none where the victim has no sample right."""
    found: dict[tuple[int, str, int], list[results.Sample]] = {
        (*pair, seed): [] for pair in ground.played for seed in ground.seeds
    }
    for shard, run in zip(ground.shards, runs, strict=True):
        found[shard.task, shard.attack, shard.seed].extend(run.samples)
    for (task, attack, seed), samples in found.items():
        here = tasks[task]
        yield RowSet(
            task=here.row.id, attack=attack, seed=seed, split=here.split, options=dict(here.options), samples=samples
        )


def logs(ground: Ground, runs: list[ShardRun], tasks: list[PhaseTask]) -> str:
    """What the shards that failed said, for the submission's author; "" where none did."""
    said = []
    for shard, run in zip(ground.shards, runs, strict=True):
        if run.reason:
            where = f"shard {shard.number + 1}, {tasks[shard.task].row.id}{f' ({shard.attack})' * bool(shard.attack)}"
            said.append(f"{where}: {run.reason}: {run.fault.said()}\n{written(run.first, run.last)}".rstrip())
    return "\n\n".join(said)


def written(first: bytes, last: bytes) -> str:
    """The head and the tail of what a submission wrote."""
    head, tail = (part.decode("utf-8", "replace") for part in (first, last))
    return head if not tail or tail == head or head.endswith(tail) else f"{head}\n[...]\n{tail}"


def transcript(runs: list[ShardRun]) -> str:
    """SHA-256 over the shards' transcripts, in the plan's order."""
    return hashlib.sha256("\n".join(r.transcript for r in runs).encode()).hexdigest()


def _failed_flags(runs: list[ShardRun]) -> list[str]:
    """One flag for every reason that shards failed for."""
    reasons = [r.reason for r in runs if r.reason]
    return [f"{reasons.count(code)} of {len(runs)} shards failed: {code}" for code in dict.fromkeys(reasons)]
