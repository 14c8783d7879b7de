"""Transcripts over the air: the perturbed clip is played in a room, and the verdict is in rooms that are new."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from msgspec import Meta

from advgym.core.task import Spec, Task
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.perturb.air import over_air
from advgym.envs.speech.tasks.source import rate_of, source, task_of
from advgym.envs.speech.tasks.transcripts import Transcribed, ids_of, recogniser
from advgym.lib.options import takes


class Heard(Transcribed, kw_only=True):
    """Of `rooms`."""

    rooms: Annotated[int, Meta(ge=1, le=64, description="of which one answer is the mean, at the price of one query")]


@takes(Heard)
def rooms(spec: Spec, options: Heard) -> Task:
    """As `transcripts.transcribe`, heard through the impulse responses of rooms that every answer draws anew."""
    found = source(spec, data.utterances, data.line_sizes, data.LINE_SAMPLES, transcripts=True)
    victim, goal = recogniser(spec, options, found, spec.load_victim())
    heard = partial(over_air, rate=rate_of(spec), draws=options.rooms)
    task = task_of(spec, heard(victim), goal, found, lambda clips: ids_of(clips.texts, goal))
    task.adapt = heard
    return task
