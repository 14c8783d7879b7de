"""Result files: one JSON per attack, typed, written in one atomic step. Other programs read the summary keys."""

from __future__ import annotations

import math
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from advgym.columns import Column
from advgym.contract import Number
from advgym.errors import DataError
from advgym.goals import BundleGoal, Goal

FORMAT = "advgym-result/1"
SILENT = "unanswered"  # the reason of a row whose final perturbation the victim has no answer to
IDLE = "the agent asked nothing and changed nothing"  # a flag
MARKS = (25, 50, 100, 200, 500, 1000)  # queries at which papers state success
PACKAGES = ("advgym", "torch", "gymnasium", "numpy", "transformers", "torch_geometric", "torchaudio", "scikit-learn")


class Sample(msgspec.Struct, kw_only=True):
    """One attacked sample. Outputs are the goal's integers; `perturbation` is what `Batch.dump` wrote."""

    id: int
    label: Any
    before: Any
    after: Any
    success: bool
    valid: bool
    objective: float
    queries: int
    queries_distinct: int
    first_success: int
    gradients: int
    distance: float
    reason: str
    perturbation: Any
    target: Any = None
    columns: dict[str, float] = {}  # what the task measures besides success


class Result(msgspec.Struct, kw_only=True):
    """An attack on a task: the summary, how to repeat it, a curve, and the samples."""

    format: str = FORMAT
    task: str
    agent: str
    defense: str
    seed: int
    device: str
    versions: dict[str, str]
    episodes: int
    attacked: int
    clean_accuracy: float
    robust_accuracy: float
    success_rate: float
    success_ci: tuple[float, float]
    control_rate: float
    invalid_rate: float
    queries_mean: float
    queries_median: float
    gradients_mean: float
    distance_median: float
    seconds: float
    flags: list[str]
    split: str
    lanes: int
    threat: dict[str, Any]
    options: dict[str, Any]
    settings: dict[str, Any]
    defenses: list[Any]
    victim: dict[str, Any]
    curve: list[tuple[int, float]]
    samples: list[Sample]
    # Later than the first files of this format, which load without them.
    queries_distinct_mean: float | None = None
    queries_distinct_median: float | None = None
    success_at: list[tuple[int, float]] = []
    success_area: float | None = None
    members_rate: float | None = None  # of bundles: members whose output changed, over all members attacked
    columns: dict[str, Column] = {}
    columns_about: dict[str, str] = {}  # what the columns were made with
    clean_of: int | None = None  # samples that `clean_accuracy` is over; absent from a file: the whole split
    clean_size: int | None = None  # samples of the split
    clean_ci: tuple[float, float] | None = None  # the Wilson interval of that share
    asked: dict[str, int] = {}  # inputs that the victim was asked about, by what for (`advgym.costs`)
    contract: Number = msgspec.UNSET  # the rules it was made under: `advgym.contract`; a file without it means 1


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson 1927); (0, 1) for no trials.

    >>> [round(v, 3) for v in wilson(8, 10)]
    [0.49, 0.943]
    """
    if n == 0:
        return 0.0, 1.0
    p, q = successes / n, z * z / n
    centre = (p + q / 2) / (1 + q)
    half = z * math.sqrt(p * (1 - p) / n + q / (4 * n)) / (1 + q)
    return max(0.0, centre - half), min(1.0, centre + half)


def median(values: list[float]) -> float:
    """The median, 0 for none."""
    ordered = sorted(values)
    n = len(ordered)
    return 0.0 if not n else float((ordered[(n - 1) // 2] + ordered[n // 2]) / 2)


def mean(values: list[float]) -> float:
    """The mean, 0 for none."""
    return float(sum(values) / len(values)) if values else 0.0


def success_curve(samples: list[Sample], budget: int) -> list[tuple[int, float]]:
    """(q, share of samples whose success came within q queries) on a 1-2-5 grid up to the budget."""
    grid = sorted({q * 10**k for k in range(7) for q in (1, 2, 5) if q * 10**k < budget} | {budget})
    n = max(len(samples), 1)
    return [(q, sum(s.success and 0 <= s.first_success <= q for s in samples) / n) for q in grid]


def success_at(samples: list[Sample], budget: int) -> list[tuple[int, float]]:
    """(q, share of samples whose success came within q queries) at the customary q that the budget reaches."""
    n = max(len(samples), 1)
    return [(q, sum(s.success and 0 <= s.first_success <= q for s in samples) / n) for q in MARKS if q <= budget]


def success_area(samples: list[Sample], budget: int) -> float:
    """The area under success against queries: the mean over q = 1 ... budget of the share beaten within q."""
    wins = [max(s.first_success, 1) for s in samples if s.success and 0 <= s.first_success <= budget]
    return sum(budget + 1 - first for first in wins) / (budget * len(samples)) if samples and budget else 0.0


def members_rate(samples: list[Sample]) -> float:
    """The share of members whose output differs from the clean one, over all bundles."""
    wins, n = members_turned(samples)
    return wins / n if n else 0.0


def members_turned(samples: list[Sample]) -> tuple[int, int]:
    """Members whose output differs from the clean one, and all members, over all bundles."""
    turned = [a != b for s in samples for a, b in zip(s.after, s.before, strict=True)]
    return sum(turned), len(turned)


def accuracies(samples: list[Sample], episodes: int, clean: float, goal: Goal) -> tuple[int, int, float, float]:
    """(successes, what they are counted over, clean accuracy, robust accuracy): of samples, or of bundles' members.

    Args:
        episodes: samples assigned; clean: the share of the clean samples asked that the victim has right.
    """
    if not isinstance(goal, BundleGoal):
        wins, n = sum(s.success for s in samples), len(samples)
        return wins, n, clean, (n - wins) / episodes if episodes else 0.0
    wins, n = members_turned(samples)
    base = len(samples) / episodes if episodes else 0.0
    if goal.right_of_all is not None:  # the members are those that are right: accuracy is over all candidates
        clean = base = goal.right_of_all
    return wins, n, clean, base * (1 - wins / n) if n else 0.0


def versions() -> dict[str, str]:
    """Of Python and of the packages that make the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: Any) -> str:
    """Name of the device: "cpu", or the accelerator's own."""
    kind = str(device)
    if kind.startswith("cuda"):
        import torch

        return f"{kind} ({torch.cuda.get_device_name(kind)})"
    return kind


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file in one step, so that a killed run leaves the old one or the new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from None


def save(result: Result, path: str | Path) -> None:
    """Write a result as indented JSON."""
    write_atomic(Path(path), msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def load(path: str | Path) -> Result:
    """Read a result file.

    Raises:
        DataError: naming the file and the key that is missing or of the wrong type.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the result file {path}: {error.strerror}") from None
    try:
        result = msgspec.json.decode(raw, type=Result)
    except msgspec.DecodeError as error:  # ValidationError is one of them
        raise DataError(f"{path} is not a result file of advgym: {error}") from None
    if result.format != FORMAT:
        raise DataError(f"{path} has format {result.format!r}; this version reads {FORMAT!r}")
    return result


def interactive() -> bool:
    """Whether progress can be drawn."""
    return sys.stderr.isatty()
