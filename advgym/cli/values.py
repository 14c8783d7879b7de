"""Reading what was typed: `k=v` settings, `name:k=v,k=v` defenses, agents and defenses by name or by path."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from advgym import registry
from advgym.errors import AdvgymError, DataError, unknown

THREAT = ("knowledge", "goal", "queries", "gradients", "least", "probes")
OBJECTS = ("victim", "surrogate", "dataset", "train")


def value(text: str) -> Any:
    """A JSON number, boolean or list; anything else is a string.

    >>> value("3"), value("true"), value("[1, 2]"), value("2/16"), value("NaN")
    (3, True, [1, 2], '2/16', 'NaN')
    """
    try:
        found = json.loads(text, parse_constant=lambda name: name)
    except ValueError:  # no JSON, or a number of more digits than Python reads
        return text
    return text if found is None or isinstance(found, str | dict) else found


def pair(text: str) -> tuple[str, Any]:
    """("k", value) of "k=v"."""
    key, equals, rest = text.partition("=")
    if not equals or not key.strip():
        raise AdvgymError(f"a setting is written k=v, not {text!r}")
    return key.strip(), value(rest.strip())


def split_settings(
    pairs: list[str], agent: str, agent_keys: list[str], task: str, task_keys: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings of the agent, options of the task); a bare key goes to the agent where it has one of that name."""
    own: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for text in pairs:
        key, found = pair(text)
        whose, dot, rest = key.partition(".")
        if dot and whose in ("agent", "task"):
            keys = agent_keys if whose == "agent" else task_keys
            if rest not in keys:
                raise unknown(f"setting of {agent if whose == 'agent' else task}", rest, keys)
            (own if whose == "agent" else options)[rest] = found
        elif key in agent_keys:
            own[key] = found
        elif key in task_keys:
            options[key] = found
        else:
            raise AdvgymError(_neither(key, agent, agent_keys, task, task_keys))
    return own, options


def _neither(key: str, agent: str, agent_keys: list[str], task: str, task_keys: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key, [*agent_keys, *task_keys], n=1)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    return (
        f"unknown setting {key!r}{guess}\n  of the agent {agent}: {', '.join(sorted(agent_keys)) or 'none'}\n"
        f"  of the task {task}: {', '.join(sorted(task_keys))}"
    )


def task_keys(name: str) -> list[str]:
    """What `--set` may say of a task."""
    return [*THREAT, *registry.task_row(name)[1].get("constraint", {}), *OBJECTS]


def keywords(function: Callable[..., Any]) -> list[str] | None:
    """Names of the keyword-only arguments; None where it takes any."""
    found = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in found):
        return None
    return [p.name for p in found if p.kind is p.KEYWORD_ONLY]


def read_defense(text: str) -> tuple[Any, dict[str, Any]]:
    """(name or callable, settings) of `NAME[:k=v,k=v]`, or of the path of a folder or .py file in place of a name."""
    name, colon, rest = text.rpartition(":")
    if not colon or "=" not in rest:
        name, rest = text, ""
    settings = dict(pair(part) for part in _commas(rest))
    function = load_defense(name) if _is_path(name) else registry.defense(name).defend
    known = keywords(function)
    for key in settings:
        if known is not None and key not in known:
            raise unknown(f"setting of {name}", key, known)
    return (function if _is_path(name) else name), settings


def _commas(text: str) -> list[str]:
    """Parts between commas that no bracket holds.

    >>> _commas("a=1,b=[2,3]")
    ['a=1', 'b=[2,3]']
    """
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]


def _is_path(text: str) -> bool:
    if not text.strip():
        return False
    return text.endswith(".py") or "/" in text or "\\" in text or text.startswith(".") or Path(text).is_dir()


def read_agent(text: str) -> registry.Agent:
    """The agent of a name, of a .py file, or of a folder that holds agent.py (and card.toml)."""
    if not _is_path(text):
        return registry.agent(text)
    module, card, path = _own(text, "agent")
    attack = getattr(module, "attack", None)
    if not callable(attack):
        raise AdvgymError(
            f"{path} has no function `attack(env, *, seed)`; `advgym new agent PATH` writes one that works"
        )
    known = registry.entry_of(attack)
    if known is not None:  # it registers itself
        return known
    name = str(card.get("name", path.stem if path.stem != "agent" else path.parent.name))
    if name in registry.names("agent"):
        raise AdvgymError(
            f"{text} is called {name!r}, and so is an agent of the registry: give it another `name` in card.toml"
        )
    kinds, proposals = card.get("kind", list(registry.KINDS)), card.get("proposals")
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if proposals is not None and (not isinstance(proposals, int) or proposals < 1):
        raise AdvgymError(f"{path.parent / 'card.toml'}: proposals is a whole number of at least 1, not {proposals!r}")
    registry.register_agent(name, kind=kinds, knowledge=str(card.get("knowledge", "white-box")), proposals=proposals)(
        attack
    )
    return registry.agent(name)


def load_defense(text: str) -> Callable[..., Any]:
    """The function `defend` of a .py file or of a folder that holds defense.py."""
    module, card, path = _own(text, "defense")
    defend: Any = getattr(module, "defend", None)
    if not callable(defend):
        raise AdvgymError(
            f"{path} has no function `defend(victim, task)`; `advgym new defense PATH` writes one that works"
        )
    if "name" in card:
        defend.__name__ = str(card["name"])  # as results show it
    found: Callable[..., Any] = defend
    return found


def _own(text: str, what: str) -> tuple[ModuleType, dict[str, Any], Path]:
    """The module of a file or folder, and what the card beside it says."""
    path = Path(text)
    path = path / f"{what}.py" if path.is_dir() else path
    if not path.is_file():
        where = f"the folder {text} holds no {what}.py" if Path(text).is_dir() else f"there is no file {text}"
        raise AdvgymError(
            f"{where}; `advgym new {what} PATH` writes a folder that works, `advgym list {what}s` names what there is"
        )
    return _import(path), _card(path.parent / "card.toml", what), path


def _import(path: Path) -> ModuleType:
    name = f"advgym_own_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AdvgymError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, AdvgymError) or not isinstance(error, Exception):
            raise
        raise AdvgymError(f"cannot import {path}: {type(error).__name__}: {error}") from None
    return module


def _card(path: Path, what: str) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a card in TOML: {error}") from None
    return dict(found.get(what, found))
