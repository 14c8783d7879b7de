"""Augmented samples, and as files: tables of texts, arrays, folders of pictures or recordings that we read again."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from advgym.core.task import Task
from advgym.errors import AdvgymError
from advgym.lib.files import write_atomic
from advgym.lib.media import png, wav
from advgym.report.frames import arrow, csv_bytes
from advgym.report.written import fresh_folder, pixels_of

TABLES = (".csv", ".jsonl", ".parquet")
MEDIA = ("image", "audio")
KINDS = ("original", "random", "adversarial")


@dataclass
class Augmented:
    """Samples and what was made of them, in the order of the data set.

    Attributes:
        task: the task's name.
        rows: one mapping each: `sample`, `nth` (0: the original), `kind` (original, random, adversarial), `label`, and
            what the domain hands back (`text`, `image`, `audio` and `rate`); of an agent's also `success`, `queries`
            and `distance`.
    """

    task: str
    seed: int
    agent: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{sum(r['kind'] == k for r in self.rows)} {k}" for k in KINDS)
        return f"Augmented({self.agent} on {self.task}, seed {self.seed}: {kinds})"

    @property
    def inputs(self) -> list[Any]:
        """The samples as a model reads them: strings or pairs of them, arrays."""
        return [input_of(row) for row in self.rows]

    @property
    def labels(self) -> list[Any]:
        """Of each, as numbers of the victim's classes, by their names where the data name them, or transcripts."""
        return [row["label"] for row in self.rows]

    def write(self, path: Any) -> None:
        """Write what the path's ending says: .csv, .jsonl, .parquet, .npz, or a folder of PNG or wav files.

        Raises:
            AdvgymError: where something lies there already, or the form does not hold such samples.
        """
        write(self, path)


def input_of(row: dict[str, Any]) -> Any:
    """The sample of a row, as a model reads it."""
    if "text" in row:
        return (row["text"], row["text2"]) if "text2" in row else row["text"]
    return next(row[key] for key in ("image", "audio") if key in row)


def shares(task: Task) -> bool:
    """Whether its samples are parts of one whole that a perturbation is of."""
    return bool({"graph", "members"} & task.offers)


def write(found: Augmented, path: Any) -> None:
    """Write what the path's ending says; see `Augmented.write`."""
    check_place(path)
    place = Path(path)
    media = next((key for key in MEDIA if found.rows and key in found.rows[0]), None)
    if place.suffix in TABLES:
        if media:
            raise AdvgymError(f"{place.suffix} holds no {media}: name a .npz file or a folder")
        _table(found.rows, place)
    elif media is None:
        raise AdvgymError(f"texts are written as {', '.join(TABLES)}, not {place.suffix or 'a folder'}")
    elif place.suffix == ".npz":
        _arrays(found.rows, place, media)
    else:
        _folder(found.rows, place, media)


def check_place(path: Any) -> None:
    """Refuse to write over anything, before anything is made.

    Raises:
        AdvgymError: naming what is in the way, or an ending that is none.
    """
    place = Path(path)
    if place.suffix not in (*TABLES, ".npz", ""):
        raise AdvgymError(f"{place} ends in {place.suffix}: want {', '.join(TABLES)}, .npz, or a folder")
    if place.suffix and place.exists():
        raise AdvgymError(f"{place} exists: nothing is written over, name another file")
    if not place.suffix:
        fresh_folder(place)


def _table(rows: list[dict[str, Any]], place: Path) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    columns = [c for c in ("text", "text2", "label") if c in columns] + [
        c for c in columns if c not in ("text", "text2", "label")
    ]
    if place.suffix == ".csv":
        write_atomic(place, csv_bytes(rows, columns))
    elif place.suffix == ".jsonl":
        lines = [json.dumps({c: row[c] for c in columns if c in row}, ensure_ascii=False) for row in rows]
        write_atomic(place, ("\n".join(lines) + "\n").encode())
    else:
        parquet = arrow("parquet files")
        import pyarrow

        place.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table({c: [row.get(c) for row in rows] for c in columns}), str(place))


def _arrays(rows: list[dict[str, Any]], place: Path, media: str) -> None:
    """`x` float32, `y`, and what else the rows say; recordings are padded with zeros, `length` has their samples."""
    values = [row[media] for row in rows]
    told = ("label", "sample", "nth", "kind")
    arrays: dict[str, Any] = {name: np.array([row[name] for row in rows]) for name in told}
    if media == "audio":
        arrays["length"] = np.array([len(v) for v in values])
        arrays["rate"] = np.array(rows[0]["rate"])
        widest = int(arrays["length"].max())
        values = [np.pad(v, (0, widest - len(v))) for v in values]
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as file:
        np.savez_compressed(file, x=np.stack(values), y=arrays.pop("label"), **arrays)


def _folder(rows: list[dict[str, Any]], place: Path, media: str) -> None:
    """A folder for each class with a file for each row, and `index.csv`; transcripts stand in the index alone."""
    index = []
    for row in rows:
        said = str(row["label"])
        inner = said if re.fullmatch(r"[\w.-]{1,64}", said) else "files"
        name = f"{inner}/{row['sample']:05d}-{row['nth']}.{'png' if media == 'image' else 'wav'}"
        write_atomic(place / name, png(pixels_of(row[media])) if media == "image" else wav(row[media], row["rate"]))
        index.append({"path": name, **{k: v for k, v in row.items() if k != media}})
    write_atomic(place / "index.csv", csv_bytes(index, list(dict.fromkeys(k for row in index for k in row))))
