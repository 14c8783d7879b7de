"""What a shell completes: names of tasks, agents, defenses, victims and boards. Nothing heavy is imported."""

from __future__ import annotations

import typer

from advgym import registry

LISTS = ("tasks", "agents", "defenses", "victims", "boards", "runtime")


def tasks(incomplete: str) -> list[str]:
    """Names of tasks that start so."""
    return _starting(registry.tasks(), incomplete)


def agents(incomplete: str) -> list[str]:
    """Names of agents that start so."""
    return _starting(registry.names("agent"), incomplete)


def defenses(incomplete: str) -> list[str]:
    """Names of defenses that start so."""
    return _starting(registry.names("defense"), incomplete)


def victims(incomplete: str) -> list[str]:
    """Names of victims that start so."""
    return _starting(registry.victims(), incomplete)


def boards(incomplete: str) -> list[str]:
    """Names of boards that ship and start so."""
    return _starting((path.stem for path in registry.HOME.glob("leaderboards/boards/*.toml")), incomplete)


def trainable(incomplete: str) -> list[str]:
    """Names of victims and defenses that start so."""
    return [*victims(incomplete), *defenses(incomplete)]


def domains(incomplete: str) -> list[str]:
    """Domains that start so."""
    return _starting({name.split("/")[0] for name in registry.tasks()}, incomplete)


def lists(incomplete: str) -> list[str]:
    """What `advgym list` lists."""
    return [name for name in LISTS if name.startswith(incomplete)]


def listed(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of what the word before says, as in `advgym list agents p`."""
    said = str(ctx.params.get("what", ""))
    known = {"tasks": tasks, "agents": agents, "defenses": defenses, "victims": victims, "boards": boards}
    return known[said](incomplete) if said in known else []


def _starting(names: object, incomplete: str) -> list[str]:
    return sorted(str(name) for name in names if str(name).startswith(incomplete))  # type: ignore[attr-defined]
