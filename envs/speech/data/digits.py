"""Spoken digits: synthetic ones, the Free Spoken Digit Dataset, and what the tasks make of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advgym.core import rng
from advgym.envs.speech import symbols
from advgym.envs.speech.data import synth
from advgym.envs.speech.data.clips import LEVELS, RATE, Clips, Wave, pack
from advgym.errors import DataError, unknown
from advgym.lib.content import file_digest, stamp
from advgym.lib.drawn import SPLIT, Drawn, read_drawn
from advgym.lib.weights import data_dir

SPLITS = ("train", "test")
WORD_SAMPLES = {"synth-digits": 6400, "fsdd": 8000}
LINE_SAMPLES = {"synth-digits": 14400, "fsdd": 16000}
LINES = {"train": 400, "test": 200}  # utterances of a connected-digits split
VOICES = {"train": range(40), "test": range(1000, 1020)}  # of the synthesiser: none is in both
DRAWN_WORDS = 400  # that drawn utterances are made of: ten of each of 40 voices
LONGEST = 6800  # samples: longer clips are not joined into utterances, so that two always fit
FSDD = "2ffba266065e6fa1"  # digest of its 3,000 recordings
NAMING = "{digit}_{speaker}_{index}.wav, index 0-4 being the test split"
_NAME = re.compile(r"([0-9])_(.+)_([0-9]+)\.wav")


def named_so(path: Path) -> list[tuple[Path, str]]:
    """Files of a folder that say their label themselves, as FSDD's do: (file, label)."""
    return [(file, m[1]) for file in sorted(path.iterdir()) if (m := _NAME.fullmatch(file.name))]


@dataclass(frozen=True)
class Word:
    """One spoken digit of one speaker; `take` tells recordings of the same digit and speaker apart."""

    wave: Wave
    digit: int
    speaker: str
    take: int = 0


# -- sources of single words ----------------------------------------------------------------------------------------
@lru_cache(maxsize=8)
def synth_words(split: str, voices: int | None = None, takes: int = 1) -> tuple[Word, ...]:
    """Ten synthetic digits of each voice: 40 to train, 20 others to test, or as many as `voices` says."""
    numbers = VOICES[split]
    numbers = numbers if voices is None else range(numbers.start, numbers.start + voices)
    plans = [(word, v, take) for take in range(takes) for v in numbers for word in symbols.DIGITS]
    waves = synth.speak(plans)
    return tuple(Word(w, symbols.DIGITS.index(p[0]), str(p[1])) for w, p in zip(waves, plans, strict=True))


def fsdd_folder(dataset: str) -> Path:
    """The folder of the name "fsdd" under $ADVGYM_DATA, or of a path.

    Raises:
        DataError: where there is none.
    """
    if dataset != "fsdd":
        folder = Path(dataset).expanduser()
        if not folder.is_dir():
            if "/" not in dataset and not folder.exists():
                raise unknown("dataset", dataset, WORD_SAMPLES, "A path to a folder of wav files works too.")
            raise DataError(f"{folder} is not a folder; want wav files named {NAMING}")
        return folder
    root = data_dir()
    if root is None or not (root / "speech" / "fsdd").is_dir():
        place = "ADVGYM_DATA is not set" if root is None else f"{root / 'speech' / 'fsdd'} is not a folder"
        raise DataError(
            f"the Free Spoken Digit Dataset is missing: {place}. Set ADVGYM_DATA to a folder that holds speech/fsdd, "
            'give a path with dataset="/path/to/recordings", or take a synth- task, which needs no data.'
        )
    return root / "speech" / "fsdd"


def fsdd_files(folder: Path) -> dict[str, list[tuple[Path, int, str]]]:
    """(file, digit, speaker) of each split, in the order of their names; other files are ignored if any name fits."""
    found: dict[str, list[tuple[Path, int, str]]] = {"train": [], "test": []}
    for path in sorted(folder.glob("*.wav")):
        match = _NAME.fullmatch(path.name)
        if match:
            digit, speaker, index = match.groups()
            found["test" if int(index) < 5 else "train"].append((path, int(digit), speaker))
    if not found["train"] and not found["test"]:
        raise DataError(f"no recording in {folder}: want wav files named {NAMING}, such as 7_ann_0.wav")
    return found


def read_wave(path: Path) -> Wave:
    """A mono 8 kHz 16-bit file, exactly as stored."""
    import soundfile

    try:
        wave, rate = soundfile.read(str(path), dtype="int16")
    except (OSError, RuntimeError) as error:
        raise DataError(f"cannot read {path} as a wav file: {error}") from None
    if rate != RATE or wave.ndim != 1 or not len(wave):
        shape = "empty" if not len(wave) else f"{rate} Hz with {1 if wave.ndim == 1 else wave.shape[1]} channels"
        raise DataError(f"{path} is {shape}; want mono at {RATE} Hz: convert it first")
    return np.asarray(wave, np.int16)


def to_peak(wave: Wave, peak: float = synth.PEAK) -> Wave:
    """Scaled so that its largest sample is `peak` of full scale (speakers differ by 20 dB); silence stays silent."""
    top = int(np.abs(wave.astype(np.int32)).max())
    return np.round(wave * (peak * (LEVELS - 1) / max(top, 1))).astype(np.int16)


def fsdd_words(folder: str, split: str) -> tuple[Word, ...]:
    """The split's recordings at one peak level."""
    return _fsdd_words(folder, split, stamp(folder))


@lru_cache(maxsize=4)
def _fsdd_words(folder: str, split: str, written: tuple[Any, ...]) -> tuple[Word, ...]:
    files = fsdd_files(Path(folder))[split]
    return tuple(Word(to_peak(read_wave(path)), digit, speaker) for path, digit, speaker in files)


@lru_cache(maxsize=4)
def drawn_words(seed: int, count: int) -> tuple[Word, ...]:
    """Synthetic digits that a seed draws, ten of each voice: any digit, voices that no other split has."""
    numbers = rng.bits(seed, torch.arange(-(-count // 10)), (), 1).tolist()
    digits = (rng.bits(seed, torch.arange(count), (), 2) % 10).tolist()
    plans = [(symbols.DIGITS[d], numbers[i // 10], i % 10) for i, d in enumerate(digits)]
    return tuple(Word(w, d, str(p[1])) for w, d, p in zip(synth.speak(plans), digits, plans, strict=True))


def drawn_of(dataset: str) -> Drawn | None:
    """The parts of `synth-digits#SEED:COUNT`."""
    found = read_drawn(dataset)
    if found and found.name != "synth-digits":
        raise unknown("generator", found.name, ["synth-digits"])
    return found


def known(dataset: str) -> bool:
    """Whether a name is one of this module's, not a path."""
    return dataset in WORD_SAMPLES or drawn_of(dataset) is not None


def content(dataset: str) -> dict[str, str]:
    """What a recipe says beside a dataset's name: the digest of its recordings, unless the name stands for them.

    The name does for what is synthetic, and for "fsdd" where the recordings are its release's, or none are there.
    """
    if dataset == "synth-digits" or drawn_of(dataset):
        return {}
    try:
        files = fsdd_files(fsdd_folder(dataset))
    except DataError:
        if dataset == "fsdd":
            return {}
        raise
    found = file_digest(*(path for part in files.values() for path, _, _ in part))
    return {} if dataset == "fsdd" and found == FSDD else {"content": found}


def source_words(dataset: str, split: str) -> tuple[Word, ...]:
    """The words of a dataset's split, by name or path."""
    if found := drawn_of(dataset):
        return drawn_words(found.seed, found.count) if split == SPLIT else source_words(found.name, split)
    if dataset == "synth-digits":
        return synth_words(split)
    return fsdd_words(str(fsdd_folder(dataset)), split)


def samples_of(dataset: str, table: dict[str, int]) -> int:
    """Samples of each recording, by a table of names; folders are like "fsdd"."""
    found = drawn_of(dataset)
    return table.get(found.name if found else dataset, table["fsdd"])


# -- what the tasks are made of -------------------------------------------------------------------------------------
def word_sizes(dataset: str) -> dict[str, int]:
    """Single words in each split, without reading any."""
    if found := drawn_of(dataset):
        return {**word_sizes(found.name), SPLIT: found.count}
    if dataset == "synth-digits":
        return {split: 10 * len(voices) for split, voices in VOICES.items()}
    return {split: len(files) for split, files in fsdd_files(fsdd_folder(dataset)).items()}


def line_sizes(dataset: str) -> dict[str, int]:
    """Utterances in each split: none where there are no words."""
    if found := drawn_of(dataset):
        return {**line_sizes(found.name), SPLIT: found.count}
    return {split: LINES[split] if size else 0 for split, size in word_sizes(dataset).items()}


def written(dataset: str) -> tuple[Any, ...]:
    """What tells whether a dataset's recordings changed."""
    return () if dataset == "synth-digits" or drawn_of(dataset) else stamp(fsdd_folder(dataset))


def keywords(dataset: str, split: str) -> Clips:
    """Single words, padded or cut to 0.8 s (synthetic) or 1 s."""
    return _keywords(dataset, split, written(dataset))


@lru_cache(maxsize=8)
def _keywords(dataset: str, split: str, written: tuple[Any, ...]) -> Clips:
    words = source_words(dataset, split)
    digits = [w.digit for w in words]
    samples = samples_of(dataset, WORD_SAMPLES)
    return pack([w.wave for w in words], samples, [symbols.DIGITS[d] for d in digits], digits)


def connect(words: Sequence[Word], count: int, samples: int, seed: int) -> tuple[list[Wave], list[str]]:
    """`count` utterances of two or three words of one speaker with 30-100 ms of silence around them, in `samples`."""
    draw = np.random.default_rng([22, seed])
    speakers: dict[str, list[Word]] = {}
    for word in words:
        if len(word.wave) <= LONGEST:
            speakers.setdefault(word.speaker, []).append(word)
    names = sorted(speakers)
    if not names:
        raise DataError(f"no recording of at most {LONGEST} samples to join into utterances; want files named {NAMING}")
    waves, texts = [], []
    for _ in range(count):
        own = speakers[names[draw.integers(len(names))]]
        gaps = draw.integers(240, 800, 4)
        wave, said = [np.zeros(gaps[0], np.int16)], []
        for gap, k in zip(gaps[1:], draw.integers(0, len(own), draw.integers(2, 4)), strict=False):
            if sum(map(len, wave)) + len(own[k].wave) + gap <= samples:
                wave += [own[k].wave, np.zeros(gap, np.int16)]
                said.append(symbols.DIGITS[own[k].digit])
        waves.append(np.concatenate(wave))
        texts.append(" ".join(said))
    return waves, texts


def utterances(dataset: str, split: str) -> Clips:
    """Connected digits of one speaker each, padded to 1.8 s (synthetic) or 2 s."""
    return _utterances(dataset, split, written(dataset))


@lru_cache(maxsize=8)
def _utterances(dataset: str, split: str, written: tuple[Any, ...]) -> Clips:
    samples = samples_of(dataset, LINE_SAMPLES)
    found = drawn_of(dataset)
    if found and split == SPLIT:
        waves, texts = connect(drawn_words(found.seed, DRAWN_WORDS), found.count, samples, found.seed)
    else:
        seed = SPLITS.index(split)
        waves, texts = connect(source_words(dataset, split), LINES[split], samples, seed)
    return pack(waves, samples, texts)
