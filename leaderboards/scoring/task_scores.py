"""Scores of one task from its judged rows; the headlines and the ranking build on them.

Denominators are fixed before anything is attacked: every sample assigned, every seed. A row that is missing counts
against the submission: for an attack it failed, for a defense it did not hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from advgym.errors import AdvgymError
from advgym.judge import figures, results
from advgym.judge.flags import denied_flags
from advgym.leaderboards.entries.entry import RowSet, TaskScore
from advgym.leaderboards.scoring.headline import Headline, headline_attack, headline_defense
from advgym.leaderboards.scoring.intervals import curve_area, rate_interval
from advgym.leaderboards.scoring.measured import sum_up
from advgym.leaderboards.scoring.outcome import Facts, lost, share, won
from advgym.leaderboards.scoring.ranking import rank, unranked
from advgym.leaderboards.scoring.scorer import scorer_hash
from advgym.lib import rates

__all__ = [
    "Facts", "Headline", "headline_attack", "headline_defense", "rank", "score_task", "scorer_hash",
    "unranked", "won",
]  # fmt: skip

CONTROL = "noise"  # the agent that stands for no attack at all


def score_task(row_sets: Sequence[RowSet], facts: Facts) -> TaskScore:
    """The score of one task (attack track), or of one attack of the panel on one task (defense track).

    Args:
        row_sets: of this task and attack, one for each seed that ran; none: "not attempted".
        facts: what was settled before: the samples assigned, those the victim has right, seeds, budgets.

    Raises:
        AdvgymError: for rows that cannot come of these facts (another task, an unknown sample or seed, a sample twice,
            more spent than the budget). That is a fault of the platform, never of a submission.
    """
    check_sets(row_sets, facts)
    attacked, assigned = len(facts.right), len(facts.assigned)
    base = TaskScore(
        task=facts.task, attack=facts.attack, status="not attempted", knowledge=facts.knowledge,
        clean_accuracy=facts.clean_accuracy, clean_undefended=facts.clean_undefended, attacked=attacked,
        assigned=assigned, control_rate=facts.control_rate, victim=facts.victim,
        samples=facts.samples, flags=list(facts.flags),
    )  # fmt: skip
    if not row_sets:
        return base
    track, runs = "defense" if facts.attack else "attack", attacked * len(facts.seeds)
    rows = [s for rs in row_sets for s in rs.samples]
    wins = [s for s in rows if lost(s, track)]
    trials = attacked
    if facts.members > 1:
        # Samples of a bundle may be one graph over again: its members are what an interval can count.
        base.members = trials = facts.members
    by_seed = {rs.seed: _count(rs, track, attacked, facts.members) for rs in row_sets}
    many = [by_seed.get(k, attacked if track == "defense" else 0) for k in facts.seeds]
    rate = sum(many) / runs if runs else 0.0
    curve = figures.success_curve(wins, facts.queries)  # shares of the wins; of all runs below
    first = [s.first_success for s in wins]
    return msgspec.structs.replace(
        base,
        status="scored",
        success=rate_interval(rate, trials),
        robust=(attacked - sum(many) / len(facts.seeds)) / assigned,
        seeds=[n / attacked if attacked else 0.0 for n in many],
        invalid_rate=sum(not s.valid for s in rows) / len(rows) if rows else 0.0,
        queries_mean=rates.mean([s.queries for s in rows]),
        queries_median=rates.median([s.queries for s in rows]),
        gradients_mean=rates.mean([s.gradients for s in rows]),
        distance_median=rates.median([s.distance for s in wins]),
        area=curve_area(first, facts.queries, runs),
        reasons=_reasons(rows, runs),
        curve=[(q, part * len(wins) / runs if runs else 0.0) for q, part in curve] if facts.members == 1 else [],
        flags=[*facts.flags, *denied_flags(rows), *_flags(facts, rate, runs - len(rows))],
        **sum_up(rows, wins, facts, runs - len(rows) if track == "defense" else 0),
    )


def check_sets(row_sets: Sequence[RowSet], facts: Facts) -> None:
    """Refuse facts and rows that do not belong together."""
    where = facts.task + (f" ({facts.attack})" if facts.attack else "")
    right = set(facts.right)
    if facts.attack and facts.members > 1:
        raise AdvgymError(f"{where}: its samples are bundles, which have an attack track alone")
    if not facts.assigned or not facts.seeds:
        raise AdvgymError(f"{where}: nothing is assigned, so nothing can be scored")
    if not right <= set(facts.assigned) or len(right) != len(facts.right):
        raise AdvgymError(f"{where}: the samples that the victim has right are not among those assigned")
    if not all(math.isfinite(v) and 0 <= v <= 1 for v in (facts.clean_accuracy, facts.clean_undefended)):
        raise AdvgymError(f"{where}: clean accuracies are within 0 and 1")
    seen: set[int] = set()
    for rs in row_sets:
        if (rs.task, rs.attack) != (facts.task, facts.attack):
            raise AdvgymError(f"rows of {rs.task} ({rs.attack or 'the submission'}) are no rows of {where}")
        if rs.seed not in facts.seeds or rs.seed in seen:
            raise AdvgymError(f"{where}: seed {rs.seed} is none of this run's, or is there twice")
        seen.add(rs.seed)
        ids = [s.id for s in rs.samples]
        if len(set(ids)) != len(ids) or not right >= set(ids):
            raise AdvgymError(f"{where}: a sample is there twice, or was not to be attacked")
        for s in rs.samples:
            if not 0 <= s.queries <= facts.queries or not 0 <= s.gradients <= facts.gradients:
                raise AdvgymError(f"{where}: sample {s.id} spent {s.queries} queries and {s.gradients} gradients")
            if not s.first_success <= s.queries:
                raise AdvgymError(f"{where}: sample {s.id} succeeded at query {s.first_success} of {s.queries}")


def _count(rs: RowSet, track: str, attacked: int, members: int) -> float:
    """Successes of one run; rows that are missing are the submission's loss. Bundles bring a share each."""
    if track == "attack":
        return sum(share(s, members) for s in rs.samples)
    return sum(lost(s, track) for s in rs.samples) + attacked - len(rs.samples)


def _reasons(rows: Sequence[results.Sample], runs: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for s in rows:
        found[s.reason] = found.get(s.reason, 0) + 1
    if runs > len(rows):
        found["missing"] = runs - len(rows)
    return dict(sorted(found.items()))


def _flags(facts: Facts, rate: float, missing: int) -> list[str]:
    flags = []
    if rate <= facts.control_rate and facts.control_rate > 0 and facts.attack != CONTROL:
        flags.append("no better than the random control")
    if missing:
        flags.append(f"{missing} of {len(facts.right) * len(facts.seeds)} runs handed nothing in")
    return flags
