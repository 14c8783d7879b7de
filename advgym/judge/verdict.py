"""The verifier: from the clean sample and the final perturbation alone, in its own fixed batching.

It believes nothing that a run wrote down: inputs are made again, constraints checked again, the victim asked again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from torch import Tensor

from advgym.core import keyed
from advgym.core.batch import Batch, capped
from advgym.core.cached import asked_anew
from advgym.core.clean import CHUNK, Clean, answer, assigned, reached, right, unanswered
from advgym.core.goals import SUCCESS
from advgym.core.rng import veiled
from advgym.core.task import Task, defend, make_task
from advgym.errors import AdvgymError, DataError
from advgym.judge import columns, results
from advgym.judge.figures import LATER, figures
from advgym.lib import rates
from advgym.lib.extras import says_missing
from advgym.lib.weights import weights_hash

FRESH = "members"  # what keys of draws among a bundle's members are for
DRAWS = keyed.CONFIRMING  # fresh draws of a randomised victim; the verdict is their majority


class Verdict(NamedTuple):
    """What the verifier found for each sample; tensors of n rows on the CPU."""

    success: Tensor
    valid: Tensor
    right: Tensor
    objective: Tensor
    distance: Tensor
    before: Tensor
    after: Tensor
    labels: Tensor
    silent: Tensor  # no answer to the perturbed input: no success of an attack, and broken for a defense
    already: Tensor  # the clean answer is what the target asks for: no target


@torch.no_grad()
def judge(
    task: Task, split: str, ids: list[int], proposals: Any, *, device: Any = "cpu", seed: int = 0, targets: Any = None,
    clean: Clean | None = None,
) -> Verdict:  # fmt: skip
    """Score perturbations of the samples `ids`.

    Args:
        proposals: a tensor (n, *shape), or stored perturbations as `Batch.dump` wrote them.
        targets: one per sample for targeted goals.
        seed: of the fresh draws that a randomised victim is judged by.
        clean: the victim's clean answers, where they are known; None asks for them.
    """
    parts: list[Verdict] = []
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        batch = task.judged(split, part, device)
        chosen = proposals[start : start + CHUNK]
        p = chosen.to(device) if isinstance(chosen, Tensor) else batch.load(list(chosen))
        target = None if targets is None else targets[start : start + CHUNK]
        if clean is None or task.unseen is not None:
            known = answer(task.victim.on(device), batch, task.goal)
        else:
            known = clean.of(part)[0]
        parts.append(_judge_chunk(task, batch, p, known, target, device, seed))
    return Verdict(*(torch.cat(field).cpu() for field in zip(*parts, strict=True)))


def _judge_chunk(task: Task, batch: Batch, p: Tensor, clean: Tensor, targets: Any, device: Any, seed: int) -> Verdict:
    victim, goal = task.victim.on(device), task.goal
    ref = goal.output(torch.nan_to_num(clean))
    target = None
    if goal.needs_target and targets is not None:
        rows = [r if t is None else goal.parse_target(t).to(ref.device) for t, r in zip(targets, ref, strict=True)]
        target = torch.stack(rows)
    look = batch.look(p)
    batch = batch.fresh(veiled(seed, FRESH, batch.ids, look.digest))
    safe = batch.look(torch.where(look.real.view(-1, *[1] * (p.dim() - 1)), p, batch.null()))
    x = batch.inputs(safe.form)
    wins, objectives, scores = torch.zeros(len(p), device=device), [], clean
    silent = torch.zeros(len(p), dtype=torch.bool, device=device)
    every = keyed.draw(
        victim, x, batch.members, batch.ids, seed=seed, purpose=keyed.VERDICT, nth=look.digest, draws=DRAWS
    )
    draws = len(every)
    for scores in every:
        silent |= unanswered(scores)
        objective = capped(batch, goal.judge(scores, ref, target)[0], safe.form)
        won = objective > SUCCESS  # False for NaN
        if victim.risk is not None:
            won = won & (torch.as_tensor(victim.risk(x)).to(objective) < victim.threshold)
        wins += won
        # Finite, because JSON has neither NaN nor infinities.
        objectives.append(torch.nan_to_num(objective, nan=torch.finfo(objective.dtype).min))
    success = (wins * 2 > draws) & look.valid & ~look.null
    objective = torch.stack(objectives).median(0).values
    return Verdict(
        success,
        look.valid,
        right(goal, clean, batch.labels),
        objective,
        look.distance,
        ref,
        goal.output(torch.nan_to_num(scores)),
        batch.labels,
        silent,
        reached(goal, batch, clean, target) if target is not None else torch.zeros_like(silent),
    )


def rebuild(result: results.Result) -> Task:
    """The task of a result file, with the very options and defenses it names."""
    options = dict(result.options)
    if options.pop("own", None):
        raise AdvgymError(f"{result.task} was attacked with objects of the caller's own; pass task= to verify it")
    task = make_task(result.task, **options)
    return defend(task, [(name, settings) for name, settings in result.defenses])


@says_missing
def verify(
    result: results.Result | str | Path, *, task: Task | None = None, device: Any = "cpu", tolerance: float = 1e-3
) -> list[str]:
    """Re-apply and re-score every stored perturbation; the disagreements, in words. None: the file is true.

    Args:
        result: a `Result` or the path of one.
        task: for results on objects of your own, the same task again.
        tolerance: of objectives and distances (batching and devices round differently).

    Raises:
        DataError: when the file cannot be read, or holds a perturbation that is none of this task.
    """
    r = result if isinstance(result, results.Result) else results.load(result)
    with asked_anew():
        return _verify(r, task or rebuild(r), device, tolerance)


def _verify(r: results.Result, task: Task, device: Any, tolerance: float) -> list[str]:
    wrong: list[str] = []
    expected = victim_card(task).get("weights")
    if r.victim.get("weights") != expected:
        wrong.append(f"victim weights are {str(expected)[:12]}, the file says {str(r.victim.get('weights'))[:12]}")
    if not r.samples:
        right = _right(task, r, device)
        return wrong + _check_assigned(r, right) + _check_summary(r, [], right, task)
    ids = [s.id for s in r.samples]
    if len(set(ids)) != len(ids):
        raise DataError("the file lists a sample twice")
    targets = [s.target for s in r.samples] if task.goal.needs_target else None
    found = judge(task, r.split, ids, [s.perturbation for s in r.samples], device=device, seed=r.seed, targets=targets)
    for i, s in enumerate(r.samples):
        pairs = [
            ("success", s.success, bool(found.success[i]) and bool(found.right[i])),
            ("valid", s.valid, bool(found.valid[i])),
            ("label", s.label, found.labels[i].tolist()),
            ("before", s.before, found.before[i].tolist()),
            ("after", s.after, found.after[i].tolist()),
        ]
        wrong += [f"sample {s.id}: {name} is {new!r}, the file says {old!r}" for name, old, new in pairs if old != new]
        if found.already[i]:
            wrong.append(f"sample {s.id}: the target {s.target!r} is what the victim says already, and no target")
        for name, claimed, value in (
            ("objective", s.objective, found.objective[i]),
            ("distance", s.distance, found.distance[i]),
        ):
            if not abs(claimed - float(value)) <= tolerance * max(1.0, abs(claimed)):
                wrong.append(f"sample {s.id}: {name} is {float(value):.6g}, the file says {claimed:.6g}")
        wrong += _check_meters(s, task)
    wrong += [f"{k} is {getattr(task.threat, k)!r}, the file says {r.threat.get(k)!r}" for k in _KEPT
              if r.threat.get(k) != getattr(task.threat, k)]  # fmt: skip
    wrong += columns.check(r, task, device, tolerance)
    right = _right(task, r, device)
    wrong += _check_assigned(r, right)
    return wrong + _check_summary(r, [bool(v) for v in found.success & found.right], right, task)


_KEPT = ("knowledge", "goal", "queries", "gradients", "least")


def _check_meters(s: results.Sample, task: Task) -> list[str]:
    """What a sample says it spent is within the budgets."""
    limits = {
        "queries": (0, s.queries, task.threat.queries),
        "queries_distinct": (0, s.queries_distinct, s.queries),
        "first_success": (0 if s.success else -1, s.first_success, s.queries if s.success else -1),
        "gradients": (0, s.gradients, task.threat.gradients),
    }
    return [
        f"sample {s.id}: {name} is {value}, not within {low} and {high}"
        for name, (low, value, high) in limits.items()
        if not low <= value <= high
    ]


def _right(task: Task, r: results.Result, device: Any) -> Tensor:
    """Which samples of the split the victim has right, of those that clean accuracy is over."""
    clean = Clean(task, r.split, torch.device(device), task.victim.on(device))
    clean.learn(_clean_ids(r, task))
    return clean.right


def _clean_ids(r: results.Result, task: Task) -> list[int]:
    size = task.sizes[r.split]
    if r.clean_of is not None and not min(r.episodes, size) <= r.clean_of <= size:
        raise DataError(
            f"clean_of is {r.clean_of}: clean accuracy is over the {r.episodes} samples assigned at least, and over "
            f"the {size} of split {r.split!r} at most"
        )
    return assigned(size, size if r.clean_of is None else r.clean_of)


def _check_assigned(r: results.Result, right: Tensor) -> list[str]:
    """The rows are the samples that were assigned and that the victim has right: none dropped, none chosen."""
    want = {i for i in assigned(len(right), r.episodes) if right[i]}
    have = {s.id for s in r.samples}
    lines = (("is missing", want - have), ("was not assigned, or the victim has it wrong", have - want))
    return [f"sample {i} {what}" for what, ids in lines for i in sorted(ids)]


def _check_summary(r: results.Result, success: list[bool], right: Tensor, task: Task) -> list[str]:
    """The figures follow from the samples."""
    rows = [msgspec.structs.replace(s, success=won) for s, won in zip(r.samples, success, strict=True)]
    over = _clean_ids(r, task)
    share = float(right[over].double().mean())
    found = figures(rows, episodes=r.episodes, clean=share, goal=task.goal, budget=r.threat.get("queries", 0))
    if r.clean_ci is not None:
        found["clean_ci"] = rates.wilson(int(right[over].sum()), len(over))
    wrong: list[str] = []
    for name, new in found.items():
        old = getattr(r, name)
        if name in LATER and old in (None, []):
            continue
        if new is None:
            wrong.append(f"{name} is of bundles, the file says {old:.6g} of single samples")
            continue
        if isinstance(new, list):
            if not _same_curve(new, old):
                wrong.append(f"{'the curve' if name == 'curve' else name} does not follow from the samples")
            continue
        ends: tuple[tuple[str, float, float], ...] = (("", old, new),)
        if isinstance(new, tuple):
            ends = ((" (low)", old[0], new[0]), (" (high)", old[1], new[1]))
        wrong += [f"{name}{end} is {y:.6g}, the file says {x:.6g}" for end, x, y in ends if not abs(x - y) <= 1e-9]
    return wrong


def _same_curve(one: list[tuple[int, float]], other: list[tuple[int, float]]) -> bool:
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(q == p and abs(x - y) <= 1e-9 for (q, x), (p, y) in pairs)


def victim_card(task: Task) -> dict[str, Any]:
    """Name, hash of the weights, what its recipe says, and what reading the data changed of it."""
    module = task.victim.module
    card = {"name": task.victim.name, "access": task.victim.access, **task.victim.card}
    if module is not None:
        card["weights"] = weights_hash(module)
    if task.notes:
        card["data_notes"] = list(task.notes)
    return card
