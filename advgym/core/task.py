"""A task: domain x dataset x victim x threat model, built from a row of a tasks.toml and the caller's options."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from advgym import registry
from advgym.core.batch import Batch
from advgym.core.columns import Columns
from advgym.core.goals import Goal
from advgym.core.own.samples import read_samples
from advgym.core.own.victims import read_victim
from advgym.core.victim import Victim, behind
from advgym.errors import AdvgymError, unknown
from advgym.lib import content
from advgym.lib.drawn import read_drawn
from advgym.lib.given import whole_number, widening
from advgym.lib.settings import check_named

_ACCESS = {"labels": "decision", "scores": "score", "gradients": "white-box"}


@dataclass(frozen=True)
class ThreatModel:
    """What the attacker may know, want and spend."""

    knowledge: str = "white-box"
    goal: str = "untargeted"
    queries: int = 500
    gradients: int = 500
    least: bool = False  # the least distortion is wanted, so a success does not end the episode
    probes: bool = True
    widen: float | None = None  # on a board: beyond this many times the constraint nothing is evaluated
    constraint: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """What a domain's factory is given: the row, the resolved options, and the caller's own objects."""

    name: str
    row: Mapping[str, Any]
    threat: ThreatModel
    victim: Victim | None  # the caller's own, else the factory loads row["victim"]
    samples: Any = None  # the caller's own, else the factory loads row["dataset"]
    dataset: str | None = None  # a name or a path in place of row["dataset"]
    train: Any = None  # samples or a dataset for the training split of the caller's own data

    def load_victim(self) -> Victim:
        """The caller's victim, or the one the row names (trained and cached if it is missing), on this task's data."""
        if self.victim is not None:
            return self.victim
        if "victim" not in self.row:
            raise AdvgymError(f"task {self.name!r} has no victim of its own: pass victim=")
        return follow(self.row["victim"], self.row, self.dataset)

    def load_dataset(self) -> str:
        """The dataset's name or path."""
        found = self.dataset or self.row.get("dataset")
        if found is None:
            raise AdvgymError(f"task {self.name!r} has no data of its own: pass samples= or dataset=")
        return str(found)


@dataclass
class Task:
    """What the core needs to know of a task; a domain's factory makes it."""

    name: str
    victim: Victim
    goal: Goal
    threat: ThreatModel
    sizes: Mapping[str, int]  # samples in each split
    deal: Callable[[str, list[int], Any], Batch]  # (split, ids, device) -> Batch
    surrogate: Victim | None = None  # answers everything under transfer knowledge
    context: Mapping[str, Any] = field(default_factory=dict)
    save: Callable[..., Any] | None = None  # (folder, batch, row, form) -> the files written: the pair, as its domain
    # The batch that the verdict is on, where it is another one: the same perturbations, on members that no attack has
    # seen. (split, ids, device) -> Batch.
    unseen: Callable[[str, list[int], Any], Batch] | None = None
    randomise: Callable[..., Any] | None = None  # (inputs, rate, keys) -> inputs: a random variation, for smoothing
    show: Callable[..., str] | None = None  # (batch, row, form, before, after) -> an HTML fragment
    draw: Callable[..., Any] | None = None  # (batch, row, form) -> uint8 (H, W, 3) of one size: `advgym.lib.canvas`
    line: Callable[..., str] | None = None  # (batch, row, form, before=None, after=None) -> a line of plain text
    columns: Columns | None = None  # what is measured of final perturbations besides success
    tells: Callable[[str, list[int]], Mapping[str, list[Any]]] | None = None  # (split, ids) -> what samples are
    defenses: tuple[str, ...] = ()
    offers: frozenset[str] = frozenset()  # words of `needs.toml`, beside what its samples show
    plain: Callable[[], Task] | None = None  # the same at its row's own threat model, whatever an attacker asked for
    adapt: Callable[[Victim], Victim] | None = None  # makes a caller's surrogate one of this task's inputs
    notes: tuple[str, ...] = ()  # what reading the data changed of it, in words
    lacks: Mapping[str, str] = field(default_factory=dict)  # splits that there are none of, and what would give them

    @property
    def domain(self) -> str:
        """The part before the slash."""
        return self.name.split("/")[0]

    def check_split(self, split: str) -> str:
        """The split, or an error that lists them, or says what would give it."""
        if split not in self.sizes:
            if split in self.lacks:
                raise AdvgymError(f"{self.name} has no split {split!r} here: {self.lacks[split]}")
            raise unknown("split", split, self.sizes)
        return split

    def samples(self, split: str, ids: list[int], device: Any = "cpu") -> Batch:
        """The batch of these samples, ids checked."""
        self.check_ids(split, ids)
        return self.deal(split, ids, device)

    def judged(self, split: str, ids: list[int], device: Any = "cpu") -> Batch:
        """The batch that the verdict on these samples is about."""
        if self.unseen is None:
            return self.samples(split, ids, device)
        self.check_ids(split, ids)
        return self.unseen(split, ids, device)

    def check_ids(self, split: str, ids: list[int]) -> None:
        """Refuse ids that the split does not have."""
        size = self.sizes[self.check_split(split)]
        for i in ids:
            if not 0 <= i < size:
                raise AdvgymError(f"no sample {i} in split {split!r} of {self.name}: ids are 0 to {size - 1}")


GIVE = "these samples are the attacked ones, and nobody gave others to train on: pass train="
ATTACKED = "these samples are the attacked ones, and the task takes no others to train on"


def untrained(task: Task, why: str = GIVE) -> Task:
    """The task without a split "train": what is attacked is nothing to train on."""
    sizes = {split: size for split, size in task.sizes.items() if split != "train"}
    return replace(task, sizes=sizes, lacks={**task.lacks, "train": why})


_loaded: dict[tuple[Any, ...], Victim] = {}


def load_victim(name: str, **extra: Any) -> Victim:
    """The victim of a row of [victims]: its `make` is called with the row's other entries. Kept for the process.

    Args:
        name: of the row.
        extra: in place of the row's entries. With another `dataset` the victim is called after that one.
    """
    key = (name, repr(extra), content.stamp(extra.get("dataset")))
    if key not in _loaded:
        _loaded[key] = _load_victim(name, extra)
    return _loaded[key]


def _load_victim(name: str, extra: dict[str, Any]) -> Victim:
    name, row = registry.victim_row(name)
    arguments = {k: v for k, v in row.items() if k not in ("make", "title")}
    called = _called(name, row, extra.get("dataset"))
    victim: Victim = registry.load(row["make"])(name=called, **{**arguments, **extra})
    return victim


def follow(name: str, row: Mapping[str, Any], dataset: str | None) -> Victim:
    """A registered victim, trained on `dataset` where that takes the place of the task's data it was trained on.

    Samples that a seed draws (`NAME#SEED:COUNT`) are new to a victim of the same generator: only one that is of a
    single graph (`transductive`) is trained on theirs.
    """
    trained = _trained_on(registry.victim_row(name)[1])
    if dataset is None or trained is None or trained != row.get("dataset") or dataset == trained:
        return load_victim(name)
    if read_drawn(dataset) is not None and not row.get("transductive"):
        return load_victim(name)
    return load_victim(name, dataset=dataset)


def of_domain(victim: str, task: str) -> str:
    """A victim's name as a task means it: "transformers:SOURCE" is "speech-transformers:SOURCE" where there is one."""
    head, _, value = victim.partition(":")
    own = f"{task.split('/')[0]}-{head}"
    return f"{own}:{value}" if value and own in registry.victims() else victim


def _trained_on(row: Mapping[str, Any]) -> str | None:
    """The data of a victim's row, or of the victim that it is made of."""
    if "dataset" in row or not isinstance(row.get("victim"), str):
        return row.get("dataset")
    return _trained_on(registry.victim_row(row["victim"])[1])


def _called(name: str, row: Mapping[str, Any], dataset: Any) -> str:
    """A victim's name on other data: "cora-gcn" of a folder CiteSeer is "citeseer-gcn"; drawn data change no name."""
    trained = _trained_on(row)
    if not isinstance(dataset, str) or dataset == trained or trained is None or "#" in dataset:
        return name
    parts = [p for p in Path(dataset).expanduser().parts if re.search(r"\w", p) and p != "raw"]
    stem = re.sub(r"[^a-z0-9.]+", "-", (parts or [dataset])[-1].lower()).strip("-.") or "own"
    return stem + name.removeprefix(trained) if name.startswith(f"{trained}-") else f"{name}-{stem}"


def most_knowledge(row: Mapping[str, Any], victim: Victim | None) -> str:
    """The most an attacker may know: what the task gives and the victim can."""
    given = str(row.get("knowledge", "white-box"))
    able = _ACCESS[victim.access] if victim is not None else "white-box"
    return min(given, able, key=registry.KNOWLEDGE.index)


def make_task(
    name: str | Task, *, victim: Any = None, samples: Any = None, surrogate: Any = None, dataset: str | None = None,
    train: Any = None, defenses: Any = (), **options: Any,
) -> Task:  # fmt: skip
    """Build a task by name, with the caller's own victim, samples, threat model or defenses.

    Args:
        victim: a registered name, a `Victim`, or any model that `advgym.core.own.victims.read_victim` reads.
        samples: the caller's own, in any form that `advgym.core.own.samples.read_samples` or the domain reads.
        surrogate: the victim that answers under `knowledge="transfer"`.
        dataset: another dataset's name, or a local path. Named victims and surrogates that were trained on the row's
            data are trained on this.
        train: samples, a dataset's name or a path for the split "train" of the caller's own data: what is public of
            training data, policies and adversarial training use it. Without it nothing is assumed, and `samples` have
            no such split.
        defenses: names, (name, settings) pairs or callables, applied in order.
        options: knowledge, goal, queries, gradients, least, probes, widen, and the constraint's own (eps, edits ...).

    Raises:
        AdvgymError: for a name or option that does not exist, or knowledge that the task does not give.
    """
    # Read more than once: by the task, and by what trains on it.
    samples, train = read_samples(samples), read_samples(train, "train")
    if isinstance(name, Task):
        if any(v is not None for v in (victim, samples, surrogate, dataset, train)) or options:
            raise AdvgymError("a task object is complete: options go to make_task, or make the task by name")
        return defend(name, defenses)
    name, row = registry.task_row(name)
    check_named(victim=victim, surrogate=surrogate, dataset=dataset, train=train)
    constraint = dict(row.get("constraint", {}))
    fields = {"knowledge", "goal", "queries", "gradients", "least", "probes", "widen"}
    for key in options:
        if key not in fields and key not in constraint:
            raise unknown(f"option of {name}", key, fields | set(constraint))
    if train is not None and not row.get("train"):
        raise AdvgymError(f"task {name!r} takes no train=: its training data is its own, or none")
    if train is not None and row["train"] == "samples" and samples is None:
        raise AdvgymError(f"task {name!r} takes no train= without samples=: a dataset has a training split of its own")
    if isinstance(victim, str):
        victim = follow(of_domain(victim, name), row, dataset)
    elif victim is not None:
        victim = read_victim(victim, name)
    goals = row.get("goals", ["untargeted", "targeted"])
    goal = options.get("goal", row.get("goal", "untargeted"))
    if goal not in goals:
        raise unknown(f"goal of {name}", goal, goals)
    constraint.update({k: v for k, v in options.items() if k in constraint})
    queries = whole_number("queries", options.get("queries", row.get("queries", 500)))
    threat = ThreatModel(
        knowledge=str(options.get("knowledge", most_knowledge(row, victim))),
        goal=goal,
        queries=queries,
        gradients=whole_number("gradients", options.get("gradients", row.get("gradients", queries))),
        least=bool(options.get("least", row.get("least", False))),
        probes=bool(options.get("probes", row.get("probes", True))),
        widen=widening(options.get("widen")),
        constraint=constraint,
    )
    check_knowledge(name, threat.knowledge, row, victim)
    spec = Spec(name, row, threat, victim, samples, dataset, train)
    task: Task = registry.load(row["make"])(spec)
    if "knowledge" not in options and task.victim is not None:  # not asked for: what the victim can
        most = most_knowledge(row, task.victim)
        threat = replace(threat, knowledge=min(threat.knowledge, most, key=registry.KNOWLEDGE.index))
        task = replace(task, threat=replace(task.threat, knowledge=threat.knowledge))
    check_knowledge(name, threat.knowledge, row, task.victim)
    if threat.knowledge == "transfer" and (surrogate is not None or task.surrogate is None):
        source = surrogate if surrogate is not None else row.get("surrogate")
        if source is None:
            raise AdvgymError(f"knowledge='transfer' needs surrogate=: task {name!r} names none")
        if isinstance(source, str):
            found = follow(of_domain(source, name), row, dataset)
        else:
            found = read_victim(source, name, "surrogate")
        task = replace(task, surrogate=found if task.adapt is None else task.adapt(found))
    reads = {key: options[key] for key in row.get("reads", ()) if key in options}
    same = victim if samples is not None else task.victim  # own samples are read for the victim that was named
    plain = partial(make_task, name, victim=same, samples=samples, dataset=dataset, train=train, **reads)
    return defend(replace(task, plain=plain), defenses)


def check_knowledge(name: str, wanted: str, row: Mapping[str, Any], victim: Victim | None) -> None:
    """Refuse knowledge that does not exist, or that is beyond what the task gives and the victim can."""
    if wanted not in registry.KNOWLEDGE:
        raise unknown("knowledge", wanted, registry.KNOWLEDGE)
    most = most_knowledge(row, victim)
    if registry.KNOWLEDGE.index(wanted) > registry.KNOWLEDGE.index(most):
        allowed = registry.KNOWLEDGE[: registry.KNOWLEDGE.index(most) + 1]
        why = victim.card.get("no_gradients", "") if victim is not None else ""
        raise AdvgymError(
            f"task {name!r} gives at most {most!r} knowledge, not {wanted!r}. Allowed: {', '.join(allowed)}."
            + (f" Victim {victim.name!r} gives no gradients: {why}." if victim is not None and why else "")
        )


def defend(task: Task, defenses: Any) -> Task:
    """The same task with its victim behind defenses, applied in order; the surrogate stays undefended."""
    if isinstance(defenses, str) or callable(defenses):
        defenses = [defenses]
    for item in defenses:
        found, settings = item if isinstance(item, tuple) else (item, {})
        if isinstance(found, str):
            entry = registry.defense(found)
            if entry.domains and task.domain not in entry.domains:
                raise AdvgymError(
                    f"defense {found!r} guards {', '.join(entry.domains)} tasks; {task.name} is not one of them"
                )
            found, label = entry.defend, entry.name
        else:
            label = getattr(found, "__name__", "own")
        victim = behind(found, label, task.victim, task, settings)
        task = replace(task, victim=victim, defenses=(*task.defenses, label))
    if task.threat.knowledge not in ("transfer",) and task.defenses:
        check_knowledge(task.name, task.threat.knowledge, {}, task.victim)
    return task
