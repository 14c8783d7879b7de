"""`advgym train`: a victim's weights, a defense built for a task, or an agent that learns."""

from __future__ import annotations

import importlib
import inspect
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from advgym import registry
from advgym.cli.printing import escape, out
from advgym.cli.pulse import keeps
from advgym.cli.shared.tables import emit, print_table
from advgym.cli.values import keywords, pair, task_keys
from advgym.errors import AdvgymError, unknown


def run_train(name: str, task: str | None, pairs: list[str], *, force: bool, as_json: bool = False) -> int:
    """Load or train, and print the card."""
    settings, began = dict(pair(text) for text in pairs), time.time()
    keeps(lambda: _finished(began))
    victims = registry.victims()
    if name in victims:
        return _victim(name, settings, force=force, as_json=as_json)
    guards = registry.names("defense")
    if name not in guards and ":" not in name:
        guards = set(registry.defenses())
    if name in guards or ":" in name:
        return _defense(name, task, settings, force=force, as_json=as_json)
    learners = [agent for agent in registry.agents() if _learner(agent) is not None]
    if name in learners:
        return _agent(name, task, settings, force=force, as_json=as_json)
    raise unknown(
        "victim, defense or agent that learns", name, {*victims, *guards, *learners},
        "`advgym list victims` shows what each is.",
    )  # fmt: skip


def _victim(name: str, settings: dict[str, Any], *, force: bool, as_json: bool = False) -> int:
    from advgym.core.task import load_victim
    from advgym.lib import weights

    row = registry.victim_row(name)[1]
    known = keywords(registry.load(row["make"]))
    for key in settings:
        if known is not None and key not in known and key not in row:
            raise unknown(f"setting of {name}", key, {*known, *row} - {"make", "title", "name"})
    if force or settings:
        weights.retrain(name)
    victim = load_victim(name, **settings)
    _print(name, victim.card, _kept(name, victim.card), as_json)
    return 0


def _defense(name: str, task: str | None, settings: dict[str, Any], *, force: bool, as_json: bool = False) -> int:
    from advgym.core.task import defend, make_task

    if task is None:
        raise AdvgymError(
            f"a defense is built for a task: advgym train {name} --task TASK (`advgym list tasks` names them)"
        )
    known = keywords(registry.defense(name).defend)
    for key in settings:
        if known is not None and key not in known:
            raise unknown(f"setting of {name}", key, known)
    row = registry.task_row(task)[1]
    made = make_task(task, knowledge="decision")
    if force:
        from advgym.lib import weights

        weights.retrain(name)
        for trained in (f"{name}-{row.get('victim')}", f"{row.get('victim')}-{name}"):
            weights.retrain(trained)
    guarded = defend(made, [(name, settings)])
    card = {"task": made.name, "access": guarded.victim.access, **guarded.victim.card}
    _print(f"{name} on {made.victim.name}", card, _kept(guarded.victim.name, guarded.victim.card), as_json)
    return 0


def _learner(name: str) -> Any:
    """The `train(task, ...) -> (module, card)` beside an agent's `attack`, or None."""
    return getattr(importlib.import_module(registry.agents()[name].origin), "train", None)


def _agent(name: str, task: str | None, settings: dict[str, Any], *, force: bool, as_json: bool = False) -> int:
    from advgym.lib import weights

    train = _learner(name)
    taken = inspect.signature(train).parameters
    task = registry.task_row(task or str(settings.pop("task", taken["task"].default)))[0]
    known = [key for key, p in taken.items() if p.kind is p.KEYWORD_ONLY]
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):  # options of the task
        known += [key for key in task_keys(task) if key not in known]
    for key in settings:
        if key not in known:
            raise unknown(f"setting of {name}", key, known)
    given = {"task": task, **settings}
    if force:
        weights.retrain(f"{name}-{task}".replace("/", "-"))
    _, card = train(**given)
    _print(name, card, _kept(str(card.get("name", name)), card), as_json)
    return 0


def _finished(began: float) -> str:
    """What of an interrupted training is on disk: weights are written when it is over, of each model by itself."""
    from advgym.lib.weights import cache_dir

    found = [p for p in (cache_dir() / "victims").glob("*.safetensors") if p.stat().st_mtime >= began]
    if not found:
        return "nothing was kept: weights are written when training is over"
    return f"kept what was trained to its end: {', '.join(map(str, sorted(found)))}"


def _kept(name: str, card: dict[str, Any]) -> list[tuple[str, str]]:
    """Where the weights lie."""
    from advgym.lib.weights import cache_dir, fingerprint

    found = []
    if "recipe" in card:
        for named in dict.fromkeys([str(card.get("name", name)), name]):
            path = cache_dir() / "victims" / f"{named}-{fingerprint(card['recipe'])}.safetensors"
            if path.is_file():
                found.append(("kept in", str(path)))
    shipped: list[Path] = sorted(registry.HOME.glob(f"*/**/weights/{name}.safetensors"))
    found += [("ships as", str(path)) for path in shipped]
    return found


def _print(title: str, card: dict[str, Any], kept: list[tuple[str, str]], as_json: bool) -> None:
    if as_json:
        emit({"name": title, "card": card, "kept": [{"what": what, "where": where} for what, where in kept]})
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for key, entry in card.items():
        if key != "recipe":
            table.add_row(key.replace("_", " "), escape(_figure(entry)))
    recipe = card.get("recipe")
    if isinstance(recipe, dict):
        table.add_row("recipe", escape(", ".join(f"{k}={_figure(v)}" for k, v in recipe.items())))
    for what, where in kept:
        table.add_row(what, escape(where))
    out().print(f"[bold]{escape(title)}[/]")
    print_table(table)


def _figure(entry: Any) -> str:
    return f"{entry:.4g}" if isinstance(entry, float) else str(entry)
