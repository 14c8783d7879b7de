"""Transcripts over the air: the perturbed clip is played in a room, and the verdict is in rooms that are new."""

from __future__ import annotations

from functools import partial

from advgym.core.task import Spec, Task
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.perturb.air import over_air
from advgym.envs.speech.tasks.source import rate_of, source, task_of
from advgym.envs.speech.tasks.transcripts import ids_of, recogniser
from advgym.errors import AdvgymError


def rooms(spec: Spec) -> Task:
    """As `transcripts.transcribe`, heard through the impulse responses of rooms that are drawn anew for every answer.

    Options: `rooms`, how many one answer is the mean of (an expectation over rooms, at the price of one query).
    """
    found = source(spec, data.utterances, data.line_sizes, data.LINE_SAMPLES, transcripts=True)
    victim, goal = recogniser(spec, found, spec.load_victim())
    many = spec.threat.constraint["rooms"]
    if isinstance(many, bool) or not isinstance(many, int) or not 1 <= many <= 64:
        raise AdvgymError(f"rooms={many!r} is how many rooms one answer is the mean of, 1 to 64")
    heard = partial(over_air, rate=rate_of(spec), draws=many)
    task = task_of(spec, heard(victim), goal, found, lambda clips: ids_of(clips.texts, goal))
    task.adapt = heard
    return task
