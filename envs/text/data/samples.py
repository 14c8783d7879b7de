"""Samples as they stand in the data, from a list of the caller's or from a dataset: checked the same, told by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advgym.core.task import Spec
from advgym.envs.text.data import readers
from advgym.envs.text.data.rows import Rows, check_string, say_empty
from advgym.errors import AdvgymError, DataError


def samples_of(spec: Spec, *, labelled: bool = True) -> Rows:
    """The caller's samples, or those of the dataset that a task is told to read."""
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
        names: dict[str, list[str]] = {}
        rows = ((f"{single} {i}", row) for i, (_, row) in enumerate(readers.entries(samples, name, names)))
        return readers.collect(name, iter(rows), labelled, {}, names)
    for i, sample in enumerate(samples):
        where = f"{single} {i}"
        pair = isinstance(sample, Sequence) and not isinstance(sample, str) and len(sample) == 2
        if labelled and not pair:
            raise DataError(f"{where} is {repr(sample)[:80]}; want {kind}")
        text = sample[0] if pair else sample
        two = isinstance(text, list | tuple) and len(text) == 2 and labelled
        if not two and not isinstance(text, str) and text is not None:
            raise DataError(f"{where} is {repr(sample)[:80]}; want {kind}")
        parts = [check_string(t, "the text", where) for t in (text if two else (text,))]
        out.texts.append((parts[0], parts[1]) if two else parts[0])
        out.labels.append(sample[1] if labelled else 0)
        out.where.append(where)
    say_empty(out)
    return out
