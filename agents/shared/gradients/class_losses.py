"""What gradient attacks drive up: losses of a classifier's scores, per sample, and the task's own.

The reference y is the victim's clean answer. Untargeted, a class t to go towards may be named; in the targeted game t
is the goal's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.errors import AdvgymError

# surrogate and objective are the task's own and exist everywhere; the rest reads classes.
LOSSES = ("surrogate", "objective", "ce", "margin", "pm", "dlr")
WIDEST = 10.0  # the gap of a clean answer's two best scores beyond which scores are scaled down for ce and pm
OWN = {"ce": "surrogate", "margin": "objective"}  # what they are where an answer is no class


def classes_of(obs: dict) -> int:
    """How many classes the scores of an observation have; 0 where an answer is no single class, or is not told."""
    if "scores" not in obs:
        return 0
    scores, output = obs["scores"], obs["output"]
    return int(scores.shape[-1]) if scores.dim() == 2 and output.dim() == 1 else 0


class Aim:
    """One loss, and the classes that each lane goes from and towards.

    Args:
        obs: of the reset, without a proposal axis.
        name: of `LOSSES`. ce: cross-entropy; margin: difference of scores; pm: of probabilities (PMA, Xu et al. 2024);
            dlr: difference of logits ratio (Croce & Hein 2020). Scores of very sure answers are scaled down for ce and
            pm (`tempered`). ce and margin fall back on the task's surrogate and
            objective where an answer is no class.

    Raises:
        AdvgymError: for a loss of classes where an answer is no class.
    """

    def __init__(self, obs: dict, name: str) -> None:
        self.classes = classes_of(obs)
        self.name = name if self.classes else OWN.get(name, name)
        if self.name not in ("surrogate", "objective") and not self.classes:
            raise AdvgymError(
                f"loss={name!r} reads classes, and an answer here is none: surrogate, objective, ce or margin"
            )
        self.ref, self.goal = obs["output"], obs.get("target")
        self.scale = tempered(obs["scores"].detach()) if self.classes > 1 else None
        self.towards: Tensor | None = None  # int64 (lanes,), -1 for none

    def ranked(self, scores: Tensor) -> Tensor:
        """The other classes of each lane by falling score, int64 (lanes, classes - 1)."""
        return scores.detach().scatter(1, self.ref.unsqueeze(1), -torch.inf).argsort(1, descending=True)[:, :-1]

    def __call__(self, obs: dict) -> Tensor:
        """The loss of each lane, (lanes,), with its graph."""
        if self.name in ("surrogate", "objective"):
            value, other = obs[self.name], obs["surrogate"]
            return other if other.requires_grad and not value.requires_grad else value  # an error rate has no slope
        z = obs["scores"]
        up, down, named = self._pair(z)
        if self.scale is not None and self.name in ("ce", "pm"):
            z = z / self.scale
        if self.name == "ce":
            logs = F.log_softmax(z, 1)
            return torch.where(named, _at(logs, up), -_at(logs, down))
        if self.name == "pm":
            p = F.softmax(z, 1)
            return _at(p, up) - _at(p, down)
        gap = _at(z, up) - _at(z, down)
        if self.name == "margin":
            return gap
        top = z.sort(1, descending=True).values
        third = top[:, min(2, self.classes - 1)]
        fourth = top[:, min(3, self.classes - 1)]
        low = torch.where(named, (third + fourth) / 2, third)
        return gap / (top[:, 0] - low).clamp_min(1e-12)

    def _pair(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(class to raise, class to lower, whether the first is named) of each lane."""
        fixed = self.goal if self.goal is not None else self.ref
        other = z.detach().scatter(1, fixed.unsqueeze(1), -torch.inf).argmax(1)
        if self.goal is not None:
            return fixed, other, torch.ones_like(fixed, dtype=torch.bool)
        if self.towards is None:
            return other, fixed, torch.zeros_like(fixed, dtype=torch.bool)
        named = self.towards >= 0
        return torch.where(named, self.towards, other), fixed, named


def tempered(scores: Tensor) -> Tensor:
    """What each lane's scores are divided by, (n, 1), so that its clean answer is not surer than `WIDEST`; 1 at least.

    Of a surer one the softmax, and with it the slope of ce and pm, is 0 in float32.
    """
    top = scores.topk(2, 1).values
    return ((top[:, :1] - top[:, 1:]) / WIDEST).nan_to_num(1.0, 1.0).clamp_min(1.0)


def _at(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index.unsqueeze(1)).squeeze(1)
