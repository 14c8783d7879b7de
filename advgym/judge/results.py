"""Result files: one JSON per attack, typed, written in one atomic step. Other programs read the summary keys.

How a result is shown is the report's, which stands above the judge: methods name its functions as tasks name their
factories, by "module:function", and nothing of it is imported before one is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from advgym import registry
from advgym.errors import DataError
from advgym.judge.columns import Column
from advgym.judge.contract import Number
from advgym.lib.files import write_atomic

FORMAT = "advgym-result/1"
SILENT = "unanswered"  # the reason of a row whose final perturbation the victim has no answer to
IDLE = "the agent asked nothing and changed nothing"  # a flag


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


class Result(msgspec.Struct, kw_only=True, dict=True):
    """An attack on a task: the summary, how to repeat it, a curve, and the samples.

    Every field is a key of its file. `made` is the task of the very run, beside the fields and in no file: what shows
    samples takes it from there, or makes the task again from the file's own options.
    """

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
    asked: dict[str, int] = {}  # inputs that the victim was asked about, by what for (`advgym.core.tally`)
    contract: Number = msgspec.UNSET  # the rules it was made under: `advgym.judge.contract`; a file without it means 1

    def __repr__(self) -> str:
        shown: str = registry.load("advgym.report.shown:line")(self)
        return shown

    def _repr_html_(self) -> str:
        shown: str = registry.load("advgym.report.shown:html")(self)
        return shown

    def save(self, path: str | Path) -> None:
        """Write the result's file; `Result.load` reads it again."""
        save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """The result of a file."""
        return load(path)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`, one line a sample: its id, label, answers, meters and columns, and what was done."""
        return registry.load("advgym.report.frames:frame")(self)

    def to_csv(self, path: str | Path) -> None:
        """The lines of `to_pandas` as a CSV file; pandas is not needed."""
        registry.load("advgym.report.frames:write_csv")(self, path)

    def to_parquet(self, path: str | Path) -> None:
        """The lines of `to_pandas` as a parquet file, typed; needs pyarrow."""
        registry.load("advgym.report.frames:write_parquet")(self, path)

    def plot(self, ax: Any = None, **style: Any) -> Any:
        """Success against queries on matplotlib axes (of a new figure without `ax`), which are returned."""
        return registry.load("advgym.report.plot:plot")(self, ax, **style)

    def examples(self, k: int = 5, *, task: Any = None) -> Any:
        """The first k successes (what was tried, where there are none), clean and perturbed as the task shows them.

        Args:
            task: of a result from a file that was made with objects of the caller's own.
        """
        return registry.load("advgym.report.shown:examples")(self, k, task)

    def to_hub_folder(self, folder: str | Path, *, task: Any = None) -> Path:
        """Write what a dataset repository of a hub holds: a card, the adversarial examples as parquet, and the result.

        `datasets.load_dataset(folder)` reads it. Nothing is sent anywhere.
        """
        where: Path = registry.load("advgym.report.folder:write")(self, folder, task)
        return where


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
