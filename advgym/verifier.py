"""The verifier: from the clean sample and the final perturbation alone, in its own fixed batching.

It believes nothing that a run wrote down: inputs are made again, constraints checked again, the victim asked again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from torch import Tensor

from advgym import columns, keyed, results
from advgym.batch import Batch, capped
from advgym.cached import asked_anew
from advgym.clean import CHUNK, Clean, answer, assigned, right, unanswered
from advgym.errors import AdvgymError, DataError
from advgym.goals import SUCCESS
from advgym.task import Task, defend, make_task
from advgym.weights import weights_hash

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


@torch.no_grad()
def judge(
    task: Task, split: str, ids: list[int], proposals: Any, *, device: Any = "cpu", seed: int = 0, targets: Any = None
) -> Verdict:
    """Score perturbations of the samples `ids`.

    Args:
        proposals: a tensor (n, *shape), or stored perturbations as `Batch.dump` wrote them.
        targets: one per sample for targeted goals.
        seed: of the fresh draws that a randomised victim is judged by.
    """
    parts: list[Verdict] = []
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        batch = task.samples(split, part, device)
        chosen = proposals[start : start + CHUNK]
        p = chosen.to(device) if isinstance(chosen, Tensor) else batch.load(list(chosen))
        target = None if targets is None else targets[start : start + CHUNK]
        parts.append(_judge_chunk(task, batch, p, target, device, seed))
    return Verdict(*(torch.cat(field).cpu() for field in zip(*parts, strict=True)))


def _judge_chunk(task: Task, batch: Batch, p: Tensor, targets: Any, device: Any, seed: int) -> Verdict:
    victim, goal = task.victim.on(device), task.goal
    clean = answer(victim, batch, goal)
    ref = goal.output(torch.nan_to_num(clean))
    target = None
    if goal.needs_target and targets is not None:
        rows = [r if t is None else goal.parse_target(t).to(ref.device) for t, r in zip(targets, ref, strict=True)]
        target = torch.stack(rows)
    look = batch.look(p)
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
    )


def rebuild(result: results.Result) -> Task:
    """The task of a result file, with the very options and defenses it names."""
    options = dict(result.options)
    if options.pop("own", None):
        raise AdvgymError(f"{result.task} was attacked with objects of the caller's own; pass task= to verify it")
    task = make_task(result.task, **options)
    return defend(task, [(name, settings) for name, settings in result.defenses])


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
    clean = Clean(task, r.split, torch.device(device), task.victim.on(device), None)
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
    wins, n, clean, robust = results.accuracies(rows, r.episodes, share, task.goal)
    low, high = results.wilson(wins, n)
    claims = {
        "clean_accuracy": (r.clean_accuracy, clean),
        "attacked": (r.attacked, len(rows)),
        "success_rate": (r.success_rate, wins / n if n else 0.0),
        "success_ci (low)": (r.success_ci[0], low),
        "success_ci (high)": (r.success_ci[1], high),
        "robust_accuracy": (r.robust_accuracy, robust),
        "invalid_rate": (r.invalid_rate, results.mean([float(not s.valid) for s in rows])),
        "queries_mean": (r.queries_mean, results.mean([s.queries for s in rows])),
        "queries_median": (r.queries_median, results.median([s.queries for s in rows])),
        "gradients_mean": (r.gradients_mean, results.mean([s.gradients for s in rows])),
        "distance_median": (r.distance_median, results.median([s.distance for s in rows if s.success])),
    }
    budget = r.threat.get("queries", 0)
    later = {  # absent from the first files of the format
        "queries_distinct_mean": (r.queries_distinct_mean, results.mean([s.queries_distinct for s in rows])),
        "queries_distinct_median": (r.queries_distinct_median, results.median([s.queries_distinct for s in rows])),
        "success_area": (r.success_area, results.success_area(rows, budget)),
        "members_rate": (r.members_rate, 0.0 if r.members_rate is None else results.members_rate(rows)),
    }
    if r.clean_ci is not None:
        ends = results.wilson(int(right[over].sum()), len(over))
        later |= {f"clean_ci ({end})": (r.clean_ci[i], ends[i]) for i, end in enumerate(("low", "high"))}
    claims |= {k: (old, new) for k, (old, new) in later.items() if old is not None}
    wrong = [
        f"{k} is {new:.6g}, the file says {old:.6g}" for k, (old, new) in claims.items() if not abs(old - new) <= 1e-9
    ]
    if not _same_curve(results.success_curve(rows, budget), r.curve):
        wrong.append("the curve does not follow from the samples")
    if r.success_at and not _same_curve(results.success_at(rows, budget), r.success_at):
        wrong.append("success_at does not follow from the samples")
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
