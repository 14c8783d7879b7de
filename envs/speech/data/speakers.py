"""Who speaks: single digits with their speakers as classes, and trials of a claimed speaker."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.core import rng
from advgym.envs.speech import symbols
from advgym.envs.speech.data import synth
from advgym.envs.speech.data.clips import Clips, pack
from advgym.envs.speech.data.digits import (
    WORD_SAMPLES,
    Word,
    drawn_of,
    fsdd_files,
    fsdd_folder,
    read_wave,
    samples_of,
    to_peak,
    written,
)
from advgym.errors import DataError, unknown
from advgym.lib.drawn import SPLIT

SYNTH_SPEAKERS = 10  # synthetic voices 0-9 are those to tell apart
TAKES = {"train": range(12), "test": range(100, 103)}  # of each digit of each speaker: none is in both
DEV_INDEX = range(5, 10)  # recordings of a folder that set thresholds: no net learns from them
# Voices of verification: those that nets learn from, those that set the threshold, those of the trials.
VERIFY_VOICES = {"train": range(40), "dev": range(500, 520), "test": range(1000, 1020)}
ENROL_TAKES = range(200, 202)  # of each digit: what a synthetic speaker is enrolled from
OWN_TAKES = range(100, 110)  # of each digit of the enrolled voice: the genuine trials
PARTS = ("train", "dev", "test")


def _spoken(plans: list[tuple[int, int, int]]) -> tuple[Word, ...]:
    """Synthetic words of (digit, voice, take)."""
    waves = synth.speak([(symbols.DIGITS[d], v, t) for d, v, t in plans])
    return tuple(Word(w, d, str(v), t) for w, (d, v, t) in zip(waves, plans, strict=True))


@lru_cache(maxsize=8)
def voices(numbers: range, takes: range) -> tuple[Word, ...]:
    """Every digit of every voice, each take: in the order of takes, then digits, then voices."""
    return _spoken([(d, v, t) for t in takes for d in range(10) for v in numbers])


def recordings(dataset: str, part: str) -> tuple[Word, ...]:
    """Recordings of a folder's part: "test" is index 0-4, "dev" 5-9, "train" from 10 on."""
    folder = fsdd_folder(dataset)
    return _recordings(str(folder), part, written(dataset))


@lru_cache(maxsize=8)
def _recordings(folder: str, part: str, stamp: tuple[Any, ...]) -> tuple[Word, ...]:
    found = []
    for files in fsdd_files(Path(folder)).values():
        for path, digit, speaker in files:
            take = int(path.stem.rsplit("_", 1)[1])
            where = "test" if take < DEV_INDEX.start else "dev" if take in DEV_INDEX else "train"
            if where == part:
                found.append(Word(to_peak(read_wave(path)), digit, speaker, take))
    return tuple(found)


def names(dataset: str) -> list[str]:
    """The speakers that identification tells apart, in the order of their classes.

    Raises:
        DataError: where there are fewer than two.
    """
    if drawn_of(dataset) or dataset == "synth-digits":
        return [str(v) for v in range(SYNTH_SPEAKERS)]
    return _folder_names(str(fsdd_folder(dataset)), written(dataset))


@lru_cache(maxsize=4)
def _folder_names(folder: str, stamp: tuple[Any, ...]) -> list[str]:
    found = sorted({speaker for files in fsdd_files(Path(folder)).values() for _, _, speaker in files})
    if len(found) < 2:
        raise DataError(f"{folder} holds one speaker alone ({found[0]}); two or more can be told apart")
    return found


def _clips(words: tuple[Word, ...], dataset: str, labels: list[int]) -> Clips:
    texts = [symbols.DIGITS[w.digit] for w in words]
    return pack([w.wave for w in words], samples_of(dataset, WORD_SAMPLES), texts, labels)


# -- identification -------------------------------------------------------------------------------------------------
def speakers(dataset: str, split: str) -> Clips:
    """Single words whose labels are positions in `names(dataset)`, padded or cut as `keywords` are."""
    return _speakers(dataset, split, written(dataset))


@lru_cache(maxsize=8)
def _speakers(dataset: str, split: str, stamp: tuple[Any, ...]) -> Clips:
    words = _speaker_words(dataset, split)
    known = names(dataset)
    return _clips(words, dataset, [known.index(w.speaker) for w in words])


def _speaker_words(dataset: str, split: str) -> tuple[Word, ...]:
    if (found := drawn_of(dataset)) and split == SPLIT:
        return drawn(found.seed, found.count)
    if found or dataset == "synth-digits":
        return voices(range(SYNTH_SPEAKERS), TAKES[split])
    if split == "train":
        return recordings(dataset, "dev") + recordings(dataset, "train")
    return recordings(dataset, split)


def drawn(seed: int, count: int) -> tuple[Word, ...]:
    """Words that a seed draws: any digit of any speaker to tell apart, in takes that no split has."""
    bits = rng.bits(seed, torch.arange(count), (3,), 5)
    digit, voice, take = (bits[:, 0] % 10), (bits[:, 1] % SYNTH_SPEAKERS), (bits[:, 2] % 2**31 + 1000)
    return _spoken(list(zip(digit.tolist(), voice.tolist(), take.tolist(), strict=True)))


def speaker_sizes(dataset: str) -> dict[str, int]:
    """Words in each split of `speakers`, without reading any."""
    if found := drawn_of(dataset):
        return {**speaker_sizes(found.name), SPLIT: found.count}
    if dataset == "synth-digits":
        return {split: 10 * SYNTH_SPEAKERS * len(takes) for split, takes in TAKES.items()}
    return {split: len(files) for split, files in fsdd_files(fsdd_folder(dataset)).items()}


# -- verification ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Trials(Clips):
    """Recordings, each with a claim: labels are 1 where the claim is true (accept), 0 where not (reject).

    Attributes:
        claims: the speaker that each recording claims to be.
        speakers: who it is.
    """

    claims: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()


def enrolled(dataset: str, speaker: str | None = None) -> str:
    """The speaker that trials claim to be: the one named, else the first.

    Raises:
        AdvgymError: for one that the dataset has not.
    """
    synthetic = bool(drawn_of(dataset)) or dataset == "synth-digits"
    known = [str(v) for v in VERIFY_VOICES["test"]] if synthetic else names(dataset)
    if speaker is not None and str(speaker) not in known:
        raise unknown("speaker to enrol", str(speaker), known)
    return known[0] if speaker is None else str(speaker)


def trials(dataset: str, split: str, speaker: str | None = None) -> Trials:
    """Words that all claim to be one enrolled speaker: that speaker's own and everybody else's.

    Of synthetic voices the impostors of "test" are 19 that no net has learnt from, as is the enrolled one; of a folder
    they are the other speakers.
    """
    return _trials(dataset, split, enrolled(dataset, speaker), written(dataset))


@lru_cache(maxsize=8)
def _trials(dataset: str, split: str, claim: str, stamp: tuple[Any, ...]) -> Trials:
    words = _trial_words(dataset, split, claim)
    clips = _clips(words, dataset, [int(w.speaker == claim) for w in words])
    who = tuple(w.speaker for w in words)
    return Trials(clips.wave, clips.length, clips.texts, clips.labels, (claim,) * len(words), who)


def _trial_words(dataset: str, split: str, claim: str) -> tuple[Word, ...]:
    if (found := drawn_of(dataset)) and split == SPLIT:
        return _drawn_trials(found.seed, found.count, int(claim))
    if not found and dataset != "synth-digits":
        return _speaker_words(dataset, split)
    own = int(claim)
    shift = 0 if split == "test" else len(OWN_TAKES)
    takes = range(OWN_TAKES.start + shift, OWN_TAKES.stop + shift)
    plans = [(d, own, t) for t in takes for d in range(10)]
    plans += [(d, v, TAKES["test"].start) for d in range(10) for v in VERIFY_VOICES[split] if v != own]
    order = np.random.default_rng([23, own, shift]).permutation(len(plans))  # genuine and impostors take turns
    return _spoken([plans[i] for i in order])


def _drawn_trials(seed: int, count: int, own: int) -> tuple[Word, ...]:
    """One in three is the enrolled voice, in takes that no split has; impostors are any voices beyond 2,000."""
    bits = rng.bits(seed, torch.arange(count), (4,), 6)
    genuine = bits[:, 3] % 3 == 0
    voice = torch.where(genuine, torch.full_like(bits[:, 1], own), bits[:, 1] % 2**31 + 2000)
    take = bits[:, 2] % 2**31 + 1000
    return _spoken(list(zip((bits[:, 0] % 10).tolist(), voice.tolist(), take.tolist(), strict=True)))


def trial_sizes(dataset: str) -> dict[str, int]:
    """Trials in each split, without reading any."""
    if found := drawn_of(dataset):
        return {**trial_sizes(found.name), SPLIT: found.count}
    if dataset != "synth-digits":
        return speaker_sizes(dataset)
    own = 10 * len(OWN_TAKES)
    return {"train": own + 10 * len(VERIFY_VOICES["train"]), "test": own + 10 * (len(VERIFY_VOICES["test"]) - 1)}


def verification_words(dataset: str, part: str) -> tuple[Word, ...]:
    """What a verifier is made from: "train" to learn from, "dev" for its threshold, "test" to be measured on."""
    if dataset == "synth-digits":
        return voices(VERIFY_VOICES[part], range(4) if part == "train" else range(100, 102))
    return recordings(dataset, part)


def enrolment_words(dataset: str, part: str) -> tuple[Word, ...]:
    """What the speakers of a part's trials are enrolled from: other takes of the same voices, or a folder's "train"."""
    if dataset == "synth-digits":
        return voices(VERIFY_VOICES[part], ENROL_TAKES)
    return recordings(dataset, "train")


def by_speaker(words: tuple[Word, ...], values: Tensor) -> tuple[list[str], list[Tensor]]:
    """Rows of `values` gathered by the speakers of the words, in the order of their names."""
    known = sorted({w.speaker for w in words})
    return known, [values[torch.tensor([w.speaker == name for w in words])] for name in known]
