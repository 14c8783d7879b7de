"""An entry of a board: one canonical JSON with its scores and every hash that they depend on; its rows beside it."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from advgym.judge.contract import Number
from advgym.judge.results import Sample

FORMAT = "advgym-entry/1"
ROWS = "advgym-rows/1"


class Interval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An estimate and its 95 % interval. Fractions."""

    value: float
    low: float
    high: float


class Measured(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One column of a task over its judged rows: what the task measures of final perturbations besides success.

    Attributes:
        mean: over the rows; mean_success: over the successes, None without one.
        bar: the least value with which a success is a valid one, None for a column without.
        success: those of the successes that reach the bar, of all samples attacked, mean over seeds; None without one.
    """

    mean: float
    mean_success: float | None = None
    bar: float | None = None
    success: Interval | None = None


class TaskScore(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One task (attack track), or one attack of the panel on one task (defense track).

    Attributes:
        status: "scored" or "not attempted".
        success: of all samples attacked, mean over seeds. robust: share of all assigned samples still right.
        seeds: success rate of each of the K runs.
        clean_undefended: on the defense track, the clean accuracy of the victim without the defense.
        reasons: how lanes ended, by reason code, counts over all seeds.
        curve: (queries, success share), mean over seeds; area: under it, queries on a log scale, in [0, 1].
        victim, samples: SHA-256 of the victim's weights, and of the samples' ids and labels.
        members: of a bundle: `success` is the share of its members that turned, and its interval counts them.
        columns, columns_about: what the task measures besides success, and what it is made with.
        valid_success: as `success`, of the successes that reach the bar of every column that has one.
    """

    task: str
    attack: str = ""
    status: str
    knowledge: str
    success: Interval = Interval(0.0, 0.0, 0.0)
    robust: float = 0.0
    clean_accuracy: float = 0.0
    clean_undefended: float = 0.0
    attacked: int = 0
    assigned: int = 0
    seeds: list[float] = []
    invalid_rate: float = 0.0
    queries_mean: float = 0.0
    queries_median: float = 0.0
    gradients_mean: float = 0.0
    distance_median: float = 0.0
    area: float = 0.0
    control_rate: float = 0.0
    reasons: dict[str, int] = {}
    curve: list[tuple[int, float]] = []
    victim: str = ""
    samples: str = ""
    flags: list[str] = []
    # Later than the first entries, which keep their bytes and so their ids: what is unset is not written.
    members: int | msgspec.UnsetType = msgspec.UNSET
    columns: dict[str, Measured] | msgspec.UnsetType = msgspec.UNSET
    columns_about: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    valid_success: Interval | msgspec.UnsetType = msgspec.UNSET


class Entry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One scored submission.

    Attributes:
        origin: "submission", or "baseline" (an agent or a defense that ships).
        submission, code: SHA-256 of the folder's canonical archive, and of its code without names and comments.
        board_hash, scorer: of the board's TOML and of the code that scores: another makes the entry stale.
        headline: attack: success over the board's tasks (ranked by `low`); defense: worst-case robust accuracy.
        eligible: False with the reason in `footnote` (below the clean-accuracy floor ...): shown, never ranked.
        columns: everything else, by name.
        tasks: one row a task, or one row a (task, attack) on the defense track.
        rows: SHA-256 of the rows file (`Rows`), published at once on public phases and at close on hidden ones.
        transcript: SHA-256 over the frames of all shards, in the plan's order.
        external: not run by this server; unreliable: footnote says why. Both are set by the organiser alone.
        supersedes: the entry that this is a new version of. cause: why: "dispute" (perturbations that were handed in
            lowered it) or "mark" (the organiser's). disputes: how often it was lowered, over all its versions.
        contract: the rules that it was scored under (`advgym.judge.contract`); an entry without it means 1.
    """

    format: str = FORMAT
    board: str
    phase: str
    track: str
    name: str
    team: str
    title: str = ""
    licence: str = ""
    kind: list[str] = []
    knowledge: str = ""
    proposals: int | None = None
    origin: str = "submission"
    submission: str = ""
    code: str = ""
    board_hash: str
    scorer: str
    created: str
    headline: Interval
    eligible: bool = True
    columns: dict[str, float] = {}
    tasks: list[TaskScore]
    rows: str
    transcript: str
    sandbox: str
    device: str
    versions: dict[str, str]
    run_seeds: list[int] = []
    flags: list[str] = []
    external: bool = False
    unreliable: bool = False
    footnote: str = ""
    supersedes: str = ""
    cause: Literal["", "dispute", "mark"] = ""
    disputes: int = 0
    contract: Number = msgspec.UNSET  # later than the first entries, as in `TaskScore`

    @property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(canonical(self)).hexdigest()[:16]


class RowSet(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The judged samples of one (task, attack, seed)."""

    task: str
    attack: str = ""
    seed: int
    split: str
    options: dict[str, Any]
    samples: list[Sample]


class Rows(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Every judged sample of an entry."""

    format: str = ROWS
    sets: list[RowSet]


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: the bytes that hashes are taken of."""
    return msgspec.json.encode(value, order="sorted")


def rows_bytes(rows: Rows, sha: str = "") -> bytes:
    """The canonical bytes of rows; where `sha` is of rows from before samples had columns, those very bytes."""
    now = canonical(rows)
    if not sha or hashlib.sha256(now).hexdigest() == sha:
        return now
    plain = msgspec.to_builtins(rows)
    for given in plain["sets"]:
        given["samples"] = [{k: v for k, v in s.items() if k != "columns" or v} for s in given["samples"]]
    before = canonical(plain)
    return before if hashlib.sha256(before).hexdigest() == sha else now
