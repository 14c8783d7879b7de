"""Goals against models whose answer is no class: numbers, and sets of labels; and how labels of data read for them.

Such a victim says so in its card: `card["answers"]` is "number", with `card["delta"]`, or "several", with the names of
the labels in `card["classes"]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core.goals import ClassGoal, Goal
from advgym.core.victim import Victim
from advgym.envs.text.data.labels import folded, listed
from advgym.errors import AdvgymError, DataError, VictimError

KINDS = {"number": "numbers (regression)", "several": "several labels at once"}
FINE = 1000  # steps of a number's output in one delta
MIDDLE = 2**31  # the output of 0
SIGN = re.compile(r"\s*[|;,]\s*")  # between the labels of one text in a file


class MoveGoal(Goal):
    """Some number of the answer moves by more than `delta` from the clean one.

    The objective is the largest move less delta. Outputs are whole numbers of thousandths of delta.

    Args:
        numbers: in one answer.
        delta: above 0, in units of the answer.

    >>> goal = MoveGoal(1, 0.5)
    >>> ref = goal.output(torch.tensor([[2.0]]))
    >>> round(goal.judge(torch.tensor([[2.75]]), ref, None)[0].item(), 4)
    0.25
    """

    outputs = 2 * MIDDLE

    def __init__(self, numbers: int, delta: float, name: str = "untargeted") -> None:
        self.name, self.delta, self.step = name, delta, delta / FINE
        self.scores_shape = self.output_shape = (numbers,)

    def output(self, scores: Tensor) -> Tensor:
        return code(scores, self.step)

    def value(self, output: Tensor) -> Tensor:
        """The number of an output, float64."""
        return (output - MIDDLE).double() * self.step

    def right(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Within delta of the label, all of them."""
        return ((scores - self.value(labels)).abs() <= self.delta + self.step).all(1)

    def judge(self, scores: Tensor, ref: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        apart = scores - self.value(ref)
        move = torch.where(apart >= 0, apart, -apart).amax(1)  # has a slope where nothing has moved
        objective = (move - self.delta).float()
        return objective, objective

    def met(self, output: Tensor, ref: Tensor, target: Tensor | None) -> Tensor:
        return ((output - ref).abs() > FINE).any(1)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return (scores - self.value(labels)).square().mean(1).float()

    def describe(self, output: Tensor) -> str:
        return ", ".join(f"{v:.4g}" for v in self.value(output).reshape(-1).tolist())


def code(scores: Tensor, step: float) -> Tensor:
    """Numbers as whole steps, int64 in [0, 2^32)."""
    return ((scores.double() / step).round() + MIDDLE).clamp(0, 2 * MIDDLE - 1).long()


class AnyLabelGoal(Goal):
    """Some label of a multi-label answer turns, on or off: the largest of the logits against their clean signs.

    Args:
        names: of the labels.

    >>> goal = AnyLabelGoal(["joy", "anger"])
    >>> goal.judge(torch.tensor([[2.0, 0.5]]), torch.tensor([[1, 0]]), None)[0].item()
    0.5
    """

    outputs = 2

    def __init__(self, names: Sequence[str], name: str = "untargeted") -> None:
        self.name, self.names = name, list(names)
        self.scores_shape = self.output_shape = (len(self.names),)

    def output(self, scores: Tensor) -> Tensor:
        return (scores > 0).long()

    def right(self, scores: Tensor, labels: Tensor) -> Tensor:
        """All labels as they are."""
        return (self.output(scores) == labels).all(1)

    def judge(self, scores: Tensor, ref: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        against = scores * (1 - 2 * ref)
        return against.amax(1), against.logsumexp(1)

    def progress(self, output: Tensor, ref: Tensor) -> Tensor | None:
        return None

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(scores, labels.float(), reduction="none").sum(1)

    def describe(self, output: Tensor) -> str:
        on = [n for n, v in zip(self.names, output.reshape(-1).tolist(), strict=True) if v]
        return " + ".join(on) or "none"


# -- victims and their data ------------------------------------------------------------------------------------
def kind_of(victim: Victim) -> str:
    """The kind of its answer: "number", "several", or "" of a classifier.

    Raises:
        VictimError: the card says something else, or lacks what the kind needs.
    """
    kind = victim.card.get("answers", "")
    if kind and kind not in KINDS:
        raise VictimError(f"victim {victim.name!r} answers {kind!r}: card['answers'] is one of {', '.join(KINDS)}")
    if kind == "number":
        delta = victim.card.get("delta")
        if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0 < delta < math.inf:
            raise VictimError(
                f"victim {victim.name!r} answers numbers: say by how much a success moves them, card['delta'] or, of a "
                f"hub model, transformers:SOURCE?delta=0.5, above 0; not {delta!r}"
            )
    return str(kind)


def only_classes(victim: Victim, what: str) -> Victim:
    """The victim, if its answer is one class.

    Raises:
        AdvgymError: with what it is.
    """
    if kind := kind_of(victim):
        raise AdvgymError(f"{what} is for victims that answer one class, and {victim.name!r} answers {KINDS[kind]}")
    return victim


def goal_of(victim: Victim, classes: int, name: str, names: list[str] | None) -> Goal:
    """The goal against a victim: a wrong class, a moved number, or a turned label."""
    kind = kind_of(victim)
    if not kind:
        return ClassGoal(classes, name, names)
    if name != "untargeted":
        raise AdvgymError(f"goal {name!r} needs a class, and victim {victim.name!r} answers {KINDS[kind]}")
    if kind == "number":
        return MoveGoal(classes, float(victim.card["delta"]), name)
    return AnyLabelGoal(names or [str(i) for i in range(classes)], name)


def meet(
    values: Sequence[Any], where: Sequence[str], victim: Victim, classes: int, names: Sequence[str] | None = None
) -> list[list[int]]:
    """Labels of data as outputs of such a victim: numbers, or sets of names ("joy|anger", a list, or 0s and 1s).

    Raises:
        DataError: names the sample whose label is none.
    """
    if kind_of(victim) == "number":
        return [
            _numbers(v, at, classes, float(victim.card["delta"]) / FINE) for v, at in zip(values, where, strict=True)
        ]
    known = [str(n) for n in victim.card.get("classes") or range(classes)]
    return [_several(v, at, known) for v, at in zip(values, where, strict=True)]


def _parts(value: Any) -> list[Any]:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str):
        return [p for p in SIGN.split(value.strip()) if p]
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]


def _numbers(value: Any, at: str, many: int, step: float) -> list[int]:
    try:
        found = [float(p) for p in _parts(value)]
    except (TypeError, ValueError):
        found = []
    if len(found) != many or not all(map(math.isfinite, found)):
        raise DataError(f"{at}: the label is {many} number(s), as the victim answers, not {value!r}")
    out: list[int] = code(torch.tensor(found), step).tolist()
    return out


def _several(value: Any, at: str, names: Sequence[str]) -> list[int]:
    parts = _parts(value)
    if not isinstance(value, str) and len(parts) == len(names) and all(p in (0, 1) for p in parts):
        return [int(p) for p in parts]
    place = {folded(n): i for i, n in enumerate(names)}
    row = [0] * len(names)
    for part in parts:
        if folded(part) not in place:
            raise DataError(
                f"{at}: {part!r} is none of the labels {listed(names)} (several stand as 'a|b', none as '')"
            )
        row[place[folded(part)]] = 1
    return row
