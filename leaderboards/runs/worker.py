"""A worker: claims jobs, runs them in its sandboxes, writes what they gave into the record."""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import threading
import traceback
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec

from advgym.errors import VictimError
from advgym.leaderboards.boundary.fault import known
from advgym.leaderboards.rules.board import told_step
from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.rules.reasons import Refused
from advgym.leaderboards.runs.engines import Engine, local
from advgym.leaderboards.runs.evaluate import Failure, evaluate, written
from advgym.leaderboards.runs.rivals import Rivals, unpacked
from advgym.leaderboards.runs.shards import Runner
from advgym.leaderboards.runs.stage import Stage
from advgym.leaderboards.sandbox import SandboxError, Spares
from advgym.leaderboards.sandbox.workfolder import WorkFolder
from advgym.leaderboards.store import artefacts, jobs, rebuild, record
from advgym.leaderboards.store.db import Store

log = logging.getLogger("advgym")
POLL_S = 0.2
DISPUTE = "dispute"  # the track of a job that judges perturbations
# Refusals that follow from the archive and the board alone: they tell nothing of hidden samples.
FIXED = (
    "empty-submission", "too-large", "bad-archive", "bad-card", "wrong-track", "too-much-knowledge", "phase-closed",
    "no-device",
)  # fmt: skip


class Taken(Exception):
    """The job is not this worker's any more: it was cancelled, or its lease ran out."""


class Worker:
    """One process of the service.

    Args:
        store, root: the queue and the data folder.
        boards: by name.
        name: told to the organiser.
        device: of the victims, which stay loaded.
        level: of the sandbox; "unsandboxed" must be asked for.
        lease_s, beat_s: seconds that a job is held for without a word, and between words.
        engine: places shards.
    """

    def __init__(
        self, store: Store, root: Path, boards: Mapping[str, Board], *, name: str, device: str = "cpu",
        level: str | None = None, lease_s: float = 60.0, beat_s: float = 10.0, engine: Engine = local,
    ) -> None:  # fmt: skip
        self.store, self.root, self.boards, self.name, self.device = store, root, boards, name, device
        self.lease_s, self.beat_s, self.engine = lease_s, beat_s, engine
        self.spares = Spares(1, level)
        self.level = level
        self.stages: dict[tuple[str, str], Stage] = {}
        self.stop = threading.Event()

    def run(self) -> None:
        """Claim and run jobs until `stop` is set; a job that is then running goes back to the queue."""
        try:
            while not self.stop.is_set():
                if not self.one():
                    self.stop.wait(POLL_S)
        finally:
            self.spares.close()

    def one(self) -> bool:
        """Run the oldest job; False where there is none."""
        job = jobs.claim(self.store, self.name, self.lease_s)
        if job is None:
            return False
        with Beat(self, job) as beat:
            try:
                self._run(job, beat)
            except Taken:
                log.warning("job %s was taken from %s", job.id, self.name)
            except Failure as failure:
                text = written(failure.first, failure.last)
                if job.hidden:  # its author reads the whole when the phase closes
                    text = f"{failure.code}: {failure.detail}\n{text}".rstrip()
                detail = failure.fault.told() if job.hidden else failure.detail
                jobs.fail(self.store, job, self.name, failure.code, detail, text)
            except Refused as refusal:
                secret = job.hidden and refusal.code not in FIXED
                jobs.fail(self.store, job, self.name, refusal.code, "" if secret else refusal.detail)
            except KeyboardInterrupt:
                jobs.release(self.store, job, self.name)
                raise
            except Exception as error:
                log.error("job %s: %s", job.id, traceback.format_exc())
                codes: dict[type[Exception], str] = {VictimError: "victim-error", SandboxError: "sandbox-error"}
                code = codes.get(type(error), "internal-error")
                jobs.fail(self.store, job, self.name, code, known(type(error).__name__))
        return True

    def _run(self, job: jobs.Job, beat: Beat) -> None:
        found = record.recorded(self.root, job.id)  # a worker may have died between its entry and its last word
        log = ""
        if not found:
            data = artefacts.get(self.root, job.blob)
            if job.track == DISPUTE:
                found = self._dispute(job, data, beat)
            else:
                found, log = self._score(job, data, beat)
        rebuild.refresh(self.store, self.root)
        jobs.finish(self.store, job, self.name, found, log)
        self._draw(found)

    def _draw(self, id: str) -> None:
        """Pictures of an entry's examples, for its page; an entry without them is an entry all the same."""
        from advgym.leaderboards.service.show import draw

        try:
            entry = record.read_entry(self.root, id)
            if entry is not None:
                tasks = {t.row.id: t.task for t in self.stage(entry.board, entry.phase).tasks}
                draw(self.root, id, entry, record.read_rows(self.root, entry), tasks)
        except Exception:
            log.warning("no examples of %s: %s", id, traceback.format_exc(limit=2))

    def stage(self, board: str, phase: str) -> Stage:
        """The phase, loaded once."""
        key = (board, phase)
        if key not in self.stages:
            if board not in self.boards:
                raise Refused("phase-closed", f"this server has no board {board!r} any more")
            self.stages[key] = Stage(self.boards[board], phase, self.root, self.device)
        return self.stages[key]

    def _score(self, job: jobs.Job, data: bytes, beat: Beat) -> tuple[str, str]:
        """(id of the entry, what failed shards wrote)."""
        stage = self.stage(job.board, job.phase)
        with (
            WorkFolder("job") as scratch,
            Rivals(stage, self.root, self.spares.take) as rivals,
        ):
            runner = self._runner(stage, scratch / "submission", data, rivals)
            entry, rows = evaluate(runner, created=now(), engine=self.engine, progress=beat.progress)
        entry = msgspec.structs.replace(entry, team=job.team)
        beat.check()
        step = told_step(stage.board) if job.hidden else 0
        return record.write_entry(self.root, entry, rows, job.id, step_s=step), runner.log

    def _runner(self, stage: Stage, folder: Path, data: bytes, rivals: Rivals) -> Runner:
        card = unpacked(data, folder, stage.board)
        return Runner(stage, card, folder, self.spares.take, rival=rivals)

    def _dispute(self, job: jobs.Job, data: bytes, beat: Beat) -> str:
        """Judge what was handed in against a defense, on that defense, and lower its entry."""
        from advgym.judge.results import Result
        from advgym.leaderboards.entries.dispute import lower
        from advgym.leaderboards.runs.contestant import Played

        entry = record.read_entry(self.root, str(job.card["against"]))
        if entry is None:
            raise Refused("not-disputable", f"there is no entry {job.card['against']}")
        stage = self.stage(entry.board, entry.phase)
        result = msgspec.json.decode(data, type=Result)
        here = next(t for t in stage.tasks if t.row.id == result.task)
        archive = artefacts.get(self.root, entry.submission)
        with ExitStack() as open_:
            scratch = open_.enter_context(WorkFolder("job"))
            rivals = open_.enter_context(Rivals(stage, self.root, self.spares.take))
            runner = open_.enter_context(closing(self._runner(stage, scratch / "submission", archive, rivals)))
            while True:
                rows, seed = record.read_rows(self.root, entry), secrets.randbits(48)
                lowered, kept = lower(
                    entry, rows, result, stage.board, here.task, seed=seed, created=now(), device=stage.device,
                    behind=lambda: runner.defended(here, Played()),
                )  # fmt: skip
                beat.check()
                try:
                    return record.write_entry(self.root, lowered, kept, job.id)
                except record.Superseded as meanwhile:  # another dispute, or a mark
                    entry = record.read_entry(self.root, meanwhile.newer)
                    assert entry is not None


class Beat:
    """Keeps a job's lease while it runs, and passes its progress on."""

    def __init__(self, worker: Worker, job: jobs.Job) -> None:
        self.worker, self.job = worker, job
        self.done, self.total, self.lost = 0, 0, False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="heartbeat", daemon=True)

    def __enter__(self) -> Beat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._over.wait(self.worker.beat_s):
            try:
                self._say()
            except Exception:  # the database may be away for a moment; the lease says how long
                log.warning("no heartbeat for %s: %s", self.job.id, traceback.format_exc(limit=1))

    def _say(self) -> None:
        w = self.worker
        if not jobs.heartbeat(w.store, self.job, w.name, w.lease_s, self.done, self.total):
            self.lost = True

    def progress(self, done: int, total: int) -> None:
        """After each shard."""
        self.done, self.total = done, total
        self._say()
        self.check()

    def check(self) -> None:
        """Raise `Taken` where the job is another's by now, or the worker is to stop."""
        if self.lost:
            raise Taken
        if self.worker.stop.is_set():
            raise KeyboardInterrupt


def now() -> str:
    """The time in UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
