"""The loop of all defenses that train the victim again: a loss of one batch, a row of settings, a cached result."""

from __future__ import annotations

import copy
import inspect
import logging
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.lessons import Inner, Lesson, inner_of
from advgym.core.rng import bits
from advgym.core.task import Task
from advgym.lib.content import digest
from advgym.lib.fit import descend
from advgym.lib.settings import COUNT, NATURAL, POSITIVE, SHARE, Allowed, Range, settings_of
from advgym.lib.weights import load_or_train, weights_hash

log = logging.getLogger("advgym")
ROWS = Path(__file__).parent / "training" / "rows.toml"
Loss = Callable[..., Tensor]
# What every row may set, and what is allowed. 0 samples, epochs, batch, lr: as `sizes` says of the victim.
COMMON: dict[str, Any] = {
    "agent": "", "steps": 4, "step_size": 0.4, "samples": 0, "epochs": 0, "batch": 0, "lr": 0.0, "queries": 60,
    "replays": 1, "average": 0.0, "watch": 0, "drop": 0.2,
}  # fmt: skip
ALLOWED: dict[str, Allowed] = {
    "steps": COUNT, "step_size": POSITIVE, "samples": NATURAL, "epochs": NATURAL, "batch": NATURAL, "lr": NATURAL,
    "queries": COUNT, "replays": COUNT, "average": Range(0, 0.99999), "watch": NATURAL, "drop": SHARE,
}  # fmt: skip
AGENTS = {"field": "pgd", "edits": "first-order"}  # the inner attack, where a row names none
PARTS = 4  # of an epoch, after each of which the watch looks
PATIENCE = 10  # steps of the attack that watches


@cache
def table() -> Mapping[str, Any]:
    """The rows: `defenses` by name, and `sizes` by the victim's name ("" for all others)."""
    return tomllib.loads(ROWS.read_text(encoding="utf-8"))


def trained(allowed: Mapping[str, Allowed] | None = None) -> Callable[[Loss], Loss]:
    """Register every row of `rows.toml` whose `loss` is the file that this decorates a loss of.

    The loss is `loss(lesson, *, ...) -> Tensor (n,) or ()`, to be driven down; its keyword arguments are settings of
    the defense, beside those of `COMMON`. A row's `set` holds other defaults of either.

    Args:
        allowed: values of the loss's own settings.
    """

    def register(loss: Loss) -> Loss:
        stem = loss.__module__.rpartition(".")[2]
        for name, row in table()["defenses"].items():
            if row["loss"] == stem:
                _register(name, row, loss, {**ALLOWED, **(allowed or {})})
        return loss

    return register


def _register(name: str, row: Mapping[str, Any], loss: Loss, allowed: Mapping[str, Allowed]) -> None:
    defaults = {**COMMON, **settings_of(loss), **row.get("set", {})}

    def defend(victim: Victim, task: Task, **settings: Any) -> Victim:
        return train(name, loss, victim, task, {**defaults, **settings})

    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(n, kinds[0]) for n in ("victim", "task")]
    parameters += [inspect.Parameter(n, kinds[1], default=v) for n, v in {**defaults, "seed": 0}.items()]
    defend.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    defend.__doc__ = f"{row['title']} ({row['paper']})."
    defend.__module__ = loss.__module__
    register_defense(name, kinds=tuple(row.get("kinds", ("field", "edits"))), allowed=allowed)(defend)


def train(name: str, loss: Loss, victim: Victim, task: Task, given: dict[str, Any]) -> Victim:
    """The victim after training on `loss`; from the cache where this was done before.

    Raises:
        AdvgymError: for a victim that is no module, a task without training samples, or one that the loss cannot take.
    """
    if victim.module is None:
        raise AdvgymError(f"victim {victim.name!r} is no module, so it cannot be trained")
    if task.plain is not None:  # one defended victim, whatever eps, goal and budget it is attacked with
        task = replace(task.plain(), victim=victim)
    split = task.check_split("train")  # never what is attacked
    sizes, row = table()["sizes"], table()["defenses"].get(name, {})
    known = {**sizes["other"], **sizes.get(victim.name, {}), **row.get("sizes", {}).get(victim.name, {})}
    s = {k: known[k] if k in known and not v else v for k, v in given.items()}
    seed = s.setdefault("seed", 0)
    kind = task.samples(split, [0]).kind
    if kind not in row.get("kinds", (kind,)):
        raise AdvgymError(
            f"{name} needs the gradient of a {row['kinds'][0]}, and {task.name} offers {kind}: take a defense that "
            "trains on what an agent finds, as adversarial-training"
        )
    s["agent"] = s["agent"] or row.get("agents", AGENTS)[kind]
    inner = inner_of(s["agent"], {"steps": s["steps"], "step_size": s["step_size"]}, s["queries"])
    epochs = [_batches(task.sizes[split], s, seed + e) for e in range(s["epochs"])]
    recipe = {
        "defense": name, "victim": weights_hash(victim.module), "task": task.name, "sizes": dict(task.sizes),
        "goal": task.threat.goal, "constraint": dict(task.threat.constraint), "content": _content(task, split, epochs),
        **s,
    }  # fmt: skip
    label = f"{victim.name}-{'at' if name == 'adversarial-training' else name}-{s['agent']}"
    original = copy.deepcopy(victim.module)

    def learn(module: nn.Module) -> dict[str, Any]:
        given, started = _twin(victim, original), time.process_time()
        told = _course(loss, task, split, victim, given, module, inner, epochs, s)
        return {"inner": s["agent"], "cpu_seconds": round(time.process_time() - started, 1), **told}

    module, card = load_or_train(label, lambda: copy.deepcopy(original), learn, recipe=recipe)
    return _twin(victim, module, label, {**victim.card, **card})


def _course(
    loss: Loss, task: Task, split: str, victim: Victim, given: Victim, module: nn.Module, inner: Inner,
    epochs: list[list[list[int]]], s: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Train the module in place; what the card says of it."""
    pupil, own = _twin(victim, module), {k: s[k] for k in settings_of(loss)}
    module.requires_grad_(True)
    steps = sum(map(len, epochs)) * s["replays"]
    optimiser = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], s["lr"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: min(1.0, 1.25 * (1 - t / (steps + 1))))
    memory: dict[Any, Any] = {}
    mean = {k: v.detach().clone() for k, v in module.state_dict().items()} if s["average"] else None
    watch = Watch(task, split, pupil, s) if s["watch"] else None
    count = iter(range(steps))

    def value(ids: list[int]) -> Tensor:
        step = next(count)
        if mean is not None and step:
            _average(mean, module, min(s["average"], step / (step + 9)))
        lesson = Lesson(task, split, ids, pupil, given, inner, s["seed"] + 7919 * step, step, steps, memory)
        found = loss(lesson, **own).mean()
        if not bool(torch.isfinite(found)):
            raise AdvgymError(
                f"the loss of {task.name} is {found.item():g} at step {step}: take a smaller lr= or others"
            )
        return found

    descend(module, value, _parts(epochs, s, watch), optimiser, schedule=schedule, clip=1.0,
            score=watch.look if watch else None)  # fmt: skip
    if mean is not None:
        _average(mean, module, s["average"])
        module.load_state_dict(mean)
    return {} if watch is None else watch.told


def _parts(epochs: list[list[list[int]]], s: dict[str, Any], watch: Watch | None) -> Iterator[list[list[int]]]:
    """The batches of each epoch, each replayed; in parts, and no more of them once the watch has seen enough."""
    for batches in epochs:
        again = [ids for ids in batches for _ in range(s["replays"])]
        size = -(-len(again) // PARTS) if watch else len(again)
        for start in range(0, len(again), max(size, 1)):
            if watch is not None and watch.over:
                return
            yield again[start : start + size]


class Watch:
    """Looks for catastrophic overfitting (Wong et al. 2020): robust accuracy on held-out samples falls at once.

    Robust accuracy is that under PGD of ten steps (the default agent of Edits elsewhere). After a fall of more than
    `drop` below the best, training stops; the best weights are kept in any case.
    """

    def __init__(self, task: Task, split: str, pupil: Victim, s: dict[str, Any]) -> None:
        self.ids = held_out(task.sizes[split], s)
        self.task, self.split, self.pupil, self.drop, self.seed = task, split, pupil, s["drop"], s["seed"]
        agent = AGENTS[task.samples(split, [0]).kind]
        self.inner = inner_of(agent, {"steps": PATIENCE, "step_size": 0.25}, max(PATIENCE, s["queries"]))
        self.best, self.over = -1.0, False
        self.told: dict[str, Any] = {}

    def look(self, part: int, batch: Any) -> float:
        """The share of held-out samples that stays right under attack."""
        lesson = Lesson(self.task, self.split, self.ids, self.pupil, self.pupil, self.inner, self.seed, part, 0, {})
        p = lesson.attacked()
        with torch.no_grad():
            right = self.task.goal.right(lesson.scores(p), lesson.labels)
        return self.told_of(float(right.float().mean()), part)

    def told_of(self, now: float, part: int) -> float:
        """Take note of a figure: whether it fell, and the best so far."""
        if now < self.best - self.drop:
            self.over = True
            log.warning("catastrophic overfitting: held-out robust accuracy fell from %.3f to %.3f in part %d of the "
                        "training, which stops; the best weights are kept", self.best, now, part + 1)  # fmt: skip
            self.told = {"overfitting": {"part": part + 1, "from": round(self.best, 4), "to": round(now, 4)}}
        self.best = max(self.best, now)
        self.told = {**self.told, "held_out_robust": round(self.best, 4)}
        return now


@torch.no_grad()
def _average(mean: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    for k, v in module.state_dict().items():
        if v.is_floating_point():
            mean[k].lerp_(v.detach(), 1 - decay)
        else:
            mean[k] = v.clone()


def _content(task: Task, split: str, epochs: list[list[list[int]]]) -> str:
    """The digest of the samples that training will see: clean inputs and labels."""
    ids = sorted({i for batches in epochs for part in batches for i in part})
    parts = []
    for start in range(0, len(ids), 1000):
        clean = task.samples(split, ids[start : start + 1000])
        parts.append(digest(clean.labels, clean.inputs(clean.look(clean.null()).form)))
    return digest(parts)


def _twin(victim: Victim, module: nn.Module, name: str | None = None, card: dict[str, Any] | None = None) -> Victim:
    return victim.like(module, name=name or victim.name, card=card or victim.card)


def held_out(size: int, s: dict[str, Any]) -> list[int]:
    """The samples that a watch looks at, at most a quarter of all; none are trained on."""
    return bits(s["seed"] + 104_729, torch.arange(size)).argsort()[: min(s["watch"], max(size // 4, 1))].tolist()


def _batches(size: int, s: dict[str, Any], seed: int) -> list[list[int]]:
    """One epoch: up to `samples` ids, in an order keyed by the seed."""
    held = set(held_out(size, s))
    order = [i for i in bits(seed, torch.arange(size)).argsort().tolist() if i not in held][: s["samples"]]
    return [order[i : i + s["batch"]] for i in range(0, len(order), s["batch"])]
