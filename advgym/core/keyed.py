"""Victims that answer at random: their answers, the draws that confirm a success, and what all of them are keyed by.

An answer is the mean of several draws, paid by the evaluator. A success is told only after a majority of nine further
draws, and judged by nine that nobody has seen. A draw that lies to attacks alone therefore neither ends nor hides one:
lies are left out of the mean while fewer than half of the draws tell them, however large their numbers are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgym.core import rng
from advgym.core.goals import Goal
from advgym.core.victim import Victim, ask

CONFIRMING = 9  # draws, keyed by (sample, digest): asking again asks the same ones
ANSWER, CONFIRM, CLEAN, VERDICT = "answer", "confirm", "clean", "verdict"


def draw(
    victim: Victim, x: Any, members: int, ids: Tensor, *, seed: int, purpose: str, nth: Tensor | int = 0,
    draws: int = 1, null: Tensor | None = None,
) -> list[Tensor]:  # fmt: skip
    """`draws` answers to each of n inputs, every one a call of its own; one where the victim draws nothing.

    Args:
        ids: int64 (n,), the samples; nth: int64 (n,), what tells one of a sample's inputs from another.
        seed, purpose: of the keys, see `rng.veiled`.
        null: bool (n,), which inputs are clean ones, for the victim's `watch`.
    """
    told, final = None if purpose == CLEAN else ids, purpose == VERDICT
    keys = [rng.veiled(seed, purpose, ids, nth, d) for d in range(draws)] if victim.keyed else [None]
    return [ask(victim, x, members, k, ids=told, null=null, final=final) for k in keys]


def mean(goal: Goal, draws: list[Tensor]) -> Tensor:
    """One answer of several draws (n, *scores): the mean of those whose output is the commonest of their row.

    So the mean says what most draws say, and its objective is positive exactly where most draws' are. Where no two
    draws agree (long sequences) it is the mean of all.
    """
    if len(draws) == 1:
        return draws[0]
    stack = torch.stack(draws)
    with torch.no_grad():
        said = torch.stack([goal.output(s).reshape(len(s), -1) for s in draws])
        sound = torch.isfinite(stack).flatten(2).all(2)  # what is no number agrees with nothing
        alike = (said.unsqueeze(0) == said.unsqueeze(1)).all(3)  # (draws, draws, n)
        alike &= sound.unsqueeze(0) & sound.unsqueeze(1)
        votes = alike.sum(1)
        most, first = votes.max(0)
        kept = alike.gather(0, first.view(1, 1, -1).expand(1, len(draws), -1))[0] | (most <= 1)
    wide = kept.view(*kept.shape, *[1] * (stack.dim() - 2))
    total = torch.where(wide, stack, 0.0).sum(0)
    return total / wide.sum(0)


def answer(
    victim: Victim, goal: Goal, x: Any, members: int, ids: Tensor, *, seed: int, purpose: str, nth: Tensor | int = 0,
    null: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Scores (n, *scores) of one answer to each input."""
    every = draw(victim, x, members, ids, seed=seed, purpose=purpose, nth=nth, draws=victim.draws, null=null)
    return mean(goal, every)
