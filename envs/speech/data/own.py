"""The caller's own recordings: those that are attacked, and with `train=` others to train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from advgym.core.task import Spec
from advgym.envs.speech import symbols
from advgym.envs.speech.data import digits, readers
from advgym.envs.speech.data.clips import LEVELS, Clips, pack
from advgym.envs.speech.data.decoding import Said, one_row
from advgym.errors import AdvgymError, DataError
from advgym.lib.given import class_of

CALLED = {"test": "samples", "train": "train"}  # the argument that a split comes from
MOST = 1 << 31  # samples of a split, padding included


def read_own(
    spec: Spec, load: Callable[[str, str], Clips], names: Sequence[str], *, transcripts: bool, length: int | None,
    rate: int = digits.RATE, given: int | None = None,
) -> tuple[dict[str, Clips], tuple[str, ...]]:  # fmt: skip
    """The splits of a task of the caller's recordings, and what reading changed of them, in words.

    "test", and "train" where there is `train=`: recordings, or a dataset, whose split "train" it is.

    Args:
        load: (dataset, split) -> recordings of the datasets that the domain knows by name.
        length: samples that the victim wants; None for the longest attacked recording.
        rate: that the victim hears, and all are resampled to.
        given: the rate of arrays that say none.
    """
    if spec.samples is not None:
        rows = readers.rows_of(spec.samples, "samples", transcripts=transcripts)
    else:
        rows = readers.read(spec.load_dataset(), transcripts=transcripts)
    pairs, said = readers.waves(rows, rate=rate, given=given)
    pairs = pairs if transcripts else readers.numbered(pairs, list(names), said)
    test = own_clips(pairs, transcripts=transcripts, length=length, names=names)
    parts, moved = {"test": test}, rounds(pairs)
    if spec.train is not None:
        if isinstance(spec.train, str | Path) and ("dataset" in spec.row or digits.known(str(spec.train))):
            rows = _rows(load(str(spec.train), "train"), transcripts=transcripts)
        elif isinstance(spec.train, str | Path):
            rows = readers.read(str(spec.train), transcripts=transcripts)
        else:
            rows = readers.rows_of(spec.train, "train", transcripts=transcripts)
        pairs, _ = readers.waves(rows, rate=rate, given=given)
        pairs = pairs if transcripts else readers.numbered(pairs, list(names), Said())
        wide = test.wave.shape[1]
        train = own_clips(pairs, transcripts=transcripts, length=wide, names=names, given="train")
        parts, moved = {"train": train, **parts}, moved or rounds(pairs)
    return parts, (*said.notes(rate), *(("waveforms are rounded to 16 bits",) if moved else ()))


def _rows(clips: Clips, *, transcripts: bool) -> list[readers.Row]:
    """A dataset's recordings as the caller's are read."""
    labels: Sequence[Any] = clips.texts if transcripts else clips.labels.tolist()
    lengths = clips.length.tolist()
    return [
        readers.Row(f"train[{i}]", wave[:n].numpy(), digits.RATE, label)
        for i, (wave, n, label) in enumerate(zip(clips.wave, lengths, labels, strict=True))
    ]


def own_clips(
    samples: Any, *, transcripts: bool, length: int | None = None, names: Sequence[str] = (), given: str = "samples"
) -> Clips:
    """The caller's recordings.

    Args:
        samples: (waveform, label) pairs: int16, or floats in [-1, 1]; a class, or a transcript.
        transcripts: labels are texts.
        length: samples that the victim wants; None for the longest recording.
        names: of classes, which labels may be given by.
        given: the argument that errors name.
    """
    waves, texts, labels = [], [], []
    want = "a transcript (a text of one word or more)" if transcripts else "a class (a whole number from 0)"
    for i, entry in enumerate(samples):
        try:
            wave, label = entry
        except (TypeError, ValueError):
            raise DataError(f"{given}[{i}] is not a pair (waveform, {want})") from None
        wave = one_row(wave, f"{given}[{i}]", Said())
        if wave.dtype != np.int16:
            wave = np.clip(np.round(wave.astype(np.float64) * LEVELS), -LEVELS, LEVELS - 1).astype(np.int16)
        if transcripts and not (isinstance(label, str) and label.split()):
            raise DataError(f"the label of {given}[{i}] is {label!r}; want {want}")
        try:
            labels.append(0 if transcripts else class_of(label, names))
        except AdvgymError as error:
            raise DataError(f"the label of {given}[{i}] is {label!r}; want {want}: {error}") from None
        if length is not None and len(wave) > length:
            raise DataError(f"{given}[{i}] has {len(wave)} samples; this task takes {length} at most")
        waves.append(wave)
        texts.append(symbols.tidy(label) if transcripts else "")
    if not waves:
        raise DataError(f"{given} is empty; want pairs (waveform, {want})")
    most = length or max(map(len, waves))
    if len(waves) * most > MOST:
        raise DataError(
            f"{len(waves)} recordings of up to {most} samples are {len(waves) * most * 2 / 2**30:.1f} GB when they are "
            f"padded to one length, more than {MOST * 2 / 2**30:.0f}: take fewer (dataset='...?limit=200'), or cut the "
            "longest"
        )
    return pack(waves, most, texts, labels)


def rounds(samples: Any) -> bool:
    """Whether 16-bit storage moves any value of the caller's recordings, as `own_clips` took them."""
    for wave, _ in samples:
        x = one_row(wave, "", Said())
        steps = x.astype(np.float64) * LEVELS
        if x.dtype != np.int16 and bool((np.abs(steps - np.clip(np.round(steps), -LEVELS, LEVELS - 1)) > 1e-3).any()):
            return True
    return False


def most_label(parts: dict[str, Clips]) -> int:
    """The largest class that any recording has."""
    return max(int(clips.labels.max()) for clips in parts.values())


def check_labels(parts: dict[str, Clips], classes: int, victim: str) -> None:
    """Refuse a class that the victim has no score for."""
    for split, clips in parts.items():
        most = int(clips.labels.max())
        if most >= classes:
            what = "the samples name" if split == "test" else "train= names"
            raise DataError(f"{what} class {most}, but victim {victim!r} scores {classes} classes")


def spell(parts: dict[str, Clips], alphabet: str) -> None:
    """Write the transcripts of each split as the victim does, in place."""
    for split, clips in parts.items():
        parts[split] = replace(clips, texts=tuple(symbols.spelled(t, alphabet) for t in clips.texts))


def check_texts(parts: dict[str, Clips], alphabet: str, frames: int) -> None:
    """Refuse what the victim cannot say."""
    for split, clips in parts.items():
        for i, text in enumerate(clips.texts):
            try:
                symbols.encode(text, alphabet, frames)
            except AdvgymError as error:
                raise AdvgymError(f"{CALLED[split]}[{i}]: {error}") from None
