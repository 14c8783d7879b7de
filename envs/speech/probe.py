"""What a victim answers with, learnt from one recording, and label-only victims made readable by every goal."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.errors import AdvgymError, VictimError
from advgym.victim import Victim, one_hot


@torch.no_grad()
def ask(victim: Victim, samples: int) -> Tensor:
    """The victim's answer to one recording of silence, (1, ...).

    Raises:
        VictimError: where it fails on float32 (1, samples), or answers with what is not finite.
    """
    first = next(victim.module.parameters(), None) if victim.module is not None else None
    x = torch.zeros(1, samples, device=None if first is None else first.device)
    keys = torch.zeros(1, dtype=torch.int64, device=x.device) if victim.keyed else None
    try:
        scores = victim(x, keys)
    except AdvgymError:
        raise
    except Exception as error:
        raise VictimError(
            f"victim {victim.name!r} fails on a float32 batch of waveforms {tuple(x.shape)} in [-1, 1): {error}"
        ) from error
    if bool(torch.isnan(scores).any()):
        raise VictimError(f"victim {victim.name!r} answers NaN to silence: floor its logarithms and norms")
    return scores


def classifier(victim: Victim, samples: int, known: int) -> tuple[Victim, int]:
    """The victim and its number of classes; one of labels alone becomes one of one-hot scores.

    Args:
        victim: of waveforms (n, samples).
        samples: per recording.
        known: classes that the samples name, for a victim of labels whose card has no "classes".
    """
    scores = ask(victim, samples)
    if victim.access == "labels" and scores.dim() == 1:
        classes = int(victim.card.get("classes", 0)) or max(known, int(scores[0]) + 1, 2)
        return labels_only(victim, classes), classes
    if scores.dim() != 2 or scores.shape[1] < 2:
        raise VictimError(
            f"victim {victim.name!r} answers {tuple(scores.shape)} to one recording; want (1, classes), two classes or "
            "more (labels alone need Victim(model, access='labels'))"
        )
    return victim, scores.shape[1]


def labels_only(victim: Victim, classes: int) -> Victim:
    """One-hot scores in place of labels."""

    def model(x: Tensor, keys: Tensor | None = None) -> Tensor:
        labels = victim(x, keys).long()
        if not bool(((labels >= 0) & (labels < classes)).all()):
            raise VictimError(
                f"victim {victim.name!r} answered a label outside 0 to {classes - 1}: give the number of classes as "
                "Victim(..., card={'classes': n})"
            )
        return one_hot(labels, classes).to(x.device)

    return victim.like(model, access="labels", card={**victim.card, "classes": classes})


def frames(victim: Victim, samples: int, alphabet: str, hint: str = "") -> int:
    """Frames per recording of a CTC victim of this alphabet."""
    shape = tuple(ask(victim, samples).shape)
    if len(shape) != 3 or shape[2] != len(alphabet) + 1:
        raise VictimError(
            f"victim {victim.name!r} answers {shape} to one recording; want (1, frames, {len(alphabet) + 1}): a blank, "
            f"then {alphabet!r}{hint}"
        )
    return shape[1]
