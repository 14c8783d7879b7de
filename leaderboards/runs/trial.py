"""A submission tried out by its author: the server's sandbox, limits and checks, on the samples of the dev phase."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import msgspec

from advgym.errors import AdvgymError, DataError, VictimError
from advgym.leaderboards.entries import card as cards
from advgym.leaderboards.entries.entry import Entry, Rows, TaskScore
from advgym.leaderboards.rules import reasons
from advgym.leaderboards.rules.board import phase_of
from advgym.leaderboards.rules.board_tables import Board, Limits
from advgym.leaderboards.rules.reasons import Refused
from advgym.leaderboards.runs.contestant import AnswerFailed
from advgym.leaderboards.runs.evaluate import Failure, Progress, evaluate, written
from advgym.leaderboards.runs.shards import Runner
from advgym.leaderboards.runs.stage import Stage
from advgym.leaderboards.sandbox import Box, best_level
from advgym.leaderboards.sandbox.workfolder import WorkFolder
from advgym.leaderboards.store.unpack import unpack

MOST_ARCHIVE_MB = 512  # read from disk at most, before the board's own limit is looked at


class Trial(msgspec.Struct, kw_only=True):
    """What came of it. Rates are fractions; `score` is the lower bound that ranks an attack, or robust accuracy.

    Attributes:
        status: "scored" or "failed"; reason, blame, message: of a failure.
        tasks: one row a task, or a (task, attack); with `columns`, `columns_about` and `valid_success` as the entry
            has them, where the task measures its perturbations.
        success_rate: mean over the board's tasks (on the defense track, of the panel's attacks).
        sandbox: the level of isolation that it ran at.
        limits: of the board.
    """

    status: str
    reason: str = ""
    blame: str = ""
    message: str = ""
    success_rate: float = 0.0
    invalid_rate: float = 0.0
    score: float = 0.0
    sandbox: str = ""
    limits: Limits
    board: str
    phase: str
    tasks: list[dict[str, Any]] = []
    flags: list[str] = []
    log: str = ""


def try_out(
    path: Path, board: Board, *, phase: str = "dev", level: str | None = None, device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[Trial, Entry | None, Rows | None]:  # fmt: skip
    """Run a submission, a folder or an archive, on a public phase of a board.

    Raises:
        DataError: when there is nothing at `path`.
        AdvgymError: for a phase that is hidden, or a sandbox that this machine lacks.
    """
    if not path.exists():
        raise DataError(f"there is no submission at {path}; `advgym new agent {path}` starts one")
    about: dict[str, Any] = {"board": board.name, "phase": phase, "limits": board.limits}
    about["sandbox"] = level or best_level()
    if phase_of(board, phase).hidden:
        public = ", ".join(name for name, p in board.phases.items() if not p.hidden) or "none"
        raise DataError(f"phase {phase!r} of {board.name} is hidden, so only its server can run it; public: {public}")
    with WorkFolder("test") as scratch:
        try:
            folder = _folder(path, scratch, board)
            cards.files(folder, board.limits.size_mb)  # an empty folder has no card either
            card = cards.read_card(folder)
            cards.check_folder(folder, board, card)
            gpu = card.track == "defense" and board.defense.device == "cuda"
            with Box(level, gpu=gpu) as box:  # it warms up while the tasks are loaded
                runner = Runner(Stage(board, phase, None, device), card, folder, lambda gpu=False: box)
                entry, rows = evaluate(runner, created="", progress=progress)
        except (Refused, Failure) as failure:
            log = written(failure.first, failure.last) if isinstance(failure, Failure) else ""
            return _failed(failure.code, failure.detail, log, about), None, None
        except (VictimError, AnswerFailed) as error:
            return _failed("victim-error", str(error), "", about), None, None
        except AdvgymError:
            raise
        except Exception as error:  # a fault of the platform is told like any other, in JSON too
            log = traceback.format_exc()
            return _failed("internal-error", f"{type(error).__name__}: {error}", log, about), None, None
    about["sandbox"] = entry.sandbox
    score = entry.headline.low if entry.track == "attack" else entry.headline.value
    done = [t for t in entry.tasks if t.status == "scored"]
    total = len(board.tasks) if entry.track == "attack" else max(len(done), 1)
    rows_of = [
        {"task": t.task, "attack": t.attack, "status": t.status, "success_rate": t.success.value, "robust": t.robust,
         "queries_mean": t.queries_mean, "reasons": t.reasons, **_measured(t)}
        for t in entry.tasks
    ]  # fmt: skip
    found = Trial(
        status="scored", success_rate=sum(t.success.value for t in done) / total,
        invalid_rate=sum(t.invalid_rate for t in done) / max(len(done), 1), score=score, tasks=rows_of,
        flags=[*entry.flags, *([entry.footnote] if entry.footnote else [])], **about,
    )  # fmt: skip
    return found, entry, rows


def _failed(code: str, detail: str, log: str, about: dict[str, Any]) -> Trial:
    return Trial(
        status="failed",
        reason=code,
        blame=reasons.find(code).blame,
        message=reasons.text(code, detail),
        log=log,
        **about,
    )


def _measured(score: TaskScore) -> dict[str, Any]:
    """What the task measures besides success, where it does: as in the entry."""
    found = msgspec.to_builtins(score)
    return {name: found[name] for name in ("columns", "columns_about", "valid_success") if name in found}


def _folder(path: Path, scratch: Path, board: Board) -> Path:
    """The submission as a folder; an archive is unpacked as the server would."""
    if path.is_dir():
        return path
    if path.stat().st_size > MOST_ARCHIVE_MB << 20:
        raise Refused("too-large", f"{path.name} is larger than {MOST_ARCHIVE_MB} MB")
    unpack(path.read_bytes(), scratch / "submission", size_mb=board.limits.size_mb)
    return scratch / "submission"
