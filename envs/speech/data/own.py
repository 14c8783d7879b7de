"""The caller's own recordings: those that are attacked, and with `train=` others to train on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from advgym.core.task import Spec
from advgym.envs.speech import symbols
from advgym.envs.speech.data import clips as data
from advgym.errors import AdvgymError, DataError

CALLED = {"test": "samples", "train": "train"}  # the argument that a split comes from


def read_own(
    spec: Spec, load: Callable[[str, str], data.Clips], names: Sequence[str], *, transcripts: bool, length: int | None
) -> tuple[dict[str, data.Clips], bool]:
    """The splits of a task of the caller's recordings, and whether 16-bit storage moves any of their values.

    "test", and "train" where there is `train=`: recordings, or a dataset, whose split "train" it is.

    Args:
        load: (dataset, split) -> recordings.
        length: samples that the victim wants; None for the longest attacked recording.
    """
    given = [_listed(spec.samples, "samples")]
    test = data.own_clips(given[0], transcripts=transcripts, length=length, names=names)
    parts = {"test": test}
    if spec.train is not None:
        wide = test.wave.shape[1]
        if isinstance(spec.train, str | Path):
            given.append(_entries(load(str(spec.train), "train"), transcripts=transcripts))
        else:
            given.append(_listed(spec.train, "train"))
        train = data.own_clips(given[1], transcripts=transcripts, length=wide, names=names, given="train")
        parts = {"train": train, **parts}
    return parts, any(data.rounds(part) for part in given)


def _listed(samples: Any, name: str) -> list[Any]:
    if not isinstance(samples, Iterable):
        raise DataError(f"{name}= is {type(samples).__name__}; want a list of (waveform, label) pairs")
    return list(samples)


def _entries(clips: data.Clips, *, transcripts: bool) -> list[Any]:
    """A dataset's recordings as the caller's are given."""
    labels: Sequence[Any] = clips.texts if transcripts else clips.labels.tolist()
    lengths = clips.length.tolist()
    return [(wave[:n].numpy(), label) for wave, n, label in zip(clips.wave, lengths, labels, strict=True)]


def most_label(parts: dict[str, data.Clips]) -> int:
    """The largest class that any recording has."""
    return max(int(clips.labels.max()) for clips in parts.values())


def check_labels(parts: dict[str, data.Clips], classes: int, victim: str) -> None:
    """Refuse a class that the victim has no score for."""
    for split, clips in parts.items():
        most = int(clips.labels.max())
        if most >= classes:
            what = "the samples name" if split == "test" else "train= names"
            raise DataError(f"{what} class {most}, but victim {victim!r} scores {classes} classes")


def check_texts(parts: dict[str, data.Clips], alphabet: str, frames: int) -> None:
    """Refuse what the victim cannot say."""
    for split, clips in parts.items():
        for i, text in enumerate(clips.texts):
            try:
                symbols.encode(text, alphabet, frames)
            except AdvgymError as error:
                raise AdvgymError(f"{CALLED[split]}[{i}]: {error}") from None
