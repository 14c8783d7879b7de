"""Spectral signatures of backdoors (Tran, Li & Madry 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import Victim, register_defense
from advgym.agents.defenses.screening import run_of, screening
from advgym.lib.settings import Range


@register_defense(
    "spectral-signatures", domains=("image", "speech"), allowed={"share": Range(0, 0.5), "drop": Range(0)}
)
def defend(victim: Victim, task, *, share: float = 0.0, drop: float = 1.5) -> Victim:
    """Training rows whose features stand out along the first singular direction of their class are dropped.

    Of each class 1.5 ε of its rows go, ε being the most that may be poisoned: `share`, by default the task's budget as
    a share of a class. The victim then learns again.

    Args:
        drop: times ε.
    """
    run_of(victim, task, "spectral-signatures")
    share = share or poisoned_at_most(task)

    def screen(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        found = torch.zeros(len(labels), device=labels.device)
        dropped = torch.zeros_like(labels, dtype=torch.bool)
        for c in range(classes):
            of = (labels == c).nonzero().flatten()
            if len(of) < 3:
                continue
            found[of] = outlying(features[of])
            many = min(round(drop * share * len(of)), len(of) // 2)
            dropped[of[found[of].topk(many).indices]] = True
        return found, dropped

    return screening(victim, task, screen, f"spectral-signatures({share:.2g})")


def outlying(features: Tensor) -> Tensor:
    """Squared projection of centred features (n, d) on their first right singular vector, float32 (n,)."""
    centred = (features - features.mean(0)).double()
    v = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    return (centred @ v).square().float()


def poisoned_at_most(task) -> float:
    """The largest share of a class's rows that the task's budget poisons.

    k rows under another label come on top of the class's own; of clean labels the share is the class's.
    """
    share = float(task.threat.constraint["share"])
    if "relabelled" not in task.offers:
        return share
    known = task.context["labels"]
    added = share * len(known)
    return added / (added + len(known) / int(task.context["classes"]))
