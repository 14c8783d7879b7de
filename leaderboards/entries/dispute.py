"""New versions of entries: perturbations handed in against a defense, re-verified; and what an organiser marks."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import msgspec

from advgym.errors import AdvgymError, DataError
from advgym.judge.results import Result, Sample
from advgym.leaderboards.entries.entry import Entry, Rows, RowSet, canonical
from advgym.leaderboards.rules.reasons import Refused, table, tidy
from advgym.leaderboards.scoring.headline import headline_defense
from advgym.leaderboards.scoring.measured import measure_rows
from advgym.leaderboards.scoring.outcome import DISPUTE, lost

if TYPE_CHECKING:
    from advgym.core.task import Task
    from advgym.leaderboards.rules.board_tables import Board

ROUNDS = 3  # verdicts, each of fresh draws, that a perturbation of a randomised defense has to win
MARK = "dispute"  # the reason of such a row
WRONG = "inconsistent"  # or, for a sample that the defense has wrong by now even when it is clean
MOST_STOPPED = 16  # samples of one dispute that may stop the defense; each is a process, and may take its whole limit
Behind = Callable[[], AbstractContextManager["Task"]]


class DisputeRefused(Refused):
    """Perturbations that lower nothing, as not-disputable, bad-result or nothing-lowered; the message says why."""


def lower(
    entry: Entry, rows: Rows, result: Result, board: Board, task: Task, *, seed: int, created: str, device: Any = "cpu",
    behind: Behind | None = None,
) -> tuple[Entry, Rows]:  # fmt: skip
    """The entry with its worst case lowered by what was handed in, superseding the old one, and its rows.

    Nothing that the result says is believed: each of its perturbations is judged again on the entry's own victim and
    threat model, and only samples that held so far count. Queries and the author's knowledge do not matter: a
    perturbation that breaks a sample shows that it can be broken.

    Args:
        entry, rows: of the defense track.
        result: the perturbations, a result file on the same task.
        task: at the board's threat model; behind the entry's defense, unless `behind` puts it there.
        behind: opens the task behind the defense, in a fresh process. One that stops answering is asked again about one
            sample at a time, and what stops it is broken: not answering is losing here, too.
        seed: of the verdict's fresh draws; drawn after the result came in, so that nobody can search against it.
        created: when, as an ISO date-time.

    Raises:
        DisputeRefused: when it is no defense of that task, cannot be read, or breaks nothing that held.
    """
    if entry.track != "defense":
        raise DisputeRefused("not-disputable", f"entry {entry.id} is an attack, which `advgym verify` judges again")
    known = [rs for rs in rows.sets if rs.task == result.task and not rs.attack.startswith(DISPUTE)]
    if not known or task.name != result.task:
        names = ", ".join(dict.fromkeys(s.task for s in entry.tasks))
        raise DisputeRefused("not-disputable", f"the result is on {result.task}; entry {entry.id} has rows on {names}")
    open_ids = held(entry, rows, result.task)
    chosen = [s for s in result.samples if s.id in open_ids and _dealt(task, known, s)]
    if not chosen:
        what = f"none of the {len(result.samples)} samples of the result is one that held so far"
        raise DisputeRefused("nothing-lowered", what)
    if len({s.id for s in chosen}) != len(chosen):
        raise DisputeRefused("bad-result", "it lists a sample twice")
    broken = _judged(task, behind or (lambda: nullcontext(task)), known[0].split, chosen, seed, device)
    if not broken:
        what = f"none of {len(chosen)} perturbations breaks its sample: judged again, all of them fail"
        raise DisputeRefused("nothing-lowered", what)
    broken = measure_rows(task, known[0].split, broken, device)
    number = 1 + sum(rs.attack.startswith(DISPUTE) for rs in rows.sets)
    given = RowSet(
        task=result.task, attack=f"{DISPUTE}{number}", seed=seed, split=known[0].split, options=known[0].options,
        samples=broken,
    )  # fmt: skip
    new = Rows(sets=[*rows.sets, given])
    head = headline_defense(board, new.sets, entry.tasks, entry.run_seeds)
    flag = f"{result.task}: {len(broken)} more samples broken by perturbations handed in ({given.attack})"
    changed = msgspec.structs.replace(
        entry, headline=head.interval, columns=head.columns, flags=[*entry.flags, flag], created=created,
        rows=hashlib.sha256(canonical(new)).hexdigest(), supersedes=entry.id, cause="dispute",
        disputes=entry.disputes + 1,
    )  # fmt: skip
    return changed, new


def held(entry: Entry, rows: Rows, task: str) -> set[int]:
    """The samples of a task that a defense holds in at least one run, over all that was tried so far."""
    sets = [rs for rs in rows.sets if rs.task == task]
    broken = {s.id for rs in sets if rs.attack.startswith(DISPUTE) for s in rs.samples}
    attacks = [s.attack for s in entry.tasks if s.task == task]
    count: Counter[tuple[int, int]] = Counter(
        (rs.seed, s.id) for rs in sets if rs.attack in attacks for s in rs.samples if not lost(s, "defense")
    )
    return {id for (_, id), n in count.items() if n == len(attacks)} - broken


def _dealt(task: Task, known: list[RowSet], sample: Sample) -> bool:
    """Whether the sample has the goal that it was played with: a target of one's own choosing proves nothing."""
    if not task.goal.needs_target:
        return True
    return any(s.target == sample.target for rs in known for s in rs.samples if s.id == sample.id)


def _judged(task: Task, behind: Behind, split: str, chosen: list[Sample], seed: int, device: Any) -> list[Sample]:
    """The samples that are broken, as the verifier sees them, with their perturbations in canonical form."""
    from advgym.leaderboards.boundary.guard import DefenseFailed

    try:
        with behind() as defended:
            return _broken(defended, split, chosen, seed, device)
    except DefenseFailed as failure:
        if len(chosen) == 1:
            return _broken(task, split, chosen, seed, device, failure.code if failure.code in table() else "crashed")
    found: list[Sample] = []
    for s in chosen:
        found += _judged(task, behind, split, [s], seed, device)
        if sum(f.reason not in (MARK, WRONG) for f in found) == MOST_STOPPED:
            break
    return found


def _broken(task: Task, split: str, chosen: list[Sample], seed: int, device: Any, stopped: str = "") -> list[Sample]:
    """What breaks: a success in every round, or an answer to the clean input that is wrong by now.

    Args:
        stopped: why the defense gave no answer; every perturbation within the constraint then counts.
    """
    import torch

    from advgym.judge.verdict import judge

    ids, perturbations = [s.id for s in chosen], [s.perturbation for s in chosen]
    targets = [s.target for s in chosen] if task.goal.needs_target else None
    wins, wrong = torch.ones(len(ids), dtype=torch.bool), torch.zeros(len(ids), dtype=torch.bool)
    try:
        for turn in range(ROUNDS if task.victim.keyed else 1):
            found = judge(task, split, ids, perturbations, device=device, seed=seed + turn, targets=targets)
            wins &= found.success & found.right
            wrong |= found.valid & ~found.right
        batch = task.samples(split, ids, device)
        look = batch.look(batch.load(perturbations))
    except DataError as error:
        what = f"it holds something that is no perturbation of {task.name}: {error}"
        raise DisputeRefused("bad-result", what) from None
    counts = found.valid & ~look.null.cpu() if stopped else wins | wrong
    return [
        Sample(
            id=s.id, label=found.labels[i].tolist(), before=found.before[i].tolist(), after=found.after[i].tolist(),
            success=True, valid=True, objective=float(found.objective[i]), queries=0, queries_distinct=0,
            first_success=0, gradients=0, distance=float(found.distance[i]),
            reason=stopped or (MARK if wins[i] else WRONG), perturbation=batch.dump(look.form[i], i),
            target=s.target if targets else None,
        )
        for i, s in enumerate(chosen)
        if counts[i]
    ]  # fmt: skip


def mark(
    entry: Entry, *, created: str, footnote: str, external: bool | None = None, unreliable: bool | None = None
) -> Entry:
    """The organiser's new version of an entry; None leaves a mark as it is.

    Args:
        footnote: why; added to what stands there.

    Raises:
        AdvgymError: without a footnote: nobody is marked without a word.
    """
    said = tidy(footnote)
    if not said:
        raise AdvgymError("an entry is marked with a footnote that says why; give --footnote TEXT")
    return msgspec.structs.replace(
        entry, external=entry.external if external is None else external,
        unreliable=entry.unreliable if unreliable is None else unreliable,
        footnote="; ".join(filter(None, (entry.footnote, said))), created=created, supersedes=entry.id,
        cause="mark",
    )  # fmt: skip
