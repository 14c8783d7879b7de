"""Utterances, and what an encoder-decoder (Whisper) writes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from advgym.core.task import Spec, Task
from advgym.core.victim import Victim
from advgym.envs.speech.constraints.budgets import Budget
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.goals.sequences import SequenceGoal
from advgym.envs.speech.tasks.source import source, task_of
from advgym.envs.speech.victims.writing import Writer
from advgym.errors import AdvgymError, VictimError
from advgym.lib.options import takes


class Dictated(Budget, kw_only=True):
    """Of `dictate`."""

    share: Annotated[float, Meta(gt=0, description="the token error rate that counts as a success")]
    words: Annotated[str, Meta(description="words that targets can be named with, besides those of clean outputs")]


@takes(Dictated)
def dictate(spec: Spec, options: Dictated) -> Task:
    """`samples` are (waveform, text) pairs; the victim is Whisper, `transformers:SOURCE`.

    Scores are over the tokens of the clean outputs of all samples, of their texts, and of the option `words`, with
    which targets can be named.
    """
    victim = spec.load_victim()
    writer = victim.model
    if not isinstance(writer, Writer):
        raise VictimError(
            f"{spec.name} attacks Whisper: victim='transformers:/a/folder'. CTC recognisers, and callables that return "
            "texts, play speech/transcribe"
        )
    found = source(spec, data.utterances, data.line_sizes, data.LINE_SAMPLES, transcripts=True)
    test = found.load("test")
    clean = writer.outputs(test.wave.to(writer.keep.device).float() / data.LEVELS).cpu()
    truth = [writer.ids(text) for text in test.texts]
    extra = writer.ids(options.words)
    marks = {*writer.ends, *writer.prefix, -1}
    keep = torch.tensor(sorted({*clean.flatten().tolist(), *extra, *(i for t in truth for i in t)} - marks))
    place = {int(i): k + 1 for k, i in enumerate(keep)}
    narrow = writer.narrowed(keep)

    def write(tokens: Sequence[int]) -> str:
        return writer.text([int(keep[t - 1]) for t in tokens if 0 < t <= len(keep)])

    def read(text: str) -> list[int]:
        ids = writer.ids(text)
        lost = [i for i in ids if i not in place]
        if lost:
            raise AdvgymError(
                f"the target {text!r} has tokens that no clean output has ({writer.text(lost)!r}): "
                f"name them when the task is made, words={text!r}"
            )
        return [place[i] for i in ids]

    def ids_of(texts: tuple[str, ...]) -> Tensor:
        rows = [[place.get(i, len(keep) + 1) for i in writer.ids(t)][: writer.length] for t in texts]
        return torch.tensor([r + [-1] * (writer.length - len(r)) for r in rows]).reshape(-1, writer.length)

    pool = torch.tensor([[place.get(i, -1) for i in row] for row in clean.tolist()])
    goal = SequenceGoal(
        len(keep), writer.length, spec.threat.goal, write=write, read=read, pool=pool,
        share=options.share,
    )  # fmt: skip

    def adapt(other: Victim) -> Victim:
        if not isinstance(other.model, Writer):
            raise VictimError(f"the surrogate of {spec.name} is another Whisper, not {other.name!r}")
        return other.like(other.model.narrowed(keep))

    made = task_of(spec, victim.like(narrow), goal, found, lambda clips: ids_of(clips.texts))
    return replace(made, adapt=adapt)
