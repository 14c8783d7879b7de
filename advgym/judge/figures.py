"""Every figure of a result that follows from its rows: made once for the run, and again for whoever verifies it."""

from __future__ import annotations

from typing import Any

import torch

from advgym.core.goals import BundleGoal, Goal
from advgym.judge.results import Sample
from advgym.lib.rates import mean, median, wilson

MARKS = (25, 50, 100, 200, 500, 1000)  # queries at which papers state success


LATER = (  # names that the first files of the format lack
    "queries_distinct_mean", "queries_distinct_median", "success_at", "success_area", "members_rate",
)  # fmt: skip


def figures(samples: list[Sample], *, episodes: int, clean: float, goal: Goal, budget: int) -> dict[str, Any]:
    """The figures of judged rows under their names in `Result`.

    Args:
        episodes: samples assigned; clean: the share of the clean samples asked that the victim has right.
        budget: queries of each sample.
    """
    wins, n, clean, robust = accuracies(samples, episodes, clean, goal)
    return {
        "attacked": len(samples),
        "clean_accuracy": clean,
        "robust_accuracy": robust,
        "success_rate": wins / n if n else 0.0,
        "success_ci": wilson(wins, n),
        "invalid_rate": mean([float(not s.valid) for s in samples]),
        "queries_mean": mean([s.queries for s in samples]),
        "queries_median": median([s.queries for s in samples]),
        "queries_distinct_mean": mean([s.queries_distinct for s in samples]),
        "queries_distinct_median": median([s.queries_distinct for s in samples]),
        "gradients_mean": mean([s.gradients for s in samples]),
        "distance_median": median([s.distance for s in samples if s.success]),
        "curve": success_curve(samples, budget),
        "success_at": success_at(samples, budget),
        "success_area": success_area(samples, budget),
        "members_rate": members_rate(samples, goal) if isinstance(goal, BundleGoal) else None,
    }


def success_curve(samples: list[Sample], budget: int) -> list[tuple[int, float]]:
    """(q, share of samples whose success came within q queries) on a 1-2-5 grid up to the budget."""
    grid = sorted({q * 10**k for k in range(7) for q in (1, 2, 5) if q * 10**k < budget} | {budget})
    n = max(len(samples), 1)
    return [(q, sum(s.success and 0 <= s.first_success <= q for s in samples) / n) for q in grid]


def success_at(samples: list[Sample], budget: int) -> list[tuple[int, float]]:
    """(q, share of samples whose success came within q queries) at the customary q that the budget reaches."""
    n = max(len(samples), 1)
    return [(q, sum(s.success and 0 <= s.first_success <= q for s in samples) / n) for q in MARKS if q <= budget]


def success_area(samples: list[Sample], budget: int) -> float:
    """The area under success against queries: the mean over q = 1 ... budget of the share beaten within q."""
    wins = [max(s.first_success, 1) for s in samples if s.success and 0 <= s.first_success <= budget]
    return sum(budget + 1 - first for first in wins) / (budget * len(samples)) if samples and budget else 0.0


def members_rate(samples: list[Sample], goal: BundleGoal | None = None) -> float:
    """The share of members for which the goal is reached, over all bundles."""
    wins, n = members_turned(samples, goal)
    return wins / n if n else 0.0


def members_turned(samples: list[Sample], goal: BundleGoal | None = None) -> tuple[int, int]:
    """Members for which the goal is reached, and all members, over all bundles.

    Args:
        goal: whose outputs they are; None: a member whose output differs from the clean one.
    """
    if goal is not None and samples:
        after, before = (torch.tensor([getattr(s, name) for s in samples]) for name in ("after", "before"))
        target = torch.stack([goal.parse_target(s.target) for s in samples]) if goal.needs_target else None
        met = goal.members_met(after, before, target)
        return int(met.sum()), met.numel()
    turned = [a != b for s in samples for a, b in zip(s.after, s.before, strict=True)]
    return sum(turned), len(turned)


def accuracies(samples: list[Sample], episodes: int, clean: float, goal: Goal) -> tuple[int, int, float, float]:
    """(successes, what they are counted over, clean accuracy, robust accuracy): of samples, or of bundles' members.

    Args:
        episodes: samples assigned; clean: the share of the clean samples asked that the victim has right.
    """
    if not isinstance(goal, BundleGoal):
        wins, n = sum(s.success for s in samples), len(samples)
        return wins, n, clean, (n - wins) / episodes if episodes else 0.0
    wins, n = members_turned(samples, goal)
    base = len(samples) / episodes if episodes else 0.0
    if goal.right_of_all is not None:  # the members are those that are right: accuracy is over all candidates
        clean = base = goal.right_of_all
    return wins, n, clean, base * (1 - wins / n) if n else 0.0
