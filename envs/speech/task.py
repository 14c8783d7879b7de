"""The speech tasks: a Field added to the 16-bit samples of a recording, inside its real length."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core.field import FieldBatch
from advgym.core.goals import ClassGoal, Goal
from advgym.core.task import Spec, Task, untrained
from advgym.core.victim import Victim
from advgym.envs.speech import data, own, probe, symbols
from advgym.envs.speech.goals import CtcGoal
from advgym.envs.speech.show import line, show
from advgym.errors import AdvgymError, DataError, unknown
from advgym.lib.given import check_radius, names_of

NORMS = ("linf", "l2", "snr")
BINS = 64  # points of the envelope that a policy sees


class ClipBatch(FieldBatch):
    """B recordings (B, samples) in [-1, 1) on the 16-bit lattice; padding cannot be attacked.

    Args:
        x: float32 (B, samples), canonical.
        length: int64 (B,): samples before the padding.
        constraint: norm, eps, snr. "linf" and "l2" are balls of radius eps in full-scale units; "snr" is the L2 ball
            of radius ||x|| 10^(-snr/20): the noise is at least `snr` dB below the clip's power.
        rate: samples per second, for listening only.
    """

    shown = "length rate"

    def __init__(
        self, ids: Tensor, labels: Tensor, x: Tensor, length: Tensor, constraint: Mapping[str, Any],
        rate: int = data.RATE,
    ) -> None:  # fmt: skip
        norm = constraint["norm"]
        inside = torch.arange(x.shape[1], device=x.device) < length.unsqueeze(1)
        radius: Tensor | float = float(constraint["eps"])
        if norm == "snr":
            radius = x.double().square().sum(1).sqrt() * 10.0 ** (-float(constraint["snr"]) / 20.0)
        super().__init__(
            ids, labels, x, radius=radius, norm="l2" if norm == "snr" else norm, lattice=data.LEVELS, low=-1.0,
            high=(data.LEVELS - 1) / data.LEVELS, support=inside,
        )  # fmt: skip
        self.length, self.rate = length, rate

    def view(self) -> dict[str, Tensor]:
        """The clip's loudness over time, (B, 64): log10 of its mean power in each of 64 parts, floored at 1e-6."""
        power = F.adaptive_avg_pool1d(self.x.square().unsqueeze(1), BINS).squeeze(1)
        return {"envelope": torch.log10(power + 1e-6)}


def check_constraint(name: str, constraint: Mapping[str, Any]) -> None:
    """Refuse a norm that does not exist and a ball that holds nothing."""
    if constraint["norm"] not in NORMS:
        raise unknown(f"norm of {name}", constraint["norm"], NORMS)
    try:
        eps, snr = float(constraint["eps"]), float(constraint["snr"])
    except (TypeError, ValueError):
        raise AdvgymError(f"eps and snr are numbers, not {constraint['eps']!r} and {constraint['snr']!r}") from None
    if not (math.isfinite(eps) and eps * data.LEVELS >= 1):
        raise AdvgymError(
            f"eps={eps:g} is less than one 16-bit step; want at least {1 / data.LEVELS:.2g} (full scale is 1)"
        )
    if constraint["norm"] == "linf":
        meant = f" Full scale is 1: {eps:g} steps of 16 bits are eps={eps / data.LEVELS:.3g}." if eps > 1 else ""
        check_radius("eps", eps, most=1.0, hint=meant)
    if not math.isfinite(snr) or snr < 0:
        raise AdvgymError(f"snr={snr} is a number of dB from 0 on: below 0 the noise is louder than the clip")


def check_clips(clips: data.Clips, samples: int, constraint: Mapping[str, Any], what: str) -> None:
    """Refuse a ball that covers the box, and clips in whose ball nothing but the clip itself is."""
    norm, step = constraint["norm"], 1 / data.LEVELS
    if norm == "l2":
        check_radius("eps", float(constraint["eps"]), most=math.sqrt(samples))
    if norm != "snr":
        return
    loud = (clips.wave.double() / data.LEVELS).square().sum(1).sqrt()
    short = (loud * 10.0 ** (-float(constraint["snr"]) / 20.0) < step).nonzero().flatten().tolist()
    if short:
        which = ", ".join(map(str, short[:8])) + (" ..." if len(short) > 8 else "")
        silent = "silent" if float(loud[short[0]]) == 0 else "too soft"
        raise DataError(
            f"{what} {which}: {silent} for snr={constraint['snr']:g}, whose noise would be less than one 16-bit step. "
            "Leave such clips out, take a smaller snr=, or norm='linf' with eps="
        )


def keyword(spec: Spec) -> Task:
    """One word, a class: `samples` are (waveform, class) pairs, the victim maps (n, samples) to (n, classes)."""
    source = _source(spec, data.keywords, data.word_sizes, data.WORD_SAMPLES, transcripts=False)
    known = own.most_label(source.own) + 1 if source.own else len(symbols.DIGITS)
    victim, classes = probe.classifier(spec.load_victim(), source.samples, known)
    own.check_labels(source.own, classes, victim.name)
    digits = classes == len(symbols.DIGITS) and "dataset" in spec.row
    names = names_of(victim) or (list(symbols.DIGITS) if digits else [])
    goal = ClassGoal(classes, spec.threat.goal, names if len(names) == classes else None)
    return _task(spec, victim, goal, source, lambda clips: clips.labels)


def transcribe(spec: Spec) -> Task:
    """Connected words, a transcript: `samples` are (waveform, text) pairs, the victim maps (n, samples) to CTC scores.

    Scores are (n, frames, 1 + len(alphabet)) log-probabilities or logits, the blank at index `blank` (-1 for the last)
    and the alphabet's symbols in order around it. A recogniser that returns texts is read as one of labels.
    """
    source = _source(spec, data.utterances, data.line_sizes, data.LINE_SAMPLES, transcripts=True)
    victim = spec.load_victim()
    free = "alphabet" in spec.threat.constraint
    alphabet = str(spec.threat.constraint["alphabet"]) if free else symbols.ALPHABET
    if not alphabet or len(set(alphabet)) != len(alphabet):
        raise AdvgymError(f"alphabet={alphabet!r} must name each symbol once (symbol i is alphabet[i - 1])")
    if probe.writes(victim, source.samples):
        longest = max((len(t) for clips in source.own.values() for t in clips.texts), default=0)
        victim = probe.spelled(victim, alphabet, longest)
    elif free:
        victim = probe.blank_first(victim, spec.threat.constraint["blank"], len(alphabet) + 1)
    frames = probe.frames(
        victim, source.samples, alphabet, "; another order or alphabet: alphabet=, blank=" if free else ""
    )
    vocabulary: tuple[str, ...] = symbols.DIGITS
    if source.own:
        vocabulary = tuple(sorted({word for text in source.own["test"].texts for word in text.split()}))
        own.check_texts(source.own, alphabet, frames)
    goal = CtcGoal(frames, alphabet, spec.threat.goal, vocabulary)
    return _task(spec, victim, goal, source, lambda clips: _ids(clips.texts, alphabet, frames))


def _ids(texts: tuple[str, ...], alphabet: str, frames: int) -> Tensor:
    return torch.tensor([symbols.encode(t, alphabet, frames) for t in texts], dtype=torch.int64).reshape(-1, frames)


@dataclass(frozen=True)
class _Source:
    """Where a task's clips come from: the caller, or a dataset's splits, read when first dealt."""

    samples: int  # per recording
    sizes: Mapping[str, int]
    load: Callable[[str], data.Clips]
    own: dict[str, data.Clips]  # the caller's splits
    notes: tuple[str, ...] = ()


def _source(
    spec: Spec, load: Callable[[str, str], data.Clips], sizes: Callable[[str], dict[str, int]], samples: dict[str, int],
    *, transcripts: bool,
) -> _Source:  # fmt: skip
    check_constraint(spec.name, spec.threat.constraint)
    if spec.samples is None:
        dataset = spec.load_dataset()
        wide = data.samples_of(dataset, samples)
        real = dataset.partition("#")[0] != "synth-digits"
        notes = (f"recordings are scaled to one peak and cut or padded to {wide} samples",) if real else ()
        return _Source(wide, sizes(dataset), partial(load, dataset), {}, notes)
    # The row's own victim was trained on recordings of one length.
    fixed = samples.get(str(spec.row.get("dataset"))) if spec.victim is None else None
    names = names_of(spec.victim) or (list(symbols.DIGITS) if "dataset" in spec.row and not transcripts else [])
    parts, moved = own.read_own(spec, load, names, transcripts=transcripts, length=fixed)
    wide = parts["test"].wave.shape[1]
    for split, clips in parts.items():
        check_clips(clips, wide, spec.threat.constraint, own.CALLED[split])
    notes = ("waveforms are rounded to 16 bits",) if moved else ()
    return _Source(wide, {split: len(clips) for split, clips in parts.items()}, parts.__getitem__, parts, notes)


def _task(spec: Spec, victim: Victim, goal: Goal, source: _Source, labels: Callable[[data.Clips], Tensor]) -> Task:
    held: dict[str, tuple[data.Clips, Tensor]] = {}
    rate = int(spec.threat.constraint.get("rate", data.RATE))

    def deal(split: str, ids: list[int], device: Any) -> ClipBatch:
        if split not in held:  # one task is about the recordings as it found them
            clips = source.load(split)
            check_clips(clips, source.samples, spec.threat.constraint, f"clips of split {split!r},")
            held[split] = clips, labels(clips)
        clips, truth = held[split]
        index = torch.tensor(ids, dtype=torch.int64)
        wave = clips.wave[index].float() / data.LEVELS
        truths, length = truth[index].to(device), clips.length[index].to(device)
        return ClipBatch(index.to(device), truths, wave.to(device), length, spec.threat.constraint, rate)

    task = Task(spec.name, victim, goal, spec.threat, source.sizes, deal, context={"rate": rate}, notes=source.notes,
                offers=frozenset({"waveform"}))  # fmt: skip
    if source.own and "train" not in source.own:
        task = untrained(task)
    elif not source.sizes.get("train"):
        task = untrained(task, f"no recording is for training: want files named {data.NAMING}")
    task.show, task.line = partial(show, task=task), partial(line, task=task)
    return task
