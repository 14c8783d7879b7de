"""What a victim answers with, learnt from one recording, and label-only victims made readable by every goal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from advgym.core.victim import Victim, first_answer, one_hot
from advgym.envs.speech import symbols
from advgym.errors import AdvgymError, VictimError


@torch.no_grad()
def ask(victim: Victim, samples: int) -> Tensor:
    """The victim's answer to one recording of silence, (1, ...).

    Raises:
        VictimError: where it fails on float32 (1, samples), or answers with what is not finite.
    """
    first = next(victim.module.parameters(), None) if victim.module is not None else None
    x = torch.zeros(1, samples, device=None if first is None else first.device)
    keys = torch.zeros(1, dtype=torch.int64, device=x.device) if victim.keyed else None
    scores = first_answer(victim, x, keys, f"a float32 batch of waveforms {tuple(x.shape)} in [-1, 1)")
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


SYMBOLS = 64  # of a text that a recogniser writes, at least; longer ones are cut


def writes(victim: Victim, samples: int) -> bool:
    """Whether a victim answers with texts, one for each recording."""
    if victim.module is not None:
        return False
    try:
        with victim.tally.asking(1):
            said = victim.model(torch.zeros(1, samples), **({"keys": torch.zeros(1).long()} if victim.keyed else {}))
    except Exception:  # `ask` says what is wrong
        return False
    return isinstance(said, list | tuple) and len(said) == 1 and isinstance(said[0], str)


def spelled(victim: Victim, alphabet: str, longest: int) -> Victim:
    """A recogniser of texts as one of one-hot CTC scores: every symbol, then a blank; labels alone.

    Texts are read in the alphabet's case, and symbols that it lacks are left out.

    Args:
        longest: symbols of the longest transcript; what a recogniser writes beyond twice that is cut off.
    """
    width = max(SYMBOLS, 2 * longest)
    lower = alphabet == alphabet.lower()

    def model(x: Tensor, **keys: Any) -> Tensor:
        texts = victim.model(x, **keys)
        if not isinstance(texts, list | tuple) or len(texts) != len(x) or not all(isinstance(t, str) for t in texts):
            raise VictimError(f"victim {victim.name!r} answers {type(texts).__name__}; want a text for each recording")
        out = torch.zeros(len(texts), 2 * width, len(alphabet) + 1)
        out[:, :, 0] = 0.5  # the blank where nothing is written
        for row, text in enumerate(texts):
            known = "".join(c for c in (text.lower() if lower else text) if c in alphabet)
            for place, symbol in enumerate(symbols.encode(known, alphabet)[:width]):
                out[row, 2 * place, symbol] = 1.0
        return out.to(x.device)

    return victim.like(model, access="labels")


class BlankFirst(nn.Module):
    """Scores with the blank moved to the front."""

    def __init__(self, victim: Victim, order: list[int]) -> None:
        super().__init__()
        self.victim, self.order, self.inner = victim, order, victim.module  # inner: moved along with this module

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        scores = self.victim(x, keys)
        return scores[..., self.order] if scores.shape[-1] == len(self.order) else scores


def blank_first(victim: Victim, blank: Any, outputs: int) -> Victim:
    """The victim with its blank at index 0, from index `blank` of `outputs`; -1 is the last.

    Raises:
        AdvgymError: for an index that it has not.
    """
    if isinstance(blank, bool) or not isinstance(blank, int) or not -outputs <= blank < outputs:
        raise AdvgymError(
            f"blank is the index of the CTC blank, 0 to {outputs - 1} (or -1 for the last), not {blank!r}"
        )
    at = blank % outputs
    if not at:
        return victim
    order = [at, *(i for i in range(outputs) if i != at)]
    return victim.like(BlankFirst(victim, order))
