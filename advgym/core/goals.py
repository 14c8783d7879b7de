"""What the attacker wants: an objective that is > 0 exactly on success, and a differentiable surrogate.

`ClassGoal` serves every classifier, `BundleGoal` several samples at once; domains with sequences write their own with
the same methods.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core import rng
from advgym.errors import AdvgymError
from advgym.lib.given import class_of

SPELLED = 8  # outputs of a bundle that are named one by one; more are counted
SUCCESS = 1e-6  # a verdict needs objective > SUCCESS


class Goal:
    """One goal of a task. All tensors are batched by row; `ref` and `target` hold one entry per row.

    Attributes:
        name: "untargeted", "targeted", or a domain's own.
        needs_target: whether `judge` reads `target`.
        scores_shape, output_shape: of one row.
    """

    name: str
    needs_target: bool = False
    scores_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    outputs: int  # output entries are integers in [-1, outputs)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Of one target: that of an output, unless a goal says otherwise."""
        return self.output_shape

    def output(self, scores: Tensor) -> Tensor:
        """The victim's answer as integers, (n, *output_shape): a class, a token sequence padded with -1."""
        raise NotImplementedError

    def right(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Whether the victim has each clean sample right: bool (n,). Others are not attacked."""
        raise NotImplementedError

    def judge(self, scores: Tensor, ref: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """(objective, surrogate), float32 (n,), against the victim's own clean output `ref`."""
        raise NotImplementedError

    def progress(self, output: Tensor, ref: Tensor) -> Tensor | None:
        """What outputs alone tell of how far a failure got, float32 (n,) below 0; None where they tell nothing.

        Under decision knowledge failures are ordered by it, as by the objective elsewhere.
        """
        return None

    def met(self, output: Tensor, ref: Tensor, target: Tensor | None) -> Tensor:
        """Bool (n,): whether outputs alone say that the goal is reached, for rates that count a bundle's members."""
        if target is not None:
            return (output == target).reshape(len(output), -1).all(1)
        return (output != ref).reshape(len(output), -1).any(1)

    def targets(self, seed: int, keys: Tensor, ref: Tensor) -> Tensor:
        """A target for each lane that names none, keyed by (seed, sample)."""
        raise NotImplementedError

    def aimed(self, seed: int, keys: Tensor, ref: Tensor, scores: Tensor) -> Tensor:
        """As `targets`, for goals that choose by the clean scores."""
        return self.targets(seed, keys, ref)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """What a training run minimises, float32 (n,): the untargeted surrogate against the truth."""
        raise NotImplementedError

    def describe(self, output: Tensor) -> str:
        """One output in words."""
        return str(output.tolist())

    def parse_target(self, value: Any) -> Tensor:
        """A target from `options["targets"]` or the command line, one entry."""
        return torch.as_tensor(value, dtype=torch.int64).reshape(self.target_shape)


class BundleGoal(Goal):
    """One perturbation for M members: the objective is the mean of theirs; of `every` kind, their mean shortfall.

    Scores, outputs, labels and references have a member axis after the row's. A bundle is attacked where the victim has
    most of it right. A target is one for all members.

    Args:
        inner: of one member.
        members: M.
        every: success is that of all members: the objective is the least of theirs once all are above 0, until then the
            mean of those that are not, others counting 0. An attack then goes on while any member stands.
        right_of_all: where the members are what the victim has right among more candidates, the share that it has.
    """

    def __init__(self, inner: Goal, members: int, right_of_all: float | None = None, *, every: bool = False) -> None:
        self.every = every
        self.inner, self.members, self.name = inner, members, inner.name
        self.needs_target = inner.needs_target
        self.right_of_all = right_of_all
        self.scores_shape = (members, *inner.scores_shape)
        self.output_shape = (members, *inner.output_shape)
        self.outputs = inner.outputs

    @property
    def target_shape(self) -> tuple[int, ...]:
        """One member's."""
        return self.inner.target_shape

    def _by_member(self, values: Tensor) -> Tensor:
        return values.view(-1, self.members, *values.shape[1:])

    def _for_each(self, target: Tensor | None) -> Tensor | None:
        return None if target is None else target.repeat_interleave(self.members, 0)

    def output(self, scores: Tensor) -> Tensor:
        return self._by_member(self.inner.output(scores.flatten(0, 1)))

    def won(self, scores: Tensor, ref: Tensor, target: Tensor | None = None) -> Tensor:
        """Bool (n, M): members for which the goal is reached."""
        objective = self.inner.judge(scores.flatten(0, 1), ref.flatten(0, 1), self._for_each(target))[0]
        return self._by_member(objective) > SUCCESS

    def right(self, scores: Tensor, labels: Tensor) -> Tensor:
        each = self.inner.right(scores.flatten(0, 1), labels.flatten(0, 1))
        return self._by_member(each).double().mean(1) > 0.5

    def judge(self, scores: Tensor, ref: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        pair = self.inner.judge(scores.flatten(0, 1), ref.flatten(0, 1), self._for_each(target))
        objective, surrogate = self._by_member(pair[0]), self._by_member(pair[1])
        if not self.every:
            return objective.mean(1), surrogate.mean(1)
        least, short = objective.amin(1), objective.clamp_max(0).mean(1)
        return torch.where(least > SUCCESS, least, short), surrogate.mean(1)

    def members_met(self, output: Tensor, ref: Tensor, target: Tensor | None) -> Tensor:
        """Bool (n, M): members of which outputs say that the goal is reached."""
        return self._by_member(self.inner.met(output.flatten(0, 1), ref.flatten(0, 1), self._for_each(target)))

    def met(self, output: Tensor, ref: Tensor, target: Tensor | None) -> Tensor:
        """Bool (n,): by most of its members."""
        return self.members_met(output, ref, target).double().mean(1) > 0.5

    def targets(self, seed: int, keys: Tensor, ref: Tensor) -> Tensor:
        """One for all members, other than the first one's answer."""
        return self.inner.targets(seed, keys, ref[:, 0])

    def aimed(self, seed: int, keys: Tensor, ref: Tensor, scores: Tensor) -> Tensor:
        """As `targets`, by the mean of the members' clean scores."""
        return self.inner.aimed(seed, keys, ref[:, 0], scores.mean(1))

    def parse_target(self, value: Any) -> Tensor:
        return self.inner.parse_target(value)

    def progress(self, output: Tensor, ref: Tensor) -> Tensor | None:
        """The share of members that turned, less one."""
        turned = (output != ref).reshape(len(output), self.members, -1).any(2)
        return turned.float().mean(1) - 1

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return self._by_member(self.inner.loss(scores.flatten(0, 1), labels.flatten(0, 1))).mean(1)

    def describe(self, output: Tensor) -> str:
        if len(output) <= SPELLED:
            return ", ".join(self.inner.describe(o) for o in output)
        names = Counter(self.inner.describe(o) for o in output).most_common()
        counted = ", ".join(f"{many} x {name}" for name, many in names[:SPELLED])
        return counted + (" ..." if len(names) > SPELLED else "")


def best_of(name: str, classes: int) -> int:
    """K of a goal "top-K", 1 of any other.

    Raises:
        AdvgymError: where that many classes always contain the label.
    """
    if not name.startswith("top-"):
        return 1
    best = int(name.removeprefix("top-"))
    if not 1 <= best < classes:
        raise AdvgymError(f"goal {name!r}: a label cannot leave the best {best} of {classes} classes; use a smaller K")
    return best


class ClassGoal(Goal):
    """Margin goals of a classifier with scores (n, classes).

    Untargeted: the best other class minus the reference; targeted: the target minus the best other. "top-K" is
    reached when K classes are above the reference; the targets of "least-likely" are the classes of least clean score.

    >>> goal = ClassGoal(3)
    >>> objective, _ = goal.judge(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([0]), None)
    >>> objective.item()
    2.0
    """

    output_shape = ()

    def __init__(self, classes: int, name: str = "untargeted", labels: list[str] | None = None) -> None:
        self.name, self.needs_target = name, name in ("targeted", "least-likely")
        self.scores_shape, self.outputs = (classes,), classes
        self.best = best_of(name, classes)
        self.labels = labels

    def output(self, scores: Tensor) -> Tensor:
        return scores.argmax(1)

    def right(self, scores: Tensor, labels: Tensor) -> Tensor:
        return scores.argmax(1) == labels

    def judge(self, scores: Tensor, ref: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        label = (target if self.needs_target and target is not None else ref).unsqueeze(1)
        own = scores.gather(1, label).squeeze(1)
        others = scores.scatter(1, label, -torch.inf)
        other = others.amax(1) if self.best == 1 else others.topk(self.best, 1).values[:, -1]
        margin, cross = other - own, F.cross_entropy(scores, label.squeeze(1), reduction="none")
        return (-margin, -cross) if self.needs_target else (margin, cross)

    def targets(self, seed: int, keys: Tensor, ref: Tensor) -> Tensor:
        shift = rng.bits(seed, keys, (), 31) % (self.outputs - 1) + 1
        return (ref + shift) % self.outputs

    def aimed(self, seed: int, keys: Tensor, ref: Tensor, scores: Tensor) -> Tensor:
        if self.name != "least-likely":
            return self.targets(seed, keys, ref)
        other = scores.scatter(1, ref.unsqueeze(1), torch.inf)
        return other.argmin(1)

    def parse_target(self, value: Any) -> Tensor:
        try:
            label = class_of(value, self.labels or ())
        except AdvgymError:
            label = -1
        if not 0 <= label < self.outputs:
            named = f", or {', '.join(self.labels)}" if self.labels else ""
            raise AdvgymError(f"target {value!r} is no class: classes are 0 to {self.outputs - 1}{named}")
        return torch.tensor(label)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(scores, labels, reduction="none")

    def describe(self, output: Tensor) -> str:
        label = int(output)
        return self.labels[label] if self.labels else str(label)
