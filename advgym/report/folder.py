"""A result as the folder of a dataset repository: a card, adversarial examples as parquet, and the result's file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from advgym.core.own.back import clean_items, items
from advgym.core.task import Task
from advgym.judge.results import Result
from advgym.lib.files import write_atomic
from advgym.lib.media import png, wav
from advgym.report.examples import forms, words
from advgym.report.frames import arrow
from advgym.report.shown import task_of
from advgym.report.written import PARTS, fresh_folder, label_of, pixels_of

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
HUB = Path(__file__).parents[1] / "templates" / "hub.toml"
ROWS = 64


def write(r: Result, folder: str | Path, task: Task | None = None) -> Path:
    """Write README.md with its metadata, data/test.parquet (a row for each success) and result.json.

    Of bundles each member is a row. Images are PNG and recordings wav inside the parquet file, typed so that `datasets`
    decodes them; graphs are lists of edges and features.

    Args:
        folder: new or empty.
        task: of a result from a file that was made with objects of the caller's own.

    Raises:
        AdvgymError: without pyarrow, or where the folder holds something.
    """
    parquet = arrow("the files of a hub")
    import pyarrow

    place, made = fresh_folder(folder), task_of(r, task)
    rows: list[dict[str, Any]] = []
    kinds: dict[str, str] = {}
    wins = [s for s in r.samples if s.success]
    for start in range(0, len(wins), ROWS):
        part = wins[start : start + ROWS]
        batch, held = forms(made, r.split, part)
        for i, s in enumerate(part):
            pairs = zip(clean_items(made, batch, i), items(made, batch, i, held[i]), strict=True)
            for member, pair in enumerate(pairs):
                row: dict[str, Any] = {"sample": s.id, "member": member}
                for name, item in zip(PARTS, pair, strict=True):
                    row |= _cells(name, item, kinds)
                told = {
                    "label": str(label_of(made, s.label)),
                    "clean_answer": words(made, s.before),
                    "answer": words(made, s.after),
                }
                rows.append({**row, **told, "queries": s.queries, "distance": s.distance})
    table = pyarrow.Table.from_pylist(rows) if rows else pyarrow.table({"sample": pyarrow.array([], pyarrow.int64())})
    (place / "data").mkdir()
    parquet.write_table(_typed(table, kinds), str(place / "data" / "test.parquet"))
    r.save(place / "result.json")
    write_atomic(
        place / "README.md", card(r, len(rows), list(table.column_names), rounded="Image" in kinds.values()).encode()
    )
    return place


def _cells(name: str, item: dict[str, Any], kinds: dict[str, str]) -> dict[str, Any]:
    """The columns of one side of a pair; `kinds` learns those that are media."""
    if "image" in item:
        kinds[name] = "Image"
        return {name: {"bytes": png(pixels_of(item["image"])), "path": None}}
    if "audio" in item:
        kinds[name] = "Audio"
        return {name: {"bytes": wav(item["audio"], item["rate"]), "path": None}, "rate": item["rate"]}
    if "edges" in item:
        node, feature = item["x"].nonzero()
        return {
            f"{name}_edges": item["edges"].tolist(), f"{name}_nodes": len(item["x"]),
            f"{name}_features": [[int(n), int(f), float(item["x"][n, f])] for n, f in zip(node, feature, strict=True)],
            "asked": item["asked"].tolist(),
        }  # fmt: skip
    return {f"{name}{key.removeprefix('text')}": value for key, value in item.items()}


def _typed(table: Any, kinds: dict[str, str]) -> Any:
    """The table with what `datasets` reads of its columns' types."""
    if not kinds:
        return table
    import json

    import pyarrow

    media = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    for name in kinds:
        at = table.column_names.index(name)
        table = table.set_column(at, name, pyarrow.array(table.column(name).to_pylist(), media))
    plain = {"int64": "int64", "double": "float64", "string": "string", "bool": "bool"}
    features: dict[str, Any] = {}
    for field in table.schema:
        kind = (
            {"_type": kinds[field.name]} if field.name in kinds else {"dtype": plain[str(field.type)], "_type": "Value"}
        )
        features[field.name] = kind
    about = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": about})


def card(r: Result, many: int, columns: list[str], *, rounded: bool = False) -> str:
    """README.md: metadata in YAML, then what the examples are, how they were made, and what a reader must know.

    Args:
        rounded: pixels are those of PNG files.
    """
    size = next((size for most, size in SIZES if many < most), "100K<n<1M")
    name = f"{r.agent} against {r.victim.get('name', '')} on {r.task}"
    category = tomllib.loads(HUB.read_text(encoding="utf-8"))["categories"].get(r.task.split("/")[0])
    meta = [
        "---",
        f"pretty_name: {_quoted(name)}",
        *([f"task_categories:\n- {category}"] if category else []),
        "tags:\n- adversarial\n- robustness\n- advgym",
        f"size_categories:\n- {size}",
        "configs:\n- config_name: default\n  data_files:\n  - split: test\n    path: data/test.parquet",
        "---",
    ]
    low, high = r.success_ci
    threat = r.threat
    limit = ", ".join(f"{k} = {v}" for k, v in threat.get("constraint", {}).items())
    body = [
        f"# Adversarial examples: {r.agent} on {r.task}",
        f"{many} examples on which the victim `{r.victim.get('name')}` is right before and wrong after "
        f"({threat.get('goal')} goal), of {r.attacked} samples attacked. Each was judged again by the verifier.",
        "| | |\n|---|---|\n"
        f"| success rate | {r.success_rate:.4f} (95 %: {low:.4f} to {high:.4f}) |\n"
        f"| clean accuracy | {r.clean_accuracy:.4f} |\n| robust accuracy | {r.robust_accuracy:.4f} of {r.episodes} |\n"
        f"| random control | {r.control_rate:.4f} |\n| knowledge | {threat.get('knowledge')} |\n"
        f"| constraint | {limit} |\n| budget | {threat.get('queries')} queries, {threat.get('gradients')} gradients |\n"
        f"| defense | {r.defense} |\n| seed, split | {r.seed}, {r.split} |",
        f"Columns: {', '.join(f'`{c}`' for c in columns)}.",
        "```python\nimport datasets\n\nexamples = datasets.load_dataset('path/to/this/folder', split='test')\n```",
        "`result.json` holds every sample with its perturbation. `advgym verify result.json` checks it"
        + (", given the same objects (`advgym.verify(path, task=...)`)." if r.options.get("own") else "."),
    ]
    if r.flags:
        body.append("What a reader must know:\n\n" + "\n".join(f"- {flag}" for flag in r.flags))
    if rounded:
        body.append("Images are PNG of 256 levels: finer values are rounded. `advgym export` writes exact floats.")
    body.append(
        "The examples were made against one model: what they say of another one has to be measured. The clean samples "
        "are under the licence of the data that they come from, which is not stated here."
    )
    return "\n".join(meta) + "\n\n" + "\n\n".join(body) + "\n"


def _quoted(text: str) -> str:
    """A string of YAML."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
