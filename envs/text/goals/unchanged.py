"""The goal of input reduction: the prediction stays (Feng et al., 2018)."""

from __future__ import annotations

from torch import Tensor

from advgym.core.goals import ClassGoal


class KeepGoal(ClassGoal):
    """The victim says of what is left what it said of the whole: the reference minus the best other class.

    The clean text reaches this by itself; the task caps the objective below zero until enough words are gone.
    """

    def __init__(self, classes: int, name: str = "keep", labels: list[str] | None = None) -> None:
        super().__init__(classes, name, labels)

    def judge(self, scores: Tensor, ref: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """(margin of the reference, its log-probability)."""
        margin, cross = super().judge(scores, ref, None)
        return -margin, -cross
