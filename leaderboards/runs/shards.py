"""The shard plan and one shard's run. Engines only place shards: what a shard gives depends on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from advgym import registry
from advgym.core.task import Task
from advgym.core.victim import Victim
from advgym.errors import AdvgymError
from advgym.judge.play import chunks, play
from advgym.judge.results import Sample
from advgym.judge.verdict import judge
from advgym.leaderboards.boundary.fault import Fault
from advgym.leaderboards.boundary.guard import DefenseFailed
from advgym.leaderboards.boundary.recorder import Recorder
from advgym.leaderboards.entries.card import Card
from advgym.leaderboards.rules.phases import PhaseTask
from advgym.leaderboards.rules.reasons import Refused
from advgym.leaderboards.runs.contestant import Contestant, Played, guarded
from advgym.leaderboards.runs.fresh import same_from_nothing
from advgym.leaderboards.runs.second_answer import check_rows
from advgym.leaderboards.runs.stage import TRANSFER, Stage
from advgym.leaderboards.sandbox import Box
from advgym.leaderboards.scoring.measured import measure_rows

PREPARE = "advgym.leaderboards.boundary.inside:prepare"
CRASHED = "attack-crashed"  # the reason of rows that an attack of ours did not finish, by the defense's doing
SHOWN = 4096  # bytes of a log's head and tail


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of one task's samples, one seed, and on the defense track one attack of the panel."""

    number: int
    task: int
    seed: int
    ids: list[int]
    attack: str = ""


class ShardRun(msgspec.Struct, kw_only=True):
    """What a shard gave. `fault` is empty where the submission came to its end."""

    number: int
    samples: list[Sample]
    fault: Fault = Fault()
    transcript: str = ""
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    first: bytes = b""
    last: bytes = b""

    @property
    def reason(self) -> str:
        """The reason code, "" for none."""
        return self.fault.code


def plan(lanes: int, right: list[list[int]], attacks: list[list[str]], seeds: list[int]) -> list[Shard]:
    """The shards of a submission, in the order that the transcript is taken in.

    Args:
        lanes: samples to a shard.
        right: of each task, the samples to attack, in the phase's order; empty where a task is not attempted.
        attacks: of each task, those of the panel on the defense track; [""] on the attack track.
    """
    parts = [
        (task, seed, attack, ids)
        for task, mine in enumerate(right)
        for attack in attacks[task]
        for seed in seeds
        for ids in chunks(mine, lanes)
    ]
    return [Shard(number=n, task=t, seed=s, attack=a, ids=ids) for n, (t, s, a, ids) in enumerate(parts)]


class Runner:
    """Runs the shards of one submission in one sandbox.

    Args:
        stage: the phase, warm.
        card, folder: the submission.
        take: gives a fresh sandbox; called with gpu=True where it has to have the GPU.
        rival: gives the agent of a panel's name.
        env: environment variables that a defense's side needs (where public data lies).
    """

    def __init__(
        self, stage: Stage, card: Card, folder: Path, take: Callable[..., Box], *,
        rival: Callable[[str], registry.Agent] = registry.agent, env: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.stage, self.card, self.folder, self.take = stage, card, folder, take
        self.rival, self.env = rival, env or {}
        self._box: Box | None = None
        self.level = ""
        self.until = float("inf")  # `time.monotonic()` at which the job is over
        self.log = ""  # what failed shards said, once all are done

    @property
    def box(self) -> Box:
        """This submission's sandbox.

        Raises:
            Refused: no-device.
        """
        if self._box is None:
            self._box = self.take(gpu=True) if self.device == "cuda" else self.take()
            self._box.assign(self.folder)
            self._box.prepare(PREPARE, *self._needs())
            self.level = self._box.level
        return self._box

    @property
    def device(self) -> str:
        """Where the submission computes, in its sandbox: "cuda" is the one GPU that it is given.

        Raises:
            Refused: no-device, where the board promises defenses a GPU and this worker has none.
        """
        given = self.stage.board.defense.device if self.card.track == "defense" else "cpu"
        if given == "cuda" and self.stage.device.type != "cuda":
            raise Refused("no-device", f"it runs on {self.stage.device}; its organiser starts it with --device cuda")
        return given

    def _needs(self) -> tuple[list[str], list[tuple[str, dict[str, Any]]], dict[str, str]]:
        """What the sandbox loads once: modules for an attack, whole tasks for a defense."""
        tasks = self.stage.tasks
        modules = {type(t.task.samples(t.split, t.ids[:1])).__module__ for t in tasks}
        guarded = [(t.row.id, _given(t)) for t in tasks] if self.card.track == "defense" else []
        return sorted(modules), guarded, self.env

    def close(self) -> None:
        """Destroy the sandbox."""
        if self._box is not None:
            self._box.close()
            self._box = None

    def run(self, shard: Shard) -> ShardRun:
        """One shard, from a fresh process of the submission."""
        return self._attack(shard) if self.card.track == "attack" else self._defend(shard)

    def _attack(self, shard: Shard) -> ShardRun:
        here = self.stage.tasks[shard.task]
        player = Contestant(self.box, self.stage.board.limits, self.card, partial(self._blame, shard), self.until)
        entry = registry.Agent(self.card.name, player.attack, self.card.kinds, self.card.knowledge, self.card.proposals)
        clean = self.stage.clean[shard.task]
        rows, error = play(here.task, entry, shard.ids, self.stage.device, shard.seed, here.split, {}, clean=clean)
        if error and not player.played.reason:  # what it returned is no perturbation: the last proposed counts
            player.played.fault = Fault(code="malformed", kind="Malformed", text=error[:300], dealt=True)
        elif player.played.reason:
            rows = [_failed(r, player.played.reason) if gone else r
                    for r, gone in zip(rows, player.played.unfinished.tolist(), strict=True)]  # fmt: skip
        return _told(shard, measure_rows(here.task, here.split, rows, self.stage.device), player.played)

    def _blame(self, shard: Shard, request: Any, error: Exception) -> bool:
        """Whether the platform is to blame for what a request raised."""
        stage = self.stage
        return same_from_nothing(
            stage.board, stage.phase, stage.root, str(stage.device), shard.task, shard.ids, shard.seed, request, error
        )

    def agent(self, attack: str, here: PhaseTask) -> registry.Agent:
        """An attack of the panel; the transfer one takes gradients where the undefended victim has any."""
        entry = self.rival(attack)
        if attack != TRANSFER or here.task.victim.access == "gradients":
            return entry
        kind = here.task.samples(here.split, here.ids[:1]).kind
        return replace(entry, attack=partial(entry.attack, inner={"field": "square", "edits": "greedy"}[kind]))

    def _defend(self, shard: Shard) -> ShardRun:
        here, played = self.stage.tasks[shard.task], Played()
        entry, device = self.agent(shard.attack, here), self.stage.device
        record = Recorder(self.stage.hidden_seed("recorded", shard.seed, shard.number))
        try:
            with self.defended(here, played, record) as task:
                task = against(task, here.task.victim, entry)
                rows, error = play(task, entry, shard.ids, device, shard.seed, here.split, {})
                if error and entry.origin:
                    rows = self._crashed(here, entry, shard, rows, error)
            first, played = played, Played()
            with self.defended(here, played) as task:
                again = self.stage.hidden_seed("asked again", shard.seed, shard.number)
                rows = check_rows(task, here.split, rows, record.kept, again, device)
            played.transcript = first.transcript + played.transcript
        except DefenseFailed:
            rows = broken(here, shard.ids, played.reason, device)
        return _told(shard, measure_rows(here.task, here.split, rows, device), played)

    def _crashed(
        self, here: PhaseTask, entry: registry.Agent, shard: Shard, rows: list[Sample], error: str
    ) -> list[Sample]:
        """The rows where an attack of ours crashed on a defense: what it did not finish counts as broken.

        Raises:
            AdvgymError: when it crashes on the undefended victim, too: then it is our own fault.
        """
        plain = against(here.task, here.task.victim, entry)
        own = play(plain, entry, shard.ids, self.stage.device, shard.seed, here.split, {})[1]
        if own:
            raise AdvgymError(f"the panel's {entry.name} crashes on {here.row.id} undefended: {own}")
        return [
            msgspec.structs.replace(r, success=True, first_success=max(r.first_success, 0), reason=CRASHED)
            if r.reason == "crashed" and not r.success
            else r
            for r in rows
        ]

    def defended(self, here: PhaseTask, played: Played, record: Recorder | None = None) -> AbstractContextManager[Task]:
        """The task behind the submitted defense."""
        return guarded(
            self.box, self.stage.board.limits, here.task, _given(here), self.env, played, device=self.device,
            record=record, until=self.until,
        )  # fmt: skip


def _given(here: PhaseTask) -> dict[str, Any]:
    """What `make_task` is told in the sandbox: the public options, without the mark that the data is hidden."""
    return {k: v for k, v in here.options.items() if k != "own"}


def against(task: Task, plain: Victim, entry: registry.Agent) -> Task:
    """The defended task as an attack of the panel plays it: with the knowledge that it needs.

    The evaluator owns the victim, so the panel is not bound by what the board tells participants. A defense that gives
    no gradients does not escape those attacks: they take them from the undefended victim, and transfer.
    """
    order = registry.KNOWLEDGE.index
    able = {"labels": "decision", "scores": "score", "gradients": "white-box"}[task.victim.access]
    if entry.knowledge != "transfer" and order(entry.knowledge) <= order(able):
        return replace(task, threat=replace(task.threat, knowledge=entry.knowledge))
    return replace(task, threat=replace(task.threat, knowledge="transfer"), surrogate=plain)


def _failed(row: Sample, reason: str) -> Sample:
    """A sample whose episode the submission did not finish."""
    return msgspec.structs.replace(row, success=False, first_success=-1, reason=reason)


def broken(here: PhaseTask, ids: list[int], reason: str, device: Any) -> list[Sample]:
    """Samples that a defense did not answer for: each counts as attacked with success, by the clean input."""
    found = judge(here.task, here.split, ids, [None] * len(ids), device=device)
    batch = here.task.samples(here.split, ids, device)
    form = batch.look(batch.null()).form
    return [
        Sample(
            id=i, label=found.labels[n].tolist(), before=found.before[n].tolist(), after=found.after[n].tolist(),
            success=True, valid=True, objective=0.0, queries=0, queries_distinct=0, first_success=0, gradients=0,
            distance=0.0, reason=reason, perturbation=batch.dump(form[n], n),
        )
        for n, i in enumerate(ids)
    ]  # fmt: skip


def _told(shard: Shard, rows: list[Sample], played: Played) -> ShardRun:
    run = ShardRun(number=shard.number, samples=rows, fault=played.fault, transcript=played.transcript)
    ended = played.ended
    if ended is not None:
        run.cpu_s, run.peak_mb = ended.cpu_s, ended.peak_mb
        run.first, run.last = ended.stderr_first[:SHOWN], ended.stderr_last[-SHOWN:]
    return run
