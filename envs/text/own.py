"""The caller's own victim: a callable of a list of strings, or a module that takes TextInput."""

from __future__ import annotations

from typing import Any

import torch

from advgym.envs.text.inputs import TextInput
from advgym.errors import AdvgymError, VictimError
from advgym.task import Spec
from advgym.victim import Victim, one_hot


def fit_victim(victim: Victim, classes: int | None = None) -> Victim:
    """A victim that takes TextInput: one with gradients does so itself, any other is handed a list of strings."""
    if victim.access == "gradients":
        return victim

    def model(x: TextInput | list[str], **keys: Any) -> Any:
        answer = victim.model(x.strings() if isinstance(x, TextInput) else x, **keys)
        if victim.access == "labels" and classes:
            labels = torch.as_tensor(answer)
            return one_hot(labels, classes) if labels.dim() == 1 else labels
        return answer

    risk = victim.risk
    return Victim(
        model, name=victim.name, access=victim.access, keyed=victim.keyed, chunk=victim.chunk, card=victim.card,
        risk=None if risk is None else lambda x, **keys: risk(x.strings(), **keys), threshold=victim.threshold,
    )  # fmt: skip


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
