"""Input reduction: which words can go before the victim says something else (Feng et al., 2018)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import torch
from torch import Tensor

from advgym.core.batch import Look, pick
from advgym.core.task import Spec, Task
from advgym.envs.text.goals import answers
from advgym.envs.text.goals.unchanged import KeepGoal
from advgym.envs.text.perturb.words import TextBatch
from advgym.envs.text.tasks.given import encoded, make_task, read_given, space_of, spaces_of
from advgym.envs.text.tasks.options import Reduced
from advgym.lib.options import takes


class ReductionBatch(TextBatch):
    """B texts of S words; the one choice at a word deletes it. The distance is the number of words that are left.

    Every set of deletions that leaves a word is valid; whether it is enough is a part of the objective, which is below
    zero until at most `most` words are left: so that the way there is made of valid steps that are told apart.

    Args:
        ids, labels: int64 (B,) and (B, ...).
        clean: int64 (B, S, 1).
        able: bool (B, S), words that may go.
        most: int64 (B,), how many of those may be left.
        options: as of `TextBatch`.
    """

    shown = "most many"

    def __init__(self, ids: Tensor, labels: Tensor, clean: Tensor, able: Tensor, most: Tensor, **options: Any) -> None:
        segments = clean.new_full((*clean.shape[:2], 1, 1), -1)
        super().__init__(ids, labels, clean, segments, exists=able.unsqueeze(2), **options)
        self.most, self.many = most, able.sum(1)

    @property
    def reach(self) -> Tensor:  # type: ignore[override]
        """Words of the text."""
        return self.many.clamp_min(1).to(torch.float32)

    def look(self, p: Tensor, rows: Tensor | None = None) -> Look:
        """As of `EditsBatch`, with the words that are left as the distance."""
        look = super().look(p, rows)
        left = (pick(self.many, rows) - look.distance).clamp_min(0)
        return look._replace(distance=torch.where(look.real, left, 0.0))

    def cap(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        """Above zero where few enough words are left, else the share of the text that must still go, negative."""
        many = pick(self.many, rows)
        left = many - (form[..., 0] >= 0).sum(1)
        return (pick(self.most, rows) - left + 0.5) / many.clamp_min(1)


@takes(Reduced)
def reduction(spec: Spec, options: Reduced) -> Task:
    """Words deleted until at most the share `left` of them remains, with the prediction unchanged (Feng et al., 2018).

    In Movie Reviews, the embedded reviews, or the caller's own texts; a word always remains.
    """
    given = read_given(spec, options)
    answers.only_classes(given.victim, spec.name)
    share, space = options.left, space_of(given, msgspec.structs.replace(options, candidates={}))
    parts, lexicon, editable = encoded(given, space.lexicon.vocabulary, space.splits), space.lexicon, space.sites()

    gaps, between = spaces_of(given, space.splits)

    def deal(split: str, ids: list[int], device: Any = "cpu") -> ReductionBatch:
        index = torch.tensor(ids, dtype=torch.int64)
        clean, labels = (part[index] for part in parts[split])
        able = editable[clean]
        many = able.sum(1)
        most = torch.floor(share * many.double() + 1e-9).long().clamp_min(1)  # 1e-9: 0.1 * 30 words is 3, not 2
        tensors = [t.to(device) for t in (index, labels, clean.unsqueeze(2), able, most)]
        return ReductionBatch(
            *tensors, limit=(many - 1).clamp_min(0).to(device), rows_max=given.width, lexicon=lexicon, laws=space.laws,
            gaps=gaps[split][ids].to(device) if gaps else None, spaces=between,
        )  # fmt: skip

    task = make_task(spec, given, space, deal, KeepGoal(given.classes, spec.threat.goal, given.names))
    return replace(task, offers=frozenset({"text", "keep"}))
