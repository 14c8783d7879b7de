"""Connected words, and what a recogniser writes of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor

from advgym.core.task import Spec, Task
from advgym.core.victim import Victim
from advgym.envs.speech import probe, symbols
from advgym.envs.speech.constraints.budgets import Dbx, Eps, Norm, Snr, Sounds
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.data import own
from advgym.envs.speech.goals.transcripts import CtcGoal
from advgym.envs.speech.tasks.source import Source, source, task_of
from advgym.errors import AdvgymError
from advgym.lib.options import takes

WER = "the word error rate that counts as a success, such as 0.5; 1 is every word"


class Written(Sounds, kw_only=True):
    """What is read of a recogniser, and when a transcript is another."""

    wer: Annotated[float, Meta(gt=0, le=10, description=WER)] = 0.5
    decode: Annotated[Literal["greedy", "beam"], Meta(description="how scores become a transcript")] = "greedy"
    alphabet: Annotated[str, Meta(description="the symbols of the scores, in order")] = symbols.ALPHABET
    blank: Annotated[int, Meta(description="its index among the scores, -1 for the last")] = 0


class Transcribed(Written, kw_only=True):
    """Of `transcribe`."""

    norm: Norm
    eps: Eps
    snr: Snr
    dbx: Dbx


@takes(Transcribed)
def transcribe(spec: Spec, options: Transcribed) -> Task:
    """Connected words, a transcript: `samples` are (waveform, text) pairs, the victim maps (n, samples) to CTC scores.

    Scores are (n, frames, 1 + len(alphabet)) log-probabilities or logits, the blank at index `blank` (-1 for the last)
    and the alphabet's symbols in order around it. A victim whose card has its `alphabet` is read by that one, and texts
    are put in its case. A recogniser that returns texts is read as one of labels.
    """
    found = source(spec, data.utterances, data.line_sizes, data.LINE_SAMPLES, transcripts=True)
    victim, goal = recogniser(spec, options, found, spec.load_victim())
    return task_of(spec, victim, goal, found, lambda clips: ids_of(clips.texts, goal))


def recogniser(
    spec: Spec, options: Written, found: Source, victim: Victim, more: int = 0
) -> tuple[Victim, CtcGoal]:  # fmt: skip
    """The victim as one of CTC scores with its blank in front, and the goal on its transcripts.

    Args:
        more: samples that its input is longer than a recording.
    """
    free = "alphabet" in spec.threat.constraint
    alphabet, blank, told = _letters(spec, options, victim)
    wide = found.samples + more
    if not alphabet or len(set(alphabet)) != len(alphabet):
        raise AdvgymError(f"alphabet={alphabet!r} must name each symbol once (symbol i is alphabet[i - 1])")
    if probe.writes(victim, wide):
        longest = max((len(t) for clips in found.own.values() for t in clips.texts), default=0)
        victim = probe.spelled(victim, alphabet, longest)
    elif free or told:
        victim = probe.blank_first(victim, blank, len(alphabet) + 1)
    frames = probe.frames(victim, wide, alphabet, "; another order or alphabet: alphabet=, blank=" if free else "")
    vocabulary: tuple[str, ...] = symbols.DIGITS
    if found.own:
        own.spell(found.own, alphabet)
        vocabulary = tuple(sorted({word for text in found.own["test"].texts for word in text.split()}))
        own.check_texts(found.own, alphabet, frames)
    vocabulary = tuple(dict.fromkeys(symbols.spelled(word, alphabet) for word in vocabulary))
    goal = CtcGoal(
        frames, alphabet, spec.threat.goal, vocabulary, wer=options.wer, decode=options.decode
    )  # fmt: skip
    return victim, goal


def _letters(spec: Spec, options: Written, victim: Victim) -> tuple[str, Any, bool]:
    """(alphabet, index of the blank, whether the victim's card says so): options first, then the card, then the row."""
    row = spec.row.get("constraint", {})
    own = "alphabet" in spec.threat.constraint and options.alphabet != row.get("alphabet")
    told = "alphabet" in victim.card and not own
    alphabet = victim.card["alphabet"] if told else options.alphabet
    blank = victim.card.get("blank", 0) if told else options.blank
    return str(alphabet), blank, told


def ids_of(texts: tuple[str, ...], goal: CtcGoal) -> Tensor:
    """Transcripts as symbol ids (n, frames)."""
    frames = goal.output_shape[0]
    ids = [symbols.encode(t, goal.alphabet, frames) for t in texts]
    return torch.tensor(ids, dtype=torch.int64).reshape(-1, frames)
