"""What an audit found, typed as it is stored: `audit.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from advgym.errors import DataError

FORMAT = "advgym-audit/1"


class Finding(msgspec.Struct, kw_only=True):
    """One flag: the check that raised it, its words, what to do, and the rows that it concerns."""

    check: str
    severity: str
    says: str
    do: str
    where: list[str] = []


class Row(msgspec.Struct, kw_only=True):
    """One attack of the audit; the whole of it is in `file`."""

    name: str
    agent: str
    knowledge: str
    queries: int
    gradients: int
    success_rate: float
    success_ci: tuple[float, float]
    robust_accuracy: float
    queries_median: float
    gradients_mean: float
    distance_median: float
    control_rate: float
    alone: int  # samples that this row alone broke
    seconds: float
    file: str


class Group(msgspec.Struct, kw_only=True):
    """Samples that share something: how many, how many the victim has right, how many no row breaks."""

    by: str
    value: str
    samples: int
    right: int
    held: int
    held_ci: tuple[float, float]


class Audit(msgspec.Struct, kw_only=True):
    """How robust a victim is on a task, what broke it, and what a reader should know."""

    format: str = FORMAT
    model: str
    data: str
    task: str
    why: str  # the task was taken
    victim: dict[str, Any]
    options: dict[str, Any]
    defenses: list[Any]
    threat: dict[str, Any]  # at the strongest row
    budget: str
    queries: int
    seed: int
    split: str
    episodes: int
    attacked: int
    clean_accuracy: float
    clean_ci: tuple[float, float]
    clean_of: int
    robust_accuracy: float
    robust_ci: tuple[float, float]
    cheapest: str
    void: bool
    rows: list[Row]
    findings: list[Finding]
    groups: list[Group]
    asked: dict[str, int]
    device: str
    versions: dict[str, str]
    seconds: float
    command: str = ""
    notes: list[str] = []


def load(path: str | Path) -> Audit:
    """Read `audit.json`.

    Raises:
        DataError: naming the file and what is wrong with it.
    """
    try:
        found = msgspec.json.decode(Path(path).read_bytes(), type=Audit)
    except OSError as error:
        raise DataError(f"cannot read the audit {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise DataError(f"{path} is not an audit of advgym: {error}") from None
    if found.format != FORMAT:
        raise DataError(f"{path} has format {found.format!r}; this version reads {FORMAT!r}")
    return found


def threat_of(audit: Audit) -> dict[str, Any]:
    """The goal and the constraint, as a reader wants them."""
    goal = audit.threat["goal"]
    return {**({} if goal == "untargeted" else {"goal": goal}), **audit.threat["constraint"]}
