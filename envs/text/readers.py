"""Labelled texts from a local file, a folder, or a dataset of `datasets`: (text, label) or ((text, text), label)."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from advgym.errors import AdvgymError, DataError, unknown
from advgym.task import Spec

TEXTS = ("text", "sentence", "review", "content", "body", "document", "question", "title", "article", "source", "en")
PAIRS = (("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("question", "sentence"),
         ("text1", "text2"))  # fmt: skip
LABELS = ("label", "labels", "class", "target", "category", "sentiment", "gold_label", "y", "is_duplicate")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
OPTIONS = ("text", "label", "split", "config", "encoding", "empty")
WORKS = "samples=[(text, label), ...] and local .csv, .tsv, .jsonl and .parquet files work without it"

Row = tuple[str, Mapping[str, Any]]  # where it stands, and its columns
Sample = tuple[str | tuple[str, str], int]


def read(dataset: Any, *, labelled: bool = True, classes: int | None = None, **options: str) -> list[Sample]:
    """Samples of a dataset.

    Args:
        dataset: the path of a .csv, .tsv, .jsonl, .json or .parquet file; a folder with such files named for splits, or
            written by `Dataset.save_to_disk`; or a name for `datasets.load_dataset`. Options may follow a question
            mark: "reviews.csv?text=body&label=stars". A list is returned as it is.
        labelled: a label is needed; without, it is 0.
        classes: labels are below it, where it is known.
        options: text (a column, or two with a comma between for pairs), label (a column), split ("test" by default, of
            a name or a folder), config (of a name), encoding ("utf-8"), empty ("error", "skip" or "keep": what is done
            with empty texts).

    Returns:
        (text, label) pairs; the text of a paired task is itself a pair. Labels that are words are numbered in
        alphabetical order.

    Raises:
        DataError: says the file, the line and what is wrong with it.
    """
    if isinstance(dataset, list | tuple):
        return list(dataset)
    name, _, query = str(dataset).partition("?")
    options = {**dict(parse_qsl(query, keep_blank_values=True)), **options}
    for key in options:
        if key not in OPTIONS:
            raise unknown("option of a dataset", key, OPTIONS)
    if options.get("empty", "error") not in ("error", "skip", "keep"):
        raise unknown("value of empty", options["empty"], ("error", "skip", "keep"))
    path = Path(name).expanduser()
    if path.is_file():
        rows = _file(path, options.get("encoding", "utf-8"))
    elif path.is_dir():
        rows = _folder(path, options)
    elif path.suffix in SUFFIXES or name.startswith(("/", "./", "../", "~")):
        raise DataError(f"there is no file or folder {name}")
    else:
        rows = _named(name, options)
    return _samples(name, rows, labelled, classes, options)


# -- rows ----------------------------------------------------------------------------------------------------
def _file(path: Path, encoding: str) -> Iterator[Row]:
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix in (".csv", ".tsv"):
        yield from _csv(path, encoding)
    elif path.suffix in (".jsonl", ".ndjson", ".json"):
        yield from _json(path, encoding)
    else:
        raise unknown("kind of file", path.suffix or path.name, SUFFIXES)


def _text(path: Path, encoding: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig" if encoding.lower().replace("_", "-") == "utf-8" else encoding)
    except LookupError:
        raise DataError(f"{encoding!r} is no encoding that Python knows; try utf-8, latin-1 or cp1252") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{error.object[error.start]:02x} is not {encoding}; name the file's encoding, "
            f"as in {path.name}?encoding=latin-1"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def _csv(path: Path, encoding: str) -> Iterator[Row]:
    text = _text(path, encoding)
    was = csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",")
        header = next(reader, None)
        if header is None:
            raise DataError(f"{path} is empty; its first line names the columns")
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(f"{where}: {len(cells)} fields, and the first line names {len(header)} columns")
            yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(was)


def _json(path: Path, encoding: str) -> Iterator[Row]:
    text = _text(path, encoding)
    if path.suffix == ".json" and text.lstrip().startswith("["):
        try:
            entries = list(enumerate(json.loads(text)))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None
        lines = [(f"{path}, entry {i}", entry) for i, entry in entries]
    else:
        lines = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    lines.append((f"{path}, line {number}", json.loads(line)))
                except json.JSONDecodeError as error:
                    raise DataError(f"{path}, line {number}: not JSON: {error.msg}: {line[:60]!r}") from None
    for where, entry in lines:
        if not isinstance(entry, dict):
            raise DataError(f'{where}: want {{"text": "...", "label": 0}}, not {str(entry)[:60]!r}')
        yield where, entry


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow.lib
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path} needs pyarrow: pip install pyarrow; {WORKS}") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise DataError(f"{path} is no parquet file: {error}") from None
    for i, entry in enumerate(table.to_pylist()):
        yield f"{path}, row {i}", entry


def _folder(path: Path, options: Mapping[str, str]) -> Iterator[Row]:
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        found = _datasets().load_from_disk(str(path))
        yield from _entries(found[_split(found, str(path), options)] if isinstance(found, dict) else found, str(path))
        return
    files = {p.stem: p for p in sorted(path.iterdir()) if p.suffix in SUFFIXES}
    if not files:
        raise DataError(f"{path} holds none of {', '.join('*' + s for s in SUFFIXES)}")
    yield from _file(files[_split(files, str(path), options)], options.get("encoding", "utf-8"))


def _split(found: Mapping[str, Any], where: str, options: Mapping[str, str]) -> str:
    """The split asked for, else "test" or what comes next to it."""
    if "split" in options:
        if options["split"] not in found:
            raise unknown(f"split of {where}", options["split"], found)
        return options["split"]
    return next((s for s in ("test", "validation", "val", "dev", "train") if s in found), next(iter(found)))


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(f"a dataset by name needs datasets: pip install datasets; {WORKS}") from None
    return datasets


def _named(name: str, options: Mapping[str, str]) -> Iterator[Row]:
    library = _datasets()
    try:
        found = library.load_dataset(name, options.get("config"))
    except Exception as error:  # the library raises nearly anything
        said = str(error).strip().split("\n")[0]
        raise DataError(
            f"the dataset {name!r} is no local file or folder, and datasets.load_dataset found it neither in its cache "
            f"on this machine nor on the hub: {type(error).__name__}: {said}. Download it where there is a connection, "
            f"or name a configuration ({name}?config=NAME); {WORKS}."
        ) from error
    yield from _entries(found[_split(found, name, options)] if isinstance(found, dict) else found, name)


def _entries(found: Any, name: str) -> Iterator[Row]:
    for i, entry in enumerate(found):
        yield f"{name}, row {i}", entry


# -- samples -------------------------------------------------------------------------------------------------
def _samples(
    name: str, rows: Iterator[Row], labelled: bool, classes: int | None, options: Mapping[str, str]
) -> list[Sample]:
    out: list[tuple[str, Any, Any]] = []
    columns: tuple[tuple[str, ...], str | None] | None = None
    for where, row in rows:
        if columns is None:
            columns = _columns(name, list(row), labelled, options)
        texts = [_string(row.get(c), c, where) for c in columns[0]]
        empty = next((c for c, t in zip(columns[0], texts, strict=True) if not t.strip()), None)
        if empty is not None and options.get("empty", "error") == "error":
            raise DataError(f"{where}: {empty!r} is empty; drop the row, or read it with ?empty=skip or ?empty=keep")
        if empty is None or options["empty"] == "keep":
            label = row.get(columns[1]) if columns[1] is not None else 0
            out.append((where, texts[0] if len(texts) == 1 else (texts[0], texts[1]), label))
    if not out:
        raise DataError(f"{name} holds no texts")
    numbers = _numbers([(where, label) for where, _, label in out], classes)
    return [(text, number) for (_, text, _), number in zip(out, numbers, strict=True)]


def _columns(
    name: str, given: list[str], labelled: bool, options: Mapping[str, str]
) -> tuple[tuple[str, ...], str | None]:
    """(text columns, label column)."""
    texts: tuple[str, ...] = tuple(options["text"].split(",")) if "text" in options else ()
    label = options.get("label")
    for column in (*texts, *([label] if label else [])):
        if column not in given:
            raise unknown(f"column of {name}", column, given)
    if len(texts) > 2:
        raise DataError(f"text= names a column, or two of a pair, not {len(texts)}")
    lower = {c.strip().lower(): c for c in given}
    if not texts:
        pair = next((p for p in PAIRS if all(c in lower for c in p)), None)
        single = next((c for c in TEXTS if c in lower), None)
        if pair is None and single is None:
            raise DataError(f"{name} has the columns {', '.join(given)}; say which holds the text: {name}?text=COLUMN")
        texts = tuple(lower[c] for c in pair) if pair else (lower[single or ""],)
    if label is None and labelled:
        found = next((c for c in LABELS if c in lower and lower[c] not in texts), None)
        if found is None:
            raise DataError(
                f"{name} has the columns {', '.join(given)}; say which holds the label: {name}?label=COLUMN"
            )
        label = lower[found]
    return texts, label if labelled else None


def _string(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {column!r} is a text, not {'missing' if value is None else repr(value)}")
    return value


def _numbers(labels: list[tuple[str, Any]], classes: int | None) -> list[int]:
    """Labels as numbers from 0: whole numbers as they are, words in alphabetical order."""
    known = [_whole(value) for _, value in labels]
    if all(isinstance(v, str) and v.strip() and not _numeric(v) for _, v in labels):
        names = {word: i for i, word in enumerate(sorted({v for _, v in labels}))}
        known = [names[v] for _, v in labels]
    out = []
    for (where, value), number in zip(labels, known, strict=True):
        if number is None or number < 0 or (classes is not None and number >= classes):
            most = "from 0 on" if classes is None else f"0 to {classes - 1}"
            raise DataError(f"{where}: labels are whole numbers {most}, or words throughout, not {value!r}")
        out.append(number)
    return out


def _numeric(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _whole(value: Any) -> int | None:
    if not _numeric(value):
        return None
    number = float(value)
    return int(number) if math.isfinite(number) and number == int(number) else None


def samples_of(spec: Spec, *, labelled: bool = True, classes: int | None = None) -> Any:
    """The caller's samples, or those of the dataset that a task is told to read."""
    if spec.samples is not None:
        return spec.samples
    if spec.dataset is None and "dataset" not in spec.row:
        raise AdvgymError(
            f'task {spec.name!r} has no data of its own: pass samples=[("a fine film", 1), ...], or dataset= a .csv, '
            ".jsonl or .parquet file, or a name that datasets.load_dataset knows"
        )
    return read(spec.load_dataset(), labelled=labelled, classes=classes)
