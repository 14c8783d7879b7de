"""Labelled texts from a local file, a folder, or a dataset of `datasets`: (text, label) or ((text, text), label)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from advgym.envs.text.data import labels
from advgym.envs.text.data.rows import Rows, Sample, check_string, say_empty
from advgym.errors import DataError, unknown
from advgym.lib.extras import need
from advgym.lib.given import ask_column
from advgym.lib.hub import settle

TEXTS = ("text", "sentence", "review", "content", "body", "document", "question", "title", "article", "source", "en")
PAIRS = (("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("question", "sentence"),
         ("text1", "text2"))  # fmt: skip
LABELS = ("label", "labels", "class", "target", "category", "sentiment", "gold_label", "y", "is_duplicate")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
EMPTY = ("error", "skip", "keep")
OPTIONS = ("text", "label", "split", "config", "encoding", "empty")
WORKS = "samples=[(text, label), ...] and local .csv, .tsv, .jsonl and .parquet files work without it"

Row = tuple[str, Mapping[str, Any]]  # where it stands, and its columns


def read(dataset: Any, *, labelled: bool = True, classes: int | None = None, **options: str) -> list[Sample]:
    """Samples of a dataset.

    Args:
        dataset: the path of a .csv, .tsv, .jsonl, .json or .parquet file; a folder with such files named for splits, or
            written by `Dataset.save_to_disk`; or a name for `datasets.load_dataset`. Options may follow a question
            mark: "reviews.csv?text=body&label=stars". A list is returned as it is.
        labelled: a label is needed; without, it is 0.
        classes: labels are below it, where it is known.
        options: text (a column, or two with a comma between for pairs), label (a column), split ("test" by default, of
            a name or a folder), config (of a name), encoding ("utf-8"), empty ("keep" by default, "error" or "skip":
            what is done with empty texts).

    Returns:
        (text, label) pairs; the text of a paired task is itself a pair. Labels that are words are numbered in
        alphabetical order.

    Raises:
        DataError: says the file, the line and what is wrong with it.
    """
    if isinstance(dataset, list | tuple):
        return list(dataset)
    found = rows_of(dataset, labelled=labelled, **options)
    numbers = _numbers(list(zip(found.where, found.labels, strict=True)), classes)
    return list(zip(found.texts, numbers, strict=True))


def rows_of(dataset: Any, *, labelled: bool = True, **options: str) -> Rows:
    """The same with labels as they stand in the data."""
    name, _, query = str(dataset).partition("?")
    options = {**dict(parse_qsl(query, keep_blank_values=True)), **options}
    for key in options:
        if key not in OPTIONS:
            raise unknown("option of a dataset", key, OPTIONS)
    if options.get("empty", "keep") not in EMPTY:
        raise unknown("value of empty", options["empty"], EMPTY)
    path = Path(name).expanduser()
    names: dict[str, list[str]] = {}
    if path.is_file():
        rows = _file(path, options.get("encoding", "utf-8"))
    elif path.is_dir():
        rows = _folder(path, options, names)
    elif path.suffix in SUFFIXES or name.startswith(("/", "./", "../", "~")):
        raise DataError(f"there is no file or folder {name}")
    else:
        rows = _named(name, options, names)
    return collect(name, rows, labelled, options, names)


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
    pyarrow, parquet = need("pyarrow.lib", str(path)), need("pyarrow.parquet", str(path))
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is no parquet file: {error}") from None
    for i, entry in enumerate(table.to_pylist()):
        yield f"{path}, row {i}", entry


def _folder(path: Path, options: Mapping[str, str], names: dict[str, list[str]]) -> Iterator[Row]:
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        found = _datasets().load_from_disk(str(path))
        found = found[_split(found, str(path), options)] if isinstance(found, dict) else found
        yield from entries(found, str(path), names)
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
    return need("datasets", "a dataset by name")


def _named(name: str, options: Mapping[str, str], names: dict[str, list[str]]) -> Iterator[Row]:
    settle(name, "dataset")
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
    yield from entries(found[_split(found, name, options)] if isinstance(found, dict) else found, name, names)


def entries(found: Any, name: str, names: dict[str, list[str]]) -> Iterator[Row]:
    """The rows, with the names of the numbers in a column (`ClassLabel`) put into `names`."""
    for column, kind in (getattr(found, "features", None) or {}).items():
        if getattr(kind, "names", None):
            names[column] = [str(n) for n in kind.names]
    for i, entry in enumerate(found):
        yield f"{name}, row {i}", entry


# -- samples -------------------------------------------------------------------------------------------------
def collect(
    name: str, rows: Iterator[Row], labelled: bool, options: Mapping[str, str], names: Mapping[str, list[str]]
) -> Rows:
    """The texts and labels of rows; `names` holds those of numbers in a column."""
    out = Rows([], [], [])
    columns: tuple[tuple[str, ...], str | None] | None = None
    for where, row in rows:
        if columns is None:
            columns = _columns(name, list(row), labelled, options)
        texts = [check_string(row.get(c), repr(c), where) for c in columns[0]]
        empty = next((c for c, t in zip(columns[0], texts, strict=True) if not t.strip()), None)
        if empty is not None and options.get("empty") == "error":
            raise DataError(f"{where}: {empty!r} is empty; drop the row, or read it with ?empty=skip or ?empty=keep")
        if empty is None or options.get("empty", "keep") == "keep":
            out.texts.append(texts[0] if len(texts) == 1 else (texts[0], texts[1]))
            out.labels.append(row.get(columns[1]) if columns[1] is not None else 0)
            out.where.append(where)
    if not out.texts:
        raise DataError(f"{name} holds no texts")
    if "empty" not in options:
        say_empty(out, "; ?empty=skip leaves them out")
    label = columns[1] if columns is not None else None
    return Rows(out.texts, out.labels, out.where, names.get(label or ""))


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
            raise DataError(f"{name} has the columns {', '.join(given)}; {ask_column(name, 'text')}")
        texts = tuple(lower[c] for c in pair) if pair else (lower[single or ""],)
    if label is None and labelled:
        found = next((c for c in LABELS if c in lower and lower[c] not in texts), None)
        if found is None:
            raise DataError(f"{name} has the columns {', '.join(given)}; {ask_column(name, 'label')}")
        label = lower[found]
    return texts, label if labelled else None


def _numbers(values: list[tuple[str, Any]], classes: int | None) -> list[int]:
    """Labels as numbers from 0: whole numbers as they are, words in alphabetical order."""
    known = [labels.plain(value) for _, value in values]
    words = [v for v in known if isinstance(v, str)]
    if len(words) == len(known):
        order = {word: i for i, word in enumerate(sorted(set(words)))}
        known = [order[v] for v in words]
    out = []
    for (where, value), number in zip(values, known, strict=True):
        if not isinstance(number, int) or number < 0 or (classes is not None and number >= classes):
            most = "from 0 on" if classes is None else f"0 to {classes - 1}"
            raise DataError(f"{where}: labels are whole numbers {most}, or words throughout, not {value!r}")
        out.append(number)
    return out
