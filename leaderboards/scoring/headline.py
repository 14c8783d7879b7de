"""The one headline of each track, and the columns beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from advgym.errors import AdvgymError
from advgym.leaderboards.entries.entry import Interval, RowSet, TaskScore
from advgym.leaderboards.scoring.intervals import mean_interval, sound, worst_weighted
from advgym.leaderboards.scoring.measured import valid
from advgym.leaderboards.scoring.outcome import DISPUTE, lost
from advgym.lib import rates

if TYPE_CHECKING:
    from advgym.leaderboards.rules.board_tables import Board

EVEN = 1e-9  # accuracies are shares of a few thousand samples; their product with the floor is rounded


class Headline(msgspec.Struct, kw_only=True, frozen=True):
    """What stands in an entry's `headline`, `eligible`, `footnote` (where it is not), `columns` and `flags`."""

    interval: Interval
    eligible: bool = True
    footnote: str = ""
    columns: dict[str, float]
    flags: list[str]


def headline_attack(board: Board, tasks: Sequence[TaskScore]) -> Headline:
    """Mean success rate over all tasks of the board; its lower bound ranks. What was not attempted counts 0.

    Args:
        tasks: one score for each task of the board, "not attempted" where the card does not cover it.
    """
    by = _by_task(board, tasks)
    if any(len(scores) != 1 for scores in by.values()):
        raise AdvgymError("the attack track has one score per task; one not attempted comes of score_task([], facts)")
    parts = []
    for (one,) in by.values():
        if not sound(one.success) or one.attacked < 1:
            raise AdvgymError(f"{one.task}: {one.success} of {one.attacked} samples attacked is no rate")
        parts.append((one.success.value if one.status == "scored" else 0.0, one.members or one.attacked))
    done = [s for s in tasks if s.status == "scored"]
    columns = {
        "worst_weighted": worst_weighted([rate for rate, _ in parts]),
        "area": sum(s.area for s in done) / len(parts),
        "control_rate": rates.mean([s.control_rate for s in done]),
        "seed_spread": max((max(s.seeds) - min(s.seeds) for s in done if s.seeds), default=0.0),
        **_means(done, len(parts)),
        **_valid_success([scores[0] for scores in by.values()]),
    }
    return Headline(interval=mean_interval(parts), columns=columns, flags=_flags(tasks))


def headline_defense(
    board: Board, row_sets: Sequence[RowSet], tasks: Sequence[TaskScore], seeds: Sequence[int]
) -> Headline:
    """Robust accuracy, worst case per sample over the panel: mean over seeds, samples assigned, tasks of the board.

    A sample holds in one run where it was right when clean and no attack of the panel succeeded; a row that is missing
    did not hold, and a perturbation handed in later breaks it in every run.

    Args:
        row_sets: of every (task, attack, seed), and disputes.
        tasks: one score for each (task, attack) of the phase's panel, "not attempted" where the card does not cover it.
        seeds: of the K runs.
    """
    by = _by_task(board, tasks)
    parts: list[tuple[float, int]] = []
    kept: list[tuple[float, int]] = []  # as `parts`, where only successes that reach the bars break a sample
    every_seed, weighted = [], []
    notes: list[str] = []
    for name, scores in by.items():
        size = _agreed(name, scores)
        mine, attacks, bars = [rs for rs in row_sets if rs.task == name], [s.attack for s in scores], _bars(scores)
        held = _held(mine, attacks, seeds)
        parts.append((sum(held.values()) / (len(seeds) * size), size))
        kept.append((sum(_held(mine, attacks, seeds, bars).values()) / (len(seeds) * size), size))
        every_seed.append(sum(n == len(seeds) for n in held.values()) / size)
        weighted.append(worst_weighted([s.robust if s.status == "scored" else 0.0 for s in scores]))
        if all(s.status != "scored" for s in scores):
            continue
        clean, base = scores[0].clean_accuracy, scores[0].clean_undefended
        if not clean + EVEN >= board.defense.floor * base:
            notes.append(
                f"{name}: clean accuracy {clean:.3f} is below {board.defense.floor:g} of the victim's {base:.3f}"
            )
    done = [s for s in tasks if s.status == "scored"]
    firsts = [scores[0] for scores in by.values() if any(s.status == "scored" for s in scores)]
    columns = {
        "clean_accuracy": sum(s.clean_accuracy for s in firsts) / len(parts),
        "clean_undefended": rates.mean([s.clean_undefended for s in firsts]),
        "robust_every_seed": sum(every_seed) / len(parts),
        "worst_weighted": sum(weighted) / len(parts),
        "attempted": len(firsts) / len(parts),
        **{k: v for k, v in _means(done, 0).items() if k != "attempted"},
        **(_spread("valid_robust", mean_interval(kept)) if _bars(tasks) else {}),
    }
    return Headline(
        interval=mean_interval(parts), eligible=not notes, footnote="; ".join(notes), columns=columns,
        flags=[*_flags(tasks), *_masked(by), *_unadapted(by)],
    )  # fmt: skip


def _by_task(board: Board, tasks: Sequence[TaskScore]) -> dict[str, list[TaskScore]]:
    """Scores by task of the board, in its order; each (task, attack) once."""
    names = [t.id for t in board.tasks]
    twice = [key for key, n in Counter((s.task, s.attack) for s in tasks).items() if n > 1]
    strange = [s.task for s in tasks if s.task not in names]
    if twice or strange or len(set(names)) != len(names) or not names:
        what = f"{twice[0]} is scored twice" if twice else f"{strange[0]} is not on it" if strange else "tasks repeat"
        raise AdvgymError(f"board {board.name!r}: {what}")
    return {name: [s for s in tasks if s.task == name] for name in names}


def _agreed(name: str, scores: Sequence[TaskScore]) -> int:
    """The number of samples assigned, the same for every attack."""
    sizes = {(s.assigned, s.samples, s.victim, s.clean_accuracy, s.clean_undefended) for s in scores}
    if not scores:
        raise AdvgymError(f"{name}: no attack of the panel has a score; one that did not run has score_task([], facts)")
    if len(sizes) != 1 or scores[0].assigned < 1 or not all(s.attack for s in scores):
        raise AdvgymError(f"{name}: the panel's attacks were not scored on the same samples of the same victim")
    return scores[0].assigned


def _bars(scores: Sequence[TaskScore]) -> dict[str, float]:
    """The bars of a task's columns, where its rows were measured."""
    return {name: c.bar for s in scores if s.columns for name, c in s.columns.items() if c.bar is not None}


def _valid_success(scores: Sequence[TaskScore]) -> dict[str, float]:
    """The headline of valid successes: those that reach the bars. A task without a bar counts all of its own.

    Nothing where no task has a bar: the figure would be the headline's under another name.
    """
    if not any(s.valid_success for s in scores):
        return {}
    rates = [
        ((s.valid_success or s.success).value if s.status == "scored" else 0.0, s.members or s.attacked) for s in scores
    ]
    return _spread("valid_success", mean_interval(rates))


def _spread(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _held(
    row_sets: Sequence[RowSet], attacks: Sequence[str], seeds: Sequence[int], bars: Mapping[str, float] | None = None
) -> Counter[int]:
    """In how many runs each sample held; with `bars`, only what reaches them breaks it, or what was not measured."""
    if not seeds:
        raise AdvgymError("there are no seeds, so nothing was run")
    bars = bars or {}
    broken = {
        s.id for rs in row_sets if rs.attack.startswith(DISPUTE) for s in rs.samples
        if s.success and s.valid and valid(s, bars, unknown=True)
    }  # fmt: skip
    kept = {
        (rs.attack, rs.seed): {s.id for s in rs.samples if not (lost(s, "defense") and valid(s, bars, unknown=True))}
        for rs in row_sets
    }
    held: Counter[int] = Counter()
    for seed in seeds:
        held.update(set.intersection(*(kept.get((attack, seed), set()) for attack in attacks)) - broken)
    return held


def _means(done: Sequence[TaskScore], tasks: int) -> dict[str, float]:
    """Plain means over what was scored."""
    return {
        "attempted": len(done) / tasks if tasks else 0.0,
        "invalid_rate": rates.mean([s.invalid_rate for s in done]),
        "queries_mean": rates.mean([s.queries_mean for s in done]),
        "gradients_mean": rates.mean([s.gradients_mean for s in done]),
    }


def _flags(tasks: Sequence[TaskScore]) -> list[str]:
    """Each flag once, with where it holds."""
    found: dict[str, list[str]] = {}
    for s in tasks:
        for flag in s.flags:
            found.setdefault(flag, []).append(s.task + (f" ({s.attack})" if s.attack else ""))
    return [f"{', '.join(where)}: {flag}" for flag, where in found.items()]


def _surely(score: TaskScore) -> float:
    return score.success.low if score.knowledge == "transfer" else score.success.value


def _masked(by: dict[str, list[TaskScore]]) -> list[str]:
    """Attacks without gradients that succeed more often than every white-box one (Athalye et al. 2018).

    The transfer attack has gradients of its own, so chance puts it above now and then: there the interval decides.
    """
    flags = []
    for name, scores in by.items():
        white = [s.success.value for s in scores if s.knowledge == "white-box"]
        above = [s.attack for s in scores if white and s.knowledge != "white-box" and _surely(s) > max(white)]
        if above:
            flags.append(
                f"{name}: {', '.join(above)} succeed more often than every white-box attack: masked gradients?"
            )
    return flags


def _unadapted(by: dict[str, list[TaskScore]]) -> list[str]:
    """Tasks on which no attack had the defense's own gradients, so that no figure there is of an adaptive attacker."""
    return [
        f"{name}: no attack of the panel had this defense's own gradients: none was adaptive to it"
        for name, scores in by.items()
        if any(s.status == "scored" for s in scores)
        and not any(s.status == "scored" and s.knowledge == "white-box" for s in scores)
    ]
