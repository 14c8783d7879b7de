"""Where a speech task's recordings come from, and a task of waveforms added to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.goals import Goal
from advgym.core.task import Spec, Task, untrained
from advgym.core.victim import Victim
from advgym.envs.speech.constraints.budgets import VICTIMS, check_clips, check_constraint
from advgym.envs.speech.data import decoding, own
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.measures.columns import columns
from advgym.envs.speech.perturb import clips as perturbed
from advgym.envs.speech.show.frames import draw
from advgym.envs.speech.show.recording import line, show
from advgym.envs.speech.show.saved import save
from advgym.envs.speech.victims.listening import heard_at
from advgym.lib.given import names_of

# (ids, labels, clips, lengths, constraint, rate) -> a batch
Make = Callable[[Tensor, Tensor, Tensor, Tensor, Mapping[str, Any], int], Batch]


@dataclass(frozen=True)
class Source:
    """A task's clips: the caller's, or a dataset's splits, read when first dealt."""

    samples: int  # per recording
    sizes: Mapping[str, int]
    load: Callable[[str], data.Clips]
    own: dict[str, data.Clips]  # the caller's splits
    notes: tuple[str, ...] = ()


def source(
    spec: Spec, load: Callable[[str, str], data.Clips], sizes: Callable[[str], dict[str, int]], samples: dict[str, int],
    *, transcripts: bool, names: Sequence[str] = (), bounded: bool = True,
) -> Source:  # fmt: skip
    """The recordings that a task is given, or those of its dataset.

    Args:
        load, sizes, samples: of datasets: a split's recordings, how many, and samples of each.
        transcripts: labels are texts.
        names: of classes, which the caller's labels may be given by where the victim has none.
        bounded: the constraint is a budget of an added waveform.
    """
    if bounded:
        check_constraint(spec.threat.constraint)
    rate = rate_of(spec)
    if spec.samples is None and ("dataset" in spec.row or data.known(spec.load_dataset())):
        dataset = spec.load_dataset()
        wide = data.samples_of(dataset, samples)
        real = dataset.partition("#")[0] != "synth-digits"
        notes: tuple[str, ...] = (
            (f"recordings are scaled to one peak and cut or padded to {wide} samples",) if real else ()
        )
        if rate == data.RATE:
            return Source(wide, sizes(dataset), partial(load, dataset), {}, notes)
        notes += (f"recordings of {data.RATE} Hz are resampled to {rate} Hz",)
        wide = decoding.width_at(wide, data.RATE, rate)
        return Source(
            wide, sizes(dataset), lambda split: decoding.resampled(load(dataset, split), data.RATE, rate), {}, notes
        )
    # The row's own victim was trained on recordings of one length.
    fixed = samples.get(str(spec.row.get("dataset"))) if spec.victim is None else None
    parts, read = own.read_own(
        spec, load, names_of(spec.victim) or list(names), transcripts=transcripts, length=fixed, rate=rate,
        given=given_rate(spec),
    )  # fmt: skip
    wide = parts["test"].wave.shape[1]
    for split, clips in parts.items():
        if bounded:
            check_clips(clips, wide, spec.threat.constraint, own.CALLED[split])
    return Source(wide, {split: len(clips) for split, clips in parts.items()}, parts.__getitem__, parts, read)


def given_rate(spec: Spec) -> int | None:
    """The option `rate`, in Hz; None where it follows the victim."""
    given = spec.threat.constraint.get("rate", VICTIMS)
    return None if given == VICTIMS else decoding.check_rate(given, "rate")


def rate_of(spec: Spec) -> int:
    """Samples per second that the victim hears: as its card says, else the option `rate`, else 8,000."""
    given = given_rate(spec)
    if spec.victim is not None and "rate" in spec.victim.card:
        return decoding.check_rate(spec.victim.card["rate"], f"the rate of victim {spec.victim.name!r}")
    return data.RATE if given is None else given


def task_of(
    spec: Spec, victim: Victim, goal: Goal, found: Source, labels: Callable[[data.Clips], Tensor],
    make: Make = perturbed.batch_of, *, bounded: bool = True,
) -> Task:  # fmt: skip
    """The task of one perturbation for each recording.

    Args:
        labels: the truth of a split's clips.
        make: the batch of some of them.
        bounded: as of `source`.
    """
    held: dict[str, tuple[data.Clips, Tensor]] = {}
    rate = rate_of(spec)

    def deal(split: str, ids: list[int], device: Any) -> Batch:
        if split not in held:  # one task is about the recordings as it found them
            clips = found.load(split)
            if bounded:
                check_clips(clips, found.samples, spec.threat.constraint, f"clips of split {split!r},")
            held[split] = clips, labels(clips)
        clips, truth = held[split]
        index = torch.tensor(ids, dtype=torch.int64)
        wave = clips.wave[index].float() / data.LEVELS
        ids_, labels_, x, length = (t.to(device) for t in (index, truth[index], wave, clips.length[index]))
        return make(ids_, labels_, x, length, spec.threat.constraint, rate)

    return finished(Task(
        spec.name, victim, goal, spec.threat, found.sizes, deal, context={"rate": rate}, notes=found.notes,
        columns=columns(goal, rate), adapt=partial(heard_at, rate=rate), offers=frozenset({"waveform"}),
    ), found)  # fmt: skip


def finished(task: Task, found: Source) -> Task:
    """The task with what shows and saves it, and without a split to train on where there is none."""
    if found.own and "train" not in found.own:
        task = untrained(task)
    elif not found.sizes.get("train"):
        task = untrained(task, f"no recording is for training: want files named {data.NAMING}")
    task.show, task.line, task.save = partial(show, task=task), partial(line, task=task), partial(save, task=task)
    task.draw = draw
    return task
