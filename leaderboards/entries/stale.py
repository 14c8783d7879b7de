"""Whether an entry still says what a run of today would: it is stale once board, data, victims or scorer changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from advgym.judge import contract
from advgym.leaderboards.entries.entry import Entry
from advgym.leaderboards.rules.board import board_hash
from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.scoring.outcome import Facts

if TYPE_CHECKING:
    from advgym.leaderboards.rules.phase_cards import PhaseCard


def stale(entry: Entry, board: Board, card: PhaseCard, scorer: str, facts: Sequence[Facts] = ()) -> str:
    """Why an entry is stale, "" where it is not.

    Args:
        card: of the entry's phase: the hidden victims' hashes.
        scorer: `scorer_hash(board)` now.
        facts: of the phase's tasks now, where they are at hand: victims and samples are compared with them, too.
    """
    made = contract.number(entry.contract)
    if made > contract.CONTRACT:
        return f"scored under contract {made}, which this version does not know"
    if made < contract.CONTRACT:
        return f"scored under contract {made}; since then: {'; '.join(contract.since(entry.contract))}"
    if entry.board_hash != board_hash(board):
        return "the board changed since: its tasks, budgets, phases or limits"
    if entry.scorer != scorer:
        return "the code that scores changed since"
    weights = {name: victim.weights for name, victim in card.victims.items()}
    weights.update({f.task: f.victim for f in facts})
    samples = {f.task: f.samples for f in facts}
    for score in entry.tasks:
        if score.victim != (weights.get(score.task) or score.victim):
            return f"the victim of {score.task} is another one since"
        if score.samples != (samples.get(score.task) or score.samples):
            return f"the samples of {score.task} are others since"
    return ""
