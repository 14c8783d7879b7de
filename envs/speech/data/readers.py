"""Recordings of any origin with their labels: tables, folders, objects of torchaudio and datasets, arrays."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from advgym.envs.speech.data.decoding import Said, at_rate, check_rate, decode, one_row, tell
from advgym.envs.speech.data.digits import named_so
from advgym.errors import DataError, unknown
from advgym.lib.extras import need
from advgym.lib.given import ask_column
from advgym.lib.hub import settle

SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff")
TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
PATHS = ("path", "file", "file_name", "filename", "audio", "wav", "audio_path", "audio_filepath")
TEXTS = ("text", "transcript", "transcription", "sentence", "normalized_text", "raw_text")
LABELS = ("label", "class", "keyword", "command", "word", "speaker", "speaker_id", "intent", "target")
OPTIONS = ("path", "text", "label", "split", "config", "limit")
LAYOUTS = (
    "a .csv, .tsv, .jsonl, .json or .parquet table with columns path and text or label; a folder with such a table; "
    "LibriSpeech's (*.trans.txt beside flac files); one folder of recordings for each label, as SPEECHCOMMANDS; what "
    "Dataset.save_to_disk wrote; or a name for datasets.load_dataset"
)


@dataclass(frozen=True)
class Row:
    """A recording that is not decoded yet: a path, bytes, or an array with its rate (None: not said)."""

    where: str
    sound: Any
    rate: int | None
    label: Any


# -- from rows to waveforms -----------------------------------------------------------------------------------------
def waves(rows: Iterable[Row], *, rate: int, given: int | None = None) -> tuple[list[tuple[Any, Any]], Said]:
    """(waveform, label) pairs at `rate`, and what was changed.

    Args:
        given: the rate of arrays that say none; None for `rate`.

    Raises:
        DataError: names the recording that cannot be read.
    """
    said, out = Said(), []
    for row in rows:
        sound, own = row.sound, row.rate
        if isinstance(sound, str | Path | bytes):
            sound, own = decode(sound, row.where)
        wave = one_row(sound, row.where, said)
        old = check_rate(own, f"the rate of {row.where}") if own is not None else given or rate
        wave = at_rate(wave, old, rate, said)
        tell(wave, rate, said)
        out.append((wave, row.label))
    return out, said


def numbered(pairs: list[tuple[Any, Any]], names: list[str], said: Said) -> list[tuple[Any, Any]]:
    """Labels that are words as numbers: by the victim's names where it has any, in alphabetical order where not."""
    words = [label for _, label in pairs if isinstance(label, str) and not label.strip().isdecimal()]
    if not words:
        return pairs
    if names:
        folded = {name.casefold(): name for name in names}
        known = folded if len(folded) == len(names) else {}
        return [(w, known.get(v.casefold(), v) if isinstance(v, str) else v) for w, v in pairs]
    if len(words) < len(pairs):
        return pairs
    order = {word: i for i, word in enumerate(sorted(set(words)))}
    some = ", ".join(f"{i} {word}" for word, i in list(order.items())[:8])
    said.more.append(f"labels are numbered in alphabetical order: {some}{' ...' if len(order) > 8 else ''}")
    return [(wave, order[label]) for wave, label in pairs]


# -- the caller's objects -------------------------------------------------------------------------------------------
def rows_of(samples: Any, name: str, *, transcripts: bool) -> list[Row]:
    """Rows of `samples=`: pairs, triples with a rate, mappings, an object of torchaudio or of datasets.

    Raises:
        DataError: for what is none of them.
    """
    if hasattr(samples, "get_metadata") and hasattr(samples, "_archive"):
        return list(_torchaudio(samples, name))
    if hasattr(samples, "features") and hasattr(samples, "cast_column"):
        return list(_columns(name, _undecoded(samples), {}, transcripts))
    if isinstance(samples, str | bytes | Mapping) or not isinstance(samples, Iterable):
        raise DataError(f"{name}= is {type(samples).__name__}; want a list of (waveform, label) pairs")
    try:
        entries = list(samples)
    except (ImportError, RuntimeError) as error:  # objects that decode by torchcodec, which needs FFmpeg
        raise DataError(
            f"{name}= cannot be read: {str(error).strip().splitlines()[0]}. Give its files: a list of (path, label), "
            f"or dataset= {LAYOUTS}"
        ) from error
    if entries and isinstance(entries[0], Mapping):
        return list(_columns(name, ((f"{name}[{i}]", e) for i, e in enumerate(entries)), {}, transcripts))
    want = "a transcript (a text of one word or more)" if transcripts else "a class (a whole number from 0)"
    out = []
    for i, entry in enumerate(entries):
        parts = tuple(entry) if isinstance(entry, tuple | list) else ()
        if len(parts) >= 3 and isinstance(parts[1], int | float | np.integer):  # as torchaudio's datasets give them
            out.append(Row(f"{name}[{i}]", parts[0], parts[1], parts[2]))  # type: ignore[arg-type]
        elif len(parts) == 2:
            out.append(Row(f"{name}[{i}]", parts[0], None, parts[1]))
        else:
            raise DataError(f"{name}[{i}] is not a pair (waveform, {want})")
    return out


def _torchaudio(found: Any, name: str) -> Iterator[Row]:
    """A dataset of torchaudio, its files read here: torchaudio's own reading needs FFmpeg."""
    root = Path(found._archive)
    for i in range(len(found)):
        path, _, label, *_ = found.get_metadata(i)
        path = Path(path)
        places = [path, root / path, root.parent / path]
        yield Row(f"{name}[{i}]", next((p for p in places if p.is_file()), places[1]), None, label)


def _undecoded(found: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a `datasets.Dataset`, audio columns as they are stored."""
    import datasets

    names = {}
    for column, kind in found.features.items():
        if isinstance(kind, datasets.Audio):
            found = found.cast_column(column, datasets.Audio(decode=False))
        if getattr(kind, "names", None):
            names[column] = list(kind.names)
    for i, entry in enumerate(found):
        for column, words in names.items():
            if isinstance(entry[column], int) and 0 <= entry[column] < len(words):
                entry[column] = words[entry[column]]
        yield f"row {i}", entry


# -- datasets by path or name ---------------------------------------------------------------------------------------
def read(dataset: str, *, transcripts: bool) -> list[Row]:
    """Rows of a dataset: see `LAYOUTS`. Options follow a question mark: `clips.csv?path=file&text=said`.

    Options: path, text, label (columns), split (of a name or a folder), config (of a name), limit (so many recordings,
    evenly spaced).

    Raises:
        DataError: says the file and what is wrong with it.
    """
    name, _, query = dataset.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for key in options:
        if key not in OPTIONS:
            raise unknown("option of a dataset", key, OPTIONS)
    path = Path(name).expanduser()
    if path.is_file():
        rows = list(_table(path, options, transcripts))
    elif path.is_dir():
        rows = _folder(path, options, transcripts)
    elif path.suffix in TABLES or name.startswith(("/", "./", "../", "~")):
        raise DataError(f"there is no file or folder {name}; want {LAYOUTS}")
    else:
        rows = _named(name, options, transcripts)
    if not rows:
        raise DataError(f"{name} holds no recording; want {LAYOUTS}")
    if "limit" in options:
        try:
            most = int(options["limit"])
        except ValueError:
            most = 0
        if most < 1:
            raise DataError(f"limit is a whole number of recordings from 1 on, not {options['limit']!r}")
        rows = [rows[i * len(rows) // most] for i in range(most)] if most < len(rows) else rows
    return rows


def _table(path: Path, options: Mapping[str, str], transcripts: bool) -> Iterator[Row]:
    if path.suffix == ".parquet":
        found = _datasets(path).Dataset.from_parquet(str(path))
        yield from _columns(str(path), _undecoded(found), options, transcripts, path.parent)
        return
    if path.suffix not in TABLES:
        raise unknown("kind of table", path.suffix or path.name, TABLES)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as utf-8 text: {error}") from None
    entries = _csv(path, text) if path.suffix in (".csv", ".tsv") else _json(path, text)
    yield from _columns(str(path), entries, options, transcripts, path.parent)


def _csv(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",")
    header = next(reader, None)
    if header is None:
        raise DataError(f"{path} is empty; its first line names the columns")
    for cells in reader:
        where = f"{path}, line {reader.line_num}"
        if cells and len(cells) != len(header):
            raise DataError(f"{where}: {len(cells)} fields, and the first line names {len(header)} columns")
        if cells:
            yield where, dict(zip(header, cells, strict=True))


def _json(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    whole = path.suffix == ".json" and text.lstrip().startswith("[")
    try:
        lines = enumerate(json.loads(text), 1) if whole else None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None
    for number, line in lines or enumerate(text.split("\n"), 1):
        where = f"{path}, {'entry' if whole else 'line'} {number}"
        if not whole and not str(line).strip():
            continue
        try:
            entry = line if whole else json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON: {error.msg}: {str(line)[:60]!r}") from None
        if not isinstance(entry, dict):
            raise DataError(f'{where}: want {{"path": "a.wav", "text": "..."}}, not {str(entry)[:60]!r}')
        yield where, entry


def _columns(
    name: str, entries: Iterator[tuple[str, dict[str, Any]]], options: Mapping[str, str], transcripts: bool,
    home: Path | None = None,
) -> Iterator[Row]:  # fmt: skip
    """Rows of mappings, the columns named by options or by their usual names; paths are relative to `home`."""
    chosen: tuple[str, str] | None = None
    key, usual = ("text", TEXTS) if transcripts else ("label", LABELS)
    for where, entry in entries:
        if chosen is None:
            chosen = _choose(name, entry, options, "path", PATHS), _choose(name, entry, options, key, usual)
        for column in chosen:
            if entry.get(column) is None:
                raise DataError(f"{where}: the column {column!r} is missing or empty")
        sound, rate = entry[chosen[0]], entry.get("sampling_rate")
        if isinstance(sound, Mapping):  # an audio column: stored bytes or a path, or decoded
            rate = sound.get("sampling_rate", rate)
            sound = next((sound[k] for k in ("array", "bytes", "path") if sound.get(k) is not None), None)
        if isinstance(sound, str) and home is not None and not Path(sound).is_absolute():
            sound = home / sound
        if sound is None:
            raise DataError(f"{where}: the column {chosen[0]!r} holds no recording")
        yield Row(where, np.asarray(sound) if isinstance(sound, list) else sound, rate, entry[chosen[1]])


def _choose(name: str, entry: Mapping[str, Any], options: Mapping[str, str], key: str, usual: tuple[str, ...]) -> str:
    if key in options:
        if options[key] not in entry:
            raise unknown(f"column of {name}", options[key], entry)
        return options[key]
    lower = {str(c).strip().lower(): c for c in entry}
    found = next((lower[c] for c in usual if c in lower), None)
    if found is None:
        raise DataError(f"{name} has the columns {', '.join(map(str, entry))}; {ask_column(name, key)}")
    return str(found)


def _folder(path: Path, options: Mapping[str, str], transcripts: bool) -> list[Row]:
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        found = _datasets(path).load_from_disk(str(path))
        found = found[_split(found, str(path), options)] if isinstance(found, dict) else found
        return list(_columns(str(path), _undecoded(found), options, transcripts))
    tables = {p.stem: p for p in sorted(path.iterdir()) if p.suffix in TABLES}
    if tables:
        known = tables if len(tables) > 1 else {next(iter(tables)): next(iter(tables.values()))}
        stem = _split(known, str(path), options) if len(known) > 1 else next(iter(known))
        return list(_table(known[stem], options, transcripts))
    if transcripts:
        return _librispeech(path)
    parts = [p.name for p in sorted(path.iterdir()) if p.is_dir()]
    if "split" in options and options["split"] in parts:
        path = path / options["split"]
    elif "split" not in options and {"test", "train"} <= set(parts):
        path = path / "test"
    return _by_label(path, options)


def _librispeech(path: Path) -> list[Row]:
    rows = []
    for file in sorted(path.rglob("*.trans.txt")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            key, _, text = line.strip().partition(" ")
            if not key:
                continue
            sound = next((p for s in SOUNDS if (p := file.parent / f"{key}{s}").is_file()), None)
            if sound is None:
                raise DataError(f"{file}, line {number}: no recording {key} ({', '.join(SOUNDS)}) beside it")
            rows.append(Row(f"{file}, line {number}", sound, None, text))
    if not rows:
        raise DataError(f"{path} holds no transcripts; want {LAYOUTS}")
    return rows


def _by_label(path: Path, options: Mapping[str, str]) -> list[Row]:
    """One folder for each label; where lists name the splits, as SPEECHCOMMANDS has, that of `split` or "test"."""
    lists = {"test": path / "testing_list.txt", "validation": path / "validation_list.txt"}
    split = options.get("split", "test" if lists["test"].is_file() else "")
    named = {s: set(f.read_text().split()) if f.is_file() else set() for s, f in lists.items()}
    if split and not lists["test"].is_file():
        raise unknown(f"split of {path}", split, [p.name for p in sorted(path.iterdir()) if p.is_dir()])
    rows = []
    for folder in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(("_", "."))):
        for file in sorted(p for p in folder.iterdir() if p.suffix.lower() in SOUNDS):
            own = next((s for s, files in named.items() if f"{folder.name}/{file.name}" in files), "train")
            if not split or split == own:
                rows.append(Row(str(file), file, None, folder.name))
    rows = rows or [Row(str(file), file, None, label) for file, label in named_so(path)]
    if not rows:
        raise DataError(f"{path} holds no recordings in folders of labels; want {LAYOUTS}")
    return rows


def _split(found: Mapping[str, Any], where: str, options: Mapping[str, str]) -> str:
    """The split asked for, else "test" or what comes next to it."""
    if "split" in options:
        if options["split"] not in found:
            raise unknown(f"split of {where}", options["split"], found)
        return options["split"]
    return next((s for s in ("test", "validation", "val", "dev", "train") if s in found), next(iter(found)))


def _datasets(what: Any) -> Any:
    return need("datasets", f"{what} (a .csv or .jsonl table does not)")


def _named(name: str, options: Mapping[str, str], transcripts: bool) -> list[Row]:
    settle(name, "dataset")
    library = _datasets(f"the dataset {name!r}")
    try:
        found = library.load_dataset(name, options.get("config"))
    except Exception as error:  # the library raises nearly anything
        said = str(error).strip().split("\n")[0]
        raise DataError(
            f"the dataset {name!r} is no local file or folder, and datasets.load_dataset found it neither in its cache "
            f"on this machine nor on the hub: {type(error).__name__}: {said}. Want {LAYOUTS}"
        ) from error
    found = found[_split(found, name, options)] if isinstance(found, dict) else found
    return list(_columns(name, _undecoded(found), options, transcripts))
