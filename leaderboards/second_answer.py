"""A defense is asked again in a fresh process, in another order: what it says then must agree with what was scored.

In the process that is attacked a defense can tell the evaluator by what it saw before: clean inputs come first, batches
have other sizes than when it was measured. Here the perturbed inputs come first and the clean ones after.
"""

from __future__ import annotations

from typing import Any

import msgspec
import torch

from advgym.batch import capped
from advgym.clean import answer
from advgym.goals import SUCCESS
from advgym.results import Sample
from advgym.rng import mix
from advgym.task import Task
from advgym.verifier import DRAWS
from advgym.victim import ask

REASON = "inconsistent"


@torch.no_grad()
def check_rows(task: Task, split: str, rows: list[Sample], seed: int, device: Any) -> list[Sample]:
    """The rows, with `REASON` and counted as broken where the second answer contradicts the first.

    A sample holds where it was attacked, its final perturbation has no success here either, and it is right when clean.

    Args:
        task: behind the defense, in a process that was asked nothing yet.
        rows: of one shard, judged on the samples that were right when the defense was measured.
        seed: of a randomised defense's draws.
    """
    if not rows:
        return rows
    batch, victim, goal = task.samples(split, [r.id for r in rows], device), task.victim.on(device), task.goal
    look = batch.look(batch.load([r.perturbation for r in rows]))
    x = batch.inputs(look.form)
    ref = torch.as_tensor([r.before for r in rows], device=device)
    target = torch.as_tensor([r.target for r in rows], device=device) if goal.needs_target else None
    wins, draws = torch.zeros(len(rows), device=device), DRAWS if victim.keyed else 1
    for draw in range(draws):
        keys = mix(batch.ids * 2**8 + draw + mix(torch.tensor(seed ^ 1, device=device)))
        scores = ask(victim, x, batch.members, keys)
        won = capped(batch, goal.judge(scores, ref, target)[0], look.form) > SUCCESS
        if victim.risk is not None:
            won &= torch.as_tensor(victim.risk(x)).to(device) < victim.threshold
        wins += won
    broken = (wins * 2 > draws) & look.valid & ~look.null
    clean = batch.inputs(batch.look(batch.null()).form)
    right = goal.right(answer(victim, batch, goal), batch.labels)
    if victim.risk is not None:
        right &= torch.as_tensor(victim.risk(clean)).to(device) < victim.threshold
    broken |= ~right
    return [
        msgspec.structs.replace(r, success=True, first_success=max(r.first_success, 0), reason=REASON)
        if not r.success and (bad or r.reason == "not attacked")
        else r
        for r, bad in zip(rows, broken.tolist(), strict=True)
    ]
