"""What an audit leaves in its folder: audit.json, samples.csv and .parquet, a section for a model card, audit.html."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from advgym.core.task import Task
from advgym.evaluations.groups import kinds
from advgym.evaluations.page import page
from advgym.evaluations.report import Audit, threat_of
from advgym.judge.results import Result
from advgym.lib.files import write_atomic


def write(folder: Path, audit: Audit, played: Mapping[str, Result], task: Task) -> None:
    """Write everything; each file in one atomic step."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "audit.json", msgspec.json.format(msgspec.json.encode(audit), indent=1) + b"\n")
    rows = table(audit, played, task)
    write_atomic(folder / "samples.csv", _csv(rows).encode())
    parquet(folder / "samples.parquet", rows)
    write_atomic(folder / "model-card.md", card(audit).encode())
    write_atomic(folder / "audit.html", page(audit, played, task).encode())


def table(audit: Audit, played: Mapping[str, Result], task: Task) -> list[dict[str, Any]]:
    """One entry a sample that was assigned: what it is, whether it is right and robust, and how each row fared."""
    import torch

    from advgym.core.clean import assigned

    ids = assigned(task.sizes[audit.split], audit.episodes)
    told = kinds(task, audit.split, ids)
    by_row = {name: {s.id: s for s in r.samples} for name, r in played.items()}
    first = next(iter(by_row.values()))
    out = []
    for nth, i in enumerate(ids):
        seen = [rows[i] for rows in by_row.values() if i in rows]
        entry: dict[str, Any] = {"id": i, **{k: v[nth] for k, v in told.items()}, "right": i in first,
                                 "robust": i in first and not any(s.success for s in seen)}  # fmt: skip
        for name, rows in by_row.items():
            s = rows.get(i)
            entry[f"{name}.success"] = None if s is None else s.success
            entry[f"{name}.queries"] = None if s is None else s.queries
            entry[f"{name}.first_success"] = None if s is None or s.first_success < 0 else s.first_success
            entry[f"{name}.distance"] = None if s is None else s.distance
            entry[f"{name}.after"] = None if s is None else task.goal.describe(torch.as_tensor(s.after))
        out.append(entry)
    return out


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """The same table in columns; left out where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    write_atomic(path, sink.getvalue().to_pybytes())


def card(audit: Audit) -> str:
    """A section of a model card, with the `model-index` metadata of the Hugging Face Hub before it."""
    name = audit.model.rpartition("/")[2].rpartition(":")[2] or "model"
    threat = ", ".join(f"{k}={v}" for k, v in threat_of(audit).items())
    where = audit.data or audit.task
    metric = [
        {"type": "accuracy", "name": "Clean accuracy", "value": round(audit.clean_accuracy, 4)},
        {"type": "robust_accuracy", "name": f"Robust accuracy ({threat})", "value": round(audit.robust_accuracy, 4),
         "verified": False},
    ]  # fmt: skip
    index = [
        {
            "name": name,
            "results": [
                {
                    "task": {"type": audit.task, "name": f"Adversarial robustness ({audit.task})"},
                    "dataset": {"name": where, "type": where, "split": audit.split},
                    "metrics": metric,
                    "source": {"name": "advgym audit", "url": ""},
                }
            ],
        }
    ]
    low, high = audit.robust_ci
    lines = [
        "---", "model-index:", *(f"- {json.dumps(entry)}" for entry in index), "---", "",
        "## Adversarial robustness", "",
        f"Robust accuracy **{_percent(audit.robust_accuracy)}** (95 %: {_percent(low)} to {_percent(high)}), clean "
        f"accuracy {_percent(audit.clean_accuracy)}; {audit.attacked} of {audit.episodes} samples attacked on "
        f"`{audit.task}` ({threat}), budget `{audit.budget}`, seed {audit.seed}.", "",
        "| attack | told | success | queries, median |", "|---|---|---|---|",
        *(f"| {r.agent} | {r.knowledge} | {_percent(r.success_rate)} | {r.queries_median:g} |" for r in audit.rows), "",
    ]  # fmt: skip
    if audit.void:
        lines += ["**The figure rests on nothing until this is mended:**", ""]
    lines += [f"- {f.severity}: {f.says}" for f in audit.findings]
    return "\n".join([*lines, "", f"Made by `{audit.command or 'advgym audit'}`; `advgym verify` re-checks it.", ""])


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"
