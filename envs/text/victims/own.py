"""The caller's own victim: a callable of a list of strings, or a module that takes TextInput."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from advgym.core.task import Spec
from advgym.core.victim import Victim, one_hot
from advgym.envs.text.data import labels
from advgym.envs.text.goals.answers import KINDS, kind_of, only_classes
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.inputs.spacing import Spacing
from advgym.envs.text.inputs.text_pairs import unpaired
from advgym.envs.text.inputs.vocabulary import Vocabulary, pad_rows
from advgym.envs.text.victims.pipelines import from_sklearn
from advgym.errors import AdvgymError, VictimError

if TYPE_CHECKING:
    from advgym.envs.text.data.rows import Rows


def scores_of(answer: Any, name: str = "own") -> Tensor:
    """The scores of what a model answers: a tensor, an array, lists, an output of transformers or a tuple; float32.

    Raises:
        VictimError: it is none of them; says what is.
    """
    if isinstance(answer, dict) or hasattr(answer, "logits"):
        logits = answer.get("logits") if isinstance(answer, dict) else answer.logits
        if logits is None:
            raise VictimError(f"victim {name!r} answers {type(answer).__name__} without logits; {WANTED}")
        return scores_of(logits, name)
    if isinstance(answer, tuple) and answer and not isinstance(answer[0], int | float):
        # (logits, hidden states ...), or (loss, logits) of a model that was given labels
        some = [a for a in answer if getattr(a, "ndim", 0) == 2]
        if some or any(isinstance(a, Tensor) for a in answer):
            return scores_of(some[0] if some else answer[0], name)
    if not isinstance(answer, Tensor):
        try:
            if isinstance(answer, list | tuple) and answer and isinstance(answer[0], Tensor):
                answer = torch.stack([torch.as_tensor(a) for a in answer])
            else:
                answer = torch.as_tensor(np.asarray(answer))
        except (TypeError, ValueError, RuntimeError) as error:
            raise VictimError(
                f"victim {name!r} answers {str(answer)[:60]}, which is no array: {error}; {WANTED}"
            ) from None
    if answer.is_complex():
        raise VictimError(f"victim {name!r} answers complex numbers; {WANTED}")
    return answer if answer.dtype == torch.float32 else answer.float()


WANTED = (
    "want scores (n, classes), one row per text: a tensor, an array or lists, such as lambda texts: model(texts).logits"
)


class Answering(nn.Module):
    """A module that answers anything but a float32 tensor, as one that does."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x: TextInput, **keys: Any) -> Tensor:
        """Scores of each text."""
        return scores_of(self.model(x, **keys), self.name)


def fit_victim(victim: Victim, classes: int | None = None, names: Sequence[Any] | None = None) -> Victim:
    """A victim that takes TextInput and answers float32 scores: one with gradients itself, others by a list of strings.

    Args:
        victim: the caller's.
        classes: how many, for one that answers labels.
        names: theirs, where labels are no numbers from 0.
    """
    if victim.access == "gradients":
        return victim
    if not callable(victim.model):
        card = victim.card
        victim = from_sklearn(victim.model, name=victim.name)
        victim.card = {**victim.card, **card}

    def model(x: TextInput | list[str], **keys: Any) -> Any:
        answer = victim.model(unpaired(x.strings()) if isinstance(x, TextInput) else x, **keys)
        if victim.access == "labels" and classes:
            return _one_hot(answer, classes, names, victim.name)
        return scores_of(answer, victim.name)

    risk = victim.risk

    def risk_of(x: TextInput, **keys: Any) -> Any:
        return risk(unpaired(x.strings()), **keys) if risk is not None else None

    return victim.like(model, risk=None if risk is None else risk_of)


def _one_hot(answer: Any, classes: int, names: Sequence[Any] | None, name: str) -> Tensor:
    """Scores of labels: numbers from 0, or whatever `names` are; scores pass as they are."""
    if isinstance(answer, Tensor | np.ndarray) and answer.ndim == 2:
        return scores_of(answer, name)
    values = list(answer) if hasattr(answer, "__len__") or hasattr(answer, "__iter__") else [answer]
    if values and isinstance(values[0], list | tuple):
        return scores_of(answer, name)
    known = list(range(classes)) if names is None else list(names)
    where = [f"victim {name!r}, answer {i}" for i in range(len(values))]
    stands = Victim(len, name=name, card={} if names is None else {"classes": known})
    try:
        return (
            one_hot(labels.meet(values, where, stands, len(known)), len(known)) if values else torch.zeros(0, classes)
        )
    except AdvgymError as error:
        raise VictimError(
            f"{error}. The classes are those of the samples' labels, {labels.listed(known)}; where the victim has more "
            f'of them, name all: Victim(f, access="labels", card={{"classes": [...]}})'
        ) from None


def task_victim(spec: Spec, classes: int | None = None) -> Victim:
    """The victim of a task: its own as it is, the caller's fitted."""
    victim = only_classes(spec.load_victim(), spec.name)
    return victim if spec.victim is None else fit_victim(victim, classes)


def first_text(words: list[str], gaps: list[str]) -> TextInput:
    """One text alone."""
    vocabulary, spacing = Vocabulary(dict.fromkeys(words)), Spacing([gaps])
    ids, width = vocabulary.encode(words), max(len(words), 1)
    return TextInput(pad_rows([ids], width), vocabulary, gaps=(spacing.rows([gaps], width), spacing.texts))


def own_victim(spec: Spec, rows: Rows, x: TextInput) -> tuple[Victim, int]:
    """(the victim of the caller's samples, its number of classes, found by asking about one text)."""
    victim = spec.load_victim()
    if kind := kind_of(victim):
        return _count_answers(victim if spec.victim is None else fit_victim(victim), x, kind)
    names = labels.class_names(victim)
    if names is not None:
        victim = copy.copy(victim)
        victim.card = {**victim.card, "classes": names}
    if victim.access == "labels":
        found = [labels.plain(v) for v in rows.labels]
        words = sorted({v for v in found if isinstance(v, str)})
        if names is None and words:
            names = words
            victim = copy.copy(victim)
            victim.card = {**victim.card, "classes": words}
        most = max((v for v in found if isinstance(v, int)), default=1)
        classes = max(2, most + 1) if names is None else len(names)
        return fit_victim(victim, classes, names), classes
    if spec.victim is not None:
        victim = fit_victim(victim)
    return count_classes(victim, x)


def named_classes(victim: Victim, classes: int) -> list[str] | None:
    """The names of the victim's classes as reports show them; None where it has none."""
    names = labels.class_names(victim)
    return None if names is None or len(names) != classes else [str(n) for n in names]


def _count_answers(victim: Victim, x: TextInput, kind: str) -> tuple[Victim, int]:
    """(the victim, how many numbers or labels it answers)."""
    if victim.access == "labels":
        raise VictimError(f"victim {victim.name!r} answers {KINDS[kind]}: want their scores, access='scores'")
    victim, scores = _first_scores(victim, x)
    if scores.dim() != 2 or len(scores) != len(x) or not scores.shape[1]:
        raise VictimError(f"victim {victim.name!r} answered {tuple(scores.shape)} to one text; want (n, {KINDS[kind]})")
    names = labels.class_names(victim) if kind == "several" else None
    if names is not None and len(names) != scores.shape[1]:
        raise VictimError(f"victim {victim.name!r} gives {scores.shape[1]} scores and names {len(names)} labels")
    return victim, int(scores.shape[1])


def _first_scores(victim: Victim, x: TextInput) -> tuple[Victim, Tensor]:
    """(the victim, answering float32 scores; those of one text)."""
    try:
        with torch.no_grad(), victim.tally.asking(len(x)):
            raw = victim.model(x, **({"keys": torch.zeros(1, dtype=torch.int64)} if victim.keyed else {}))
        if victim.access == "gradients" and not (isinstance(raw, Tensor) and raw.dtype == torch.float32):
            victim = copy.copy(victim)
            victim.model = Answering(victim.model, victim.name)  # type: ignore[arg-type]
        scores = scores_of(raw, victim.name)
    except AdvgymError:
        raise
    except Exception as error:
        kind = "TextInput (call x.strings() for a list of texts)" if victim.access == "gradients" else "list[str]"
        raise VictimError(
            f"the victim failed on its first text, given as {kind}: {type(error).__name__}: {error}. A module that "
            'reads strings goes in as Victim(module, access="scores").'
        ) from error
    return victim, scores


def count_classes(victim: Victim, x: TextInput) -> tuple[Victim, int]:
    """(the victim, answering float32 scores; its number of classes), by asking it once."""
    victim, scores = _first_scores(victim, x)
    if scores.dim() > 0 and len(scores) != len(x):
        raise VictimError(
            f"victim {victim.name!r} answered {tuple(scores.shape)} to one text; want one row of scores per input"
        )
    if scores.dim() != 2 or scores.shape[1] < 2:
        raise VictimError(
            f"a text victim answers (n, classes) with at least 2 classes; it gave {tuple(scores.shape)} to one text. "
            "One score z of two classes is [0, z]"
        )
    return victim, int(scores.shape[1])
