"""The caller's own victim: a callable of a list of strings, or a module that takes TextInput."""

from __future__ import annotations

from typing import Any

import torch

from advgym.envs.text.inputs import TextInput
from advgym.errors import AdvgymError, VictimError
from advgym.task import Spec
from advgym.victim import Victim, one_hot

PAIR = "\u241e"  # between the two texts of a pair; the one that is not attacked is a single word that holds it


def join_pair(first: str, second: str, attacked: int) -> list[str]:
    """The words of a pair whose text `attacked`, 1 or 2, may be edited; the other one is one word.

    >>> join_pair("a man sleeps", "he is awake", 2) == ["a man sleeps " + PAIR, "he", "is", "awake"]
    True
    """
    return [*first.split(), f"{PAIR} {second}"] if attacked == 1 else [f"{first} {PAIR}", *second.split()]


def is_text(value: Any) -> bool:
    """Whether a sample's text is a string or a pair of strings."""
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, str) for v in value)
    return isinstance(value, str) or pair


def text_words(text: Any, attacked: int) -> list[str]:
    """The words of a text, or of a pair whose text `attacked` may be edited."""
    if attacked not in (1, 2):
        raise AdvgymError(f"attacked is 1 or 2, the text of a pair that is edited, not {attacked!r}")
    return text.split() if isinstance(text, str) else join_pair(text[0], text[1], attacked)


def split_pair(text: str) -> tuple[str, str]:
    """The two texts of a pair.

    >>> split_pair(" ".join(join_pair("a man sleeps", "he is awake", 1)))
    ('a man sleeps', 'he is awake')
    """
    first, _, second = text.partition(PAIR)
    return first.strip(), second.strip()


def unpaired(texts: list[str]) -> list[Any]:
    """What a victim that reads strings is handed: pairs as tuples."""
    return [split_pair(t) if PAIR in t else t for t in texts]


def fit_victim(victim: Victim, classes: int | None = None) -> Victim:
    """A victim that takes TextInput: one with gradients does so itself, any other is handed a list of strings."""
    if victim.access == "gradients":
        return victim
    if not callable(victim.model):
        from advgym.envs.text.sklearn_victims import from_sklearn

        victim = from_sklearn(victim.model, name=victim.name)

    def model(x: TextInput | list[str], **keys: Any) -> Any:
        answer = victim.model(unpaired(x.strings()) if isinstance(x, TextInput) else x, **keys)
        if victim.access == "labels" and classes:
            labels = torch.as_tensor(answer)
            return one_hot(labels, classes) if labels.dim() == 1 else labels
        return answer

    risk = victim.risk

    def risk_of(x: TextInput, **keys: Any) -> Any:
        return risk(unpaired(x.strings()), **keys) if risk is not None else None

    return victim.like(model, risk=None if risk is None else risk_of)


def task_victim(spec: Spec, classes: int | None = None) -> Victim:
    """The victim of a task: its own as it is, the caller's fitted."""
    victim = spec.load_victim()
    return victim if spec.victim is None else fit_victim(victim, classes)


def count_classes(victim: Victim, x: TextInput) -> int:
    """The victim's number of classes, by asking it once."""
    try:
        with torch.no_grad():
            scores = victim(x, torch.zeros(1, dtype=torch.int64)) if victim.keyed else victim(x)
    except AdvgymError:
        raise
    except Exception as error:
        kind = "TextInput (call x.strings() for a list of texts)" if victim.access == "gradients" else "list[str]"
        raise VictimError(
            f"the victim failed on its first text, given as {kind}: {type(error).__name__}: {error}. A module that "
            'reads strings goes in as Victim(module, access="scores").'
        ) from error
    if scores.dim() != 2 or scores.shape[1] < 2:
        raise VictimError(f"a text victim answers (n, classes) with at least 2 classes; it gave {tuple(scores.shape)}")
    return int(scores.shape[1])
