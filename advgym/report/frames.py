"""The samples of a result as a table: a data frame, CSV, parquet."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import msgspec

from advgym.errors import AdvgymError
from advgym.judge.results import Result
from advgym.lib.files import write_atomic
from advgym.report.shown import plain

FIELDS = ("id", "label", "before", "after", "success", "valid", "objective", "queries", "queries_distinct",
          "first_success", "gradients", "distance", "reason", "target")  # fmt: skip


def rows(r: Result) -> list[dict[str, Any]]:
    """One mapping a sample: its fields, a column for each that the task measures, `perturbation` as JSON."""
    return [
        {
            **{name: plain(msgspec.to_builtins(getattr(s, name))) for name in FIELDS},
            **s.columns,
            "perturbation": msgspec.json.encode(s.perturbation).decode(),
        }
        for s in r.samples
    ]


def names(found: list[dict[str, Any]]) -> list[str]:
    """The columns in order; those of an empty table too."""
    return list(dict.fromkeys(name for row in found for name in row)) or [*FIELDS, "perturbation"]


def frame(r: Result) -> Any:
    """A `pandas.DataFrame` of `rows`.

    Raises:
        AdvgymError: where pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise AdvgymError("data frames need pandas: pip install pandas; result.to_csv(PATH) works without it") from None
    found = rows(r)
    return pandas.DataFrame(found, columns=names(found))


def write_csv(r: Result, path: str | Path) -> None:
    """`rows` as a CSV file in UTF-8."""
    found = rows(r)
    write_atomic(Path(path), csv_bytes(found, names(found)))


def csv_bytes(found: list[dict[str, Any]], columns: list[str]) -> bytes:
    """Rows as CSV in UTF-8; what is missing stays empty."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(found)
    return out.getvalue().encode()


def write_parquet(r: Result, path: str | Path) -> None:
    """`rows` as a parquet file.

    Raises:
        AdvgymError: where pyarrow is not installed.
    """
    parquet = arrow("parquet files")
    import pyarrow

    found = rows(r)
    columns = {name: [row.get(name) for row in found] for name in names(found)}
    parquet.write_table(pyarrow.table(columns), str(path))


def arrow(what: str) -> Any:
    """`pyarrow.parquet`, or an error that says what needs it."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise AdvgymError(f"{what} need pyarrow: pip install pyarrow; CSV works without it") from None
    return pyarrow.parquet
