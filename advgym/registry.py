"""Names to things: tasks, victims, agents, defenses, boards, all found lazily.

Tasks and victims are rows of `advgym/envs/*/tasks.toml`; agents and defenses are files in the rooms of `advgym/agents`.
Other packages add theirs with the decorators below, from a module named in the entry-point group `advgym`; their own
`tasks.toml` is added by `add_rows`. "module:name" imports the module first, in any process. Where a victim or an agent
declares an argument, "name:value" gives it ("transformers:FOLDER", "textattack:RECIPE").
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial, wraps
from pathlib import Path
from typing import Any

from advgym.errors import AdvgymError, unknown
from advgym.lib.rooms import rooms, vocabulary
from advgym.lib.rows import Rows, read_rows
from advgym.lib.settings import Allowed, checked, settings_of

HOME = Path(__file__).parent
KINDS = ("field", "edits")
KNOWLEDGE = ("transfer", "decision", "score", "white-box")  # from least to most
OWN = "own"  # as results call an agent that is no registered one

_tasks: dict[str, dict[str, Any]] = {}
_victims: dict[str, dict[str, Any]] = {}
_agents: dict[str, Agent] = {}
_defenses: dict[str, Defense] = {}


@dataclass(frozen=True)
class Agent:
    """A registered attack: `attack(env, *, seed=0, **settings)`, and what it needs."""

    name: str
    attack: Callable[..., Any]
    kinds: tuple[str, ...]
    knowledge: str
    proposals: int | None = None
    origin: str = ""
    argument: str = ""  # the setting that "name:value" gives; "" for none
    needs: tuple[str, ...] = ()  # of `needs.toml`
    allowed: Mapping[str, Allowed] = field(default_factory=dict)  # values of settings
    inner: str = ""  # the setting that names another agent, which this one plays

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (getattr(self.attack, "func", self.attack).__doc__ or "").strip().split("\n")[0]


@dataclass(frozen=True)
class Defense:
    """A registered defense: `defend(victim, task, **settings) -> Victim`."""

    name: str
    defend: Callable[..., Any]
    domains: tuple[str, ...] = ()  # empty: every domain
    kinds: tuple[str, ...] = KINDS
    origin: str = ""
    allowed: Mapping[str, Allowed] = field(default_factory=dict)  # values of settings

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (self.defend.__doc__ or "").strip().split("\n")[0]

    @property
    def adaptive(self) -> str:
        """What an attacker who knows it has: "setting" (`adaptive=false` is who does not), or "own gradients"."""
        return "setting" if "adaptive" in settings_of(self.defend) else "own gradients"


def register_agent(
    name: str, *, kind: str | tuple[str, ...], knowledge: str, proposals: int | None = None, argument: str = "",
    needs: tuple[str, ...] = (), allowed: Mapping[str, Allowed] | None = None, inner: str = "",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # fmt: skip
    """Declare an attack.

    Args:
        kind: what it plays, one or both of `KINDS`.
        knowledge: what it must be told.
        proposals: per step; None for one.
        argument: the setting that is spelled after a colon, as in "textattack:pwws"; such an agent needs one.
        needs: words of `needs.toml` that a task must offer.
        allowed: values of settings: a `settings.Range`, or a tuple of words. Types are read off the signature.
        inner: the setting that names another agent, which this one plays.
    """
    kinds = (kind,) if isinstance(kind, str) else tuple(kind)
    for k in kinds:
        if k not in KINDS:
            raise unknown("kind", k, KINDS)
    if knowledge not in KNOWLEDGE:
        raise unknown("knowledge", knowledge, KNOWLEDGE)
    for need in needs:
        if need not in vocabulary():
            raise unknown(f"need of {name}", need, vocabulary())
    if name == OWN:
        raise AdvgymError(f"{OWN!r} is what results call agents without a name: register it under another")

    def register(attack: Callable[..., Any]) -> Callable[..., Any]:
        given = _declared(name, attack, allowed)
        origin = attack.__module__
        _agents[name] = Agent(name, attack, kinds, knowledge, proposals, origin, argument, needs, given, inner)
        return attack

    return register


def register_defense(
    name: str, *, domains: tuple[str, ...] = (), kinds: tuple[str, ...] = KINDS,
    allowed: Mapping[str, Allowed] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # fmt: skip
    """Declare a defense, the domains and kinds of task it can guard, and values of its settings (as of agents)."""

    def register(defend: Callable[..., Any]) -> Callable[..., Any]:
        given = _declared(name, defend, allowed)

        @wraps(defend)
        def guarded(victim: Any, task: Any, **settings: Any) -> Any:
            return defend(victim, task, **checked(name, defend, settings, given))

        _defenses[name] = Defense(name, guarded, tuple(domains), tuple(kinds), defend.__module__, given)
        return defend

    return register


def _declared(
    name: str, function: Callable[..., Any], allowed: Mapping[str, Allowed] | None
) -> Mapping[str, Allowed]:  # fmt: skip
    """The values allowed, of settings that exist."""
    known = settings_of(function)
    for key in allowed or {}:
        if key not in known:
            raise unknown(f"setting of {name}", key, known)
    return dict(allowed or {})


def register_task(name: str, **row: Any) -> None:
    """Add one task, as a row of a tasks.toml would; also as a Gymnasium id."""
    from advgym.ids import register_id

    if "make" not in row:
        raise AdvgymError(f"task {name!r} needs make='module:function'")
    _tasks[name] = row
    register_id(name, row.get("reward_threshold"))


def register_victim(name: str, **row: Any) -> None:
    """Add one victim, as a row of a tasks.toml would (`make='module:function'` and its arguments)."""
    if "make" not in row:
        raise AdvgymError(f"victim {name!r} needs make='module:function'")
    _victims[name] = row


def add_rows(path: str | Path, domain: str) -> None:
    """Add every task and victim of a tasks.toml; tasks become `<domain>/<name>`."""
    from advgym.ids import register_id

    rows = read_rows(Path(path))
    for name, row in rows.tasks.items():
        _tasks[f"{domain}/{name}"] = row
        register_id(f"{domain}/{name}", row.get("reward_threshold"))
    _victims.update(rows.victims)


@cache
def _built_in() -> Rows:
    rows = Rows()
    for path in sorted(HOME.glob("envs/*/tasks.toml")):
        table = read_rows(path)
        rows.tasks.update({f"{path.parent.name}/{name}": row for name, row in table.tasks.items()})
        rows.victims.update(table.victims)
        rows.rescorers.update(table.rescorers)
    return rows


def rescorers() -> dict[str, dict[str, Any]]:
    """Rows of what scores other people's result files again, by format."""
    return _built_in().rescorers


def built_in_tasks() -> list[str]:
    """Names of the tasks that ship, without importing anything of theirs."""
    return list(_built_in().tasks)


def register_built_in() -> None:
    """The Gymnasium ids of the tasks that ship."""
    from advgym.ids import register_id

    for name, row in _built_in().tasks.items():
        register_id(name, row.get("reward_threshold"))


@cache
def _plugins() -> None:
    """Import every module of the entry-point group once; a broken one warns and is left out."""
    from importlib.metadata import entry_points

    for point in entry_points(group="advgym"):
        try:
            point.load()
        except Exception as error:
            warnings.warn(f"advgym plugin {point.name!r} ({point.value}) does not load: {error}", stacklevel=2)


def _import_prefix(name: str) -> str:
    """Import the module of a "module:name" and return the name."""
    module, colon, rest = name.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise AdvgymError(f"cannot import {module!r} for {name!r}: {error}") from None
    return rest


def tasks() -> dict[str, dict[str, Any]]:
    """Every task's row by name."""
    _plugins()
    return {**_built_in().tasks, **_tasks}


def victims() -> dict[str, dict[str, Any]]:
    """Every victim's row by name."""
    _plugins()
    return {**_built_in().victims, **_victims}


def task_row(name: str) -> tuple[str, dict[str, Any]]:
    """(name, row) of a task; "module:name" and the Gymnasium spelling are understood."""
    name = _import_prefix(name)
    if name.startswith("advgym/"):
        name = name.removeprefix("advgym/").rsplit("-v", 1)[0].replace(".", "/", 1)
    table = tasks()
    if name not in table:
        raise unknown("task", name, table)
    return name, table[name]


def victim_row(name: str) -> tuple[str, dict[str, Any]]:
    """(name, row) of a victim; of "name:value" the row holds the value under its `argument`."""
    table = victims()
    head, value = _argument(name)
    if head in table and "argument" in table[head]:
        row = dict(table[head])
        key = row.pop("argument")
        return name, {**row, key: need_argument("victim", head, value)}
    name = _import_prefix(name)
    if name not in table:
        raise unknown("victim", name, table)
    return name, table[name]


def _argument(name: str) -> tuple[str, str]:
    head, _, value = name.partition(":")
    return head, value


def need_argument(what: str, name: str, value: str) -> str:
    """What was given after the colon, or an error that says how to give it."""
    if not value:
        raise AdvgymError(f"{what} {name!r} is named with its argument, as in '{name}:VALUE'")
    return value


def load(path: str) -> Any:
    """The object at "module:name"."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def names(what: str) -> set[str]:
    """Names of agents or of defenses that ship or were registered; nothing of theirs is imported."""
    return {*rooms(HOME, what), *(_defenses if what == "defense" else _agents)}


def _find(name: str, what: str, table: dict[str, Any]) -> Any:
    name = _import_prefix(name)
    if name not in table:
        files = rooms(HOME, what)
        if name in files:
            importlib.import_module(files[name])
        else:
            _plugins()
    if name not in table:
        raise unknown(what, name, names(what))
    return table[name]


def agent(name: str) -> Agent:
    """The agent of that name; only its own file is imported."""
    head, value = _argument(name)
    if head in names("agent"):
        entry: Agent = _find(head, "agent", _agents)
        if entry.argument:
            given = {entry.argument: need_argument("agent", head, value)}
            return replace(entry, name=name, attack=partial(entry.attack, **given))
    found: Agent = _find(name, "agent", _agents)
    return found


def entry_of(attack: Callable[..., Any]) -> Agent | None:
    """The registered agent that a function is, or None."""
    return next((entry for entry in _agents.values() if entry.attack is attack), None)


def defense(name: str) -> Defense:
    """The defense of that name; only its own file is imported."""
    found: Defense = _find(name, "defense", _defenses)
    return found


def agents() -> dict[str, Agent]:
    """Every agent; imports them all."""
    for path in rooms(HOME, "agent").values():
        importlib.import_module(path)
    _plugins()
    return dict(sorted(_agents.items()))


def defenses() -> dict[str, Defense]:
    """Every defense; imports them all."""
    for path in rooms(HOME, "defense").values():
        importlib.import_module(path)
    _plugins()
    return dict(sorted(_defenses.items()))
