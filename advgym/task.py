"""A task: domain x dataset x victim x threat model, built from a row of a tasks.toml and the caller's options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from advgym import registry
from advgym.batch import Batch
from advgym.columns import Columns
from advgym.errors import AdvgymError, unknown
from advgym.goals import Goal
from advgym.victim import Victim, as_victim

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

    def load_victim(self) -> Victim:
        """The caller's victim, or the one the row names (trained and cached if it is missing)."""
        if self.victim is not None:
            return self.victim
        if "victim" not in self.row:
            raise AdvgymError(f"task {self.name!r} has no victim of its own: pass victim=")
        return load_victim(self.row["victim"])

    def load_dataset(self) -> str:
        """The dataset's name or path."""
        found = self.dataset or self.row.get("dataset")
        if found is None:
            raise AdvgymError(f"task {self.name!r} has no data of its own: pass samples=")
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
    randomise: Callable[..., Any] | None = None  # (inputs, rate, keys) -> inputs: a random variation, for smoothing
    show: Callable[..., str] | None = None  # (batch, row, form, before, after) -> an HTML fragment
    line: Callable[..., str] | None = None  # (batch, row, form, before=None, after=None) -> a line of plain text
    columns: Columns | None = None  # what is measured of final perturbations besides success
    defenses: tuple[str, ...] = ()
    offers: frozenset[str] = frozenset()  # words of `needs.toml`, beside what its samples show
    plain: Callable[[], Task] | None = None  # the same at its row's own threat model, whatever an attacker asked for

    @property
    def domain(self) -> str:
        """The part before the slash."""
        return self.name.split("/")[0]

    def check_split(self, split: str) -> str:
        """The split, or an error that lists them."""
        if split not in self.sizes:
            raise unknown("split", split, self.sizes)
        return split

    def samples(self, split: str, ids: list[int], device: Any = "cpu") -> Batch:
        """The batch of these samples, ids checked."""
        self.check_ids(split, ids)
        return self.deal(split, ids, device)

    def check_ids(self, split: str, ids: list[int]) -> None:
        """Refuse ids that the split does not have."""
        size = self.sizes[self.check_split(split)]
        for i in ids:
            if not 0 <= i < size:
                raise AdvgymError(f"no sample {i} in split {split!r} of {self.name}: ids are 0 to {size - 1}")


_loaded: dict[tuple[str, str], Victim] = {}


def load_victim(name: str, **extra: Any) -> Victim:
    """The victim of a row of [victims]: its `make` is called with the row's other entries. Kept for the process."""
    key = (name, repr(extra))
    if key not in _loaded:
        _loaded[key] = _load_victim(name, extra)
    return _loaded[key]


def _load_victim(name: str, extra: dict[str, Any]) -> Victim:
    name, row = registry.victim_row(name)
    arguments = {k: v for k, v in row.items() if k not in ("make", "title")}
    victim: Victim = registry.load(row["make"])(name=name, **{**arguments, **extra})
    return victim


def _number(name: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or number != float(value):
        raise AdvgymError(f"{name} is a whole number of at least 1, not {value!r}")
    return number


def most_knowledge(row: Mapping[str, Any], victim: Victim | None) -> str:
    """The most an attacker may know: what the task gives and the victim can."""
    given = str(row.get("knowledge", "white-box"))
    able = _ACCESS[victim.access] if victim is not None else "white-box"
    return min(given, able, key=registry.KNOWLEDGE.index)


def make_task(
    name: str | Task, *, victim: Any = None, samples: Any = None, surrogate: Any = None, dataset: str | None = None,
    defenses: Any = (), **options: Any,
) -> Task:  # fmt: skip
    """Build a task by name, with the caller's own victim, samples, threat model or defenses.

    Args:
        victim: a registered name, a `Victim`, a module, or any callable of the task's inputs.
        samples: the caller's own samples, as the domain's documentation says.
        surrogate: the victim that answers under `knowledge="transfer"`.
        dataset: another dataset's name, or a local path.
        defenses: names, (name, settings) pairs or callables, applied in order.
        options: knowledge, goal, queries, gradients, least, probes, and the constraint's own (eps, edits ...).

    Raises:
        AdvgymError: for a name or option that does not exist, or knowledge that the task does not give.
    """
    if isinstance(name, Task):
        if any(v is not None for v in (victim, samples, surrogate, dataset)) or options:
            raise AdvgymError("a task object is complete: options go to make_task, or make the task by name")
        return defend(name, defenses)
    name, row = registry.task_row(name)
    constraint = dict(row.get("constraint", {}))
    fields = {"knowledge", "goal", "queries", "gradients", "least", "probes"}
    for key in options:
        if key not in fields and key not in constraint:
            raise unknown(f"option of {name}", key, fields | set(constraint))
    if isinstance(victim, str):
        victim = load_victim(victim)
    elif victim is not None:
        victim = as_victim(victim)
    goals = row.get("goals", ["untargeted", "targeted"])
    goal = options.get("goal", row.get("goal", "untargeted"))
    if goal not in goals:
        raise unknown(f"goal of {name}", goal, goals)
    constraint.update({k: v for k, v in options.items() if k in constraint})
    queries = _number("queries", options.get("queries", row.get("queries", 500)))
    threat = ThreatModel(
        knowledge=str(options.get("knowledge", most_knowledge(row, victim))),
        goal=goal,
        queries=queries,
        gradients=_number("gradients", options.get("gradients", row.get("gradients", queries))),
        least=bool(options.get("least", row.get("least", False))),
        probes=bool(options.get("probes", row.get("probes", True))),
        constraint=constraint,
    )
    check_knowledge(name, threat.knowledge, row, victim)
    spec = Spec(name, row, threat, victim, samples, dataset)
    task: Task = registry.load(row["make"])(spec)
    if "knowledge" not in options and task.victim is not None:  # not asked for: what the victim can
        most = most_knowledge(row, task.victim)
        threat = replace(threat, knowledge=min(threat.knowledge, most, key=registry.KNOWLEDGE.index))
        task = replace(task, threat=replace(task.threat, knowledge=threat.knowledge))
    check_knowledge(name, threat.knowledge, row, task.victim)
    if threat.knowledge == "transfer":
        source = surrogate if surrogate is not None else row.get("surrogate")
        if source is None:
            raise AdvgymError(f"knowledge='transfer' needs surrogate=: task {name!r} names none")
        found = load_victim(source) if isinstance(source, str) else as_victim(source)
        task = replace(task, surrogate=found)
    plain = partial(make_task, name, victim=task.victim, samples=samples, dataset=dataset)
    return defend(replace(task, plain=plain), defenses)


def check_knowledge(name: str, wanted: str, row: Mapping[str, Any], victim: Victim | None) -> None:
    """Refuse knowledge that does not exist, or that is beyond what the task gives and the victim can."""
    if wanted not in registry.KNOWLEDGE:
        raise unknown("knowledge", wanted, registry.KNOWLEDGE)
    most = most_knowledge(row, victim)
    if registry.KNOWLEDGE.index(wanted) > registry.KNOWLEDGE.index(most):
        allowed = registry.KNOWLEDGE[: registry.KNOWLEDGE.index(most) + 1]
        raise AdvgymError(
            f"task {name!r} gives at most {most!r} knowledge, not {wanted!r}. Allowed: {', '.join(allowed)}."
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
        victim = found(task.victim, task, **settings)
        task = replace(task, victim=victim, defenses=(*task.defenses, label))
    if task.threat.knowledge not in ("transfer",) and task.defenses:
        check_knowledge(task.name, task.threat.knowledge, {}, task.victim)
    return task
