"""One class for each recording: a spoken word, or who speaks it."""

from __future__ import annotations

from advgym.core.goals import ClassGoal
from advgym.core.task import Spec, Task
from advgym.envs.speech import data, own, probe, symbols
from advgym.envs.speech.tasks.source import source, task_of
from advgym.lib.given import names_of


def keyword(spec: Spec) -> Task:
    """One word, a class: `samples` are (waveform, class) pairs, the victim maps (n, samples) to (n, classes)."""
    found = source(spec, data.keywords, data.word_sizes, data.WORD_SAMPLES, transcripts=False)
    known = own.most_label(found.own) + 1 if found.own else len(symbols.DIGITS)
    victim, classes = probe.classifier(spec.load_victim(), found.samples, known)
    own.check_labels(found.own, classes, victim.name)
    digits = classes == len(symbols.DIGITS) and "dataset" in spec.row
    names = names_of(victim) or (list(symbols.DIGITS) if digits else [])
    goal = ClassGoal(classes, spec.threat.goal, names if len(names) == classes else None)
    return task_of(spec, victim, goal, found, lambda clips: clips.labels)
