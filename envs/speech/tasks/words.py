"""One class for each recording: a spoken word, who speaks it, or whether the enrolled speaker does."""

from __future__ import annotations

from collections.abc import Callable

from advgym.core.goals import ClassGoal
from advgym.core.task import Spec, Task
from advgym.envs.speech import probe, symbols
from advgym.envs.speech.constraints.budgets import Budget
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.data import own, speakers
from advgym.envs.speech.data.clips import Clips
from advgym.envs.speech.tasks.source import source, task_of
from advgym.lib.given import names_of
from advgym.lib.options import takes


@takes(Budget)
def keyword(spec: Spec, options: Budget) -> Task:
    """One word, a class: `samples` are (waveform, class) pairs, the victim maps (n, samples) to (n, classes)."""
    digits = list(symbols.DIGITS) if "dataset" in spec.row else []
    return _classes(spec, data.keywords, data.word_sizes, digits)


@takes(Budget)
def speaker(spec: Spec, options: Budget) -> Task:
    """Who speaks: as `keyword`, and the classes are the dataset's speakers."""
    known = speakers.names(spec.load_dataset()) if "dataset" in spec.row and spec.samples is None else []
    return _classes(spec, speakers.speakers, speakers.speaker_sizes, known)


@takes(Budget)
def verify(spec: Spec, options: Budget) -> Task:
    """Whether the enrolled speaker speaks: classes "reject" and "accept"; the victim holds the enrolment and threshold.

    Untargeted, an attack turns the decision; `goal="targeted"` with the target "accept" is a false acceptance.
    """
    return _classes(spec, speakers.trials, speakers.trial_sizes, ["reject", "accept"])


def _classes(
    spec: Spec, load: Callable[[str, str], Clips], sizes: Callable[[str], dict[str, int]], names: list[str]
) -> Task:
    found = source(spec, load, sizes, data.WORD_SAMPLES, transcripts=False, names=names)
    known = own.most_label(found.own) + 1 if found.own else len(names)
    victim, classes = probe.classifier(spec.load_victim(), found.samples, max(known, 2))
    own.check_labels(found.own, classes, victim.name)
    names = names_of(victim) or names
    goal = ClassGoal(classes, spec.threat.goal, names if len(names) == classes else None)
    return task_of(spec, victim, goal, found, lambda clips: clips.labels)
