"""Samples as they stand in the data, from a list of the caller's or from a dataset: checked the same, told by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advgym.core.task import Spec
from advgym.envs.text.inputs.spacing import CLOSE, PAIR
from advgym.errors import AdvgymError, DataError

log = logging.getLogger("advgym")
Text = str | tuple[str, str]
Sample = tuple[Text, int]


@dataclass(frozen=True)
class Rows:
    """Samples as they stand in the data.

    Attributes:
        texts: strings, or pairs of them.
        labels: of any kind (`labels.meet` reads them); 0 where none are asked for.
        where: file and line, or position in a list.
        names: of the numbers in `labels`, where the data states them.
    """

    texts: list[Text]
    labels: list[Any]
    where: list[str]
    names: list[str] | None = None


def check_string(value: Any, what: str, where: str) -> str:
    """A text as it is: what no file could hold, and what marks pairs inside, is refused."""
    if not isinstance(value, str):
        raise DataError(f"{where}: {what} is a text, not {'missing' if value is None else repr(value)}")
    for i, char in enumerate("" if value.isascii() else value):
        if "\ud800" <= char <= "\udfff" or char in (PAIR, CLOSE):
            kind = "no character" if char in (PAIR, CLOSE) else "half a character"
            why = f"is {kind} (U+{ord(char):04X})"
            raise DataError(
                f"{where}: character {i} of {what} {why}, which no text file holds; leave it out, or put U+FFFD there"
            )
    return value


def say_empty(rows: Rows, more: str = "") -> None:
    """One warning for texts without words: they are kept, and nothing in them can be edited."""
    empty = [w for t, w in zip(rows.texts, rows.where, strict=True) if not "".join(t).strip()]
    if empty:
        log.warning("%d text(s) hold no words (first: %s) and cannot be edited%s", len(empty), empty[0], more)


def samples_of(spec: Spec, *, labelled: bool = True) -> Rows:
    """The caller's samples, or those of the dataset that a task is told to read."""
    from advgym.envs.text.data import readers

    if spec.samples is not None:
        return given_rows(spec.samples, labelled=labelled)
    if spec.dataset is None and "dataset" not in spec.row:
        raise AdvgymError(
            f'task {spec.name!r} has no data of its own: pass samples=[("a fine film", 1), ...], or dataset= a .csv, '
            ".jsonl or .parquet file, or a name that datasets.load_dataset knows"
        )
    return readers.rows_of(spec.load_dataset(), labelled=labelled)


def training_rows(train: Any) -> Rows:
    """The samples of `train=`: a list as of `samples=`, or a dataset as of `dataset=`."""
    from pathlib import Path

    from advgym.envs.text.data import readers

    return readers.rows_of(train) if isinstance(train, str | Path) else given_rows(train, "train")


def given_rows(samples: Any, name: str = "samples", *, labelled: bool = True) -> Rows:
    """A list of (text, label) pairs; without labels, of texts, or of (text, anything).

    A text may be a pair of texts. A mapping with a text and a label is read as a row of a file.

    Raises:
        DataError: names the sample that is none.
    """
    want = '[("a fine film", 1)]' if labelled else '["a man sleeps"]'
    if isinstance(samples, str | bytes | Mapping) or not hasattr(samples, "__len__") or not len(samples):
        raise DataError(
            f"{name}= is a list of {'(sentence, label) pairs' if labelled else 'sentences'}, such as {want}"
        )
    kind = "(sentence, label) or ((text, text), label)" if labelled else "a sentence"
    out = Rows([], [], [])
    single = name.removesuffix("s")
    if isinstance(samples[0], Mapping):
        from advgym.envs.text.data import readers

        names: dict[str, list[str]] = {}
        rows = ((f"{single} {i}", row) for i, (_, row) in enumerate(readers.entries(samples, name, names)))
        return readers.collect(name, iter(rows), labelled, {}, names)
    for i, sample in enumerate(samples):
        where = f"{single} {i}"
        pair = isinstance(sample, Sequence) and not isinstance(sample, str) and len(sample) == 2
        if labelled and not pair:
            raise DataError(f"{where} is {sample!r}; want {kind}")
        text = sample[0] if pair else sample
        two = isinstance(text, list | tuple) and len(text) == 2 and labelled
        if not two and not isinstance(text, str) and text is not None:
            raise DataError(f"{where} is {sample!r}; want {kind}")
        parts = [check_string(t, "the text", where) for t in (text if two else (text,))]
        out.texts.append((parts[0], parts[1]) if two else parts[0])
        out.labels.append(sample[1] if labelled else 0)
        out.where.append(where)
    say_empty(out)
    return out
