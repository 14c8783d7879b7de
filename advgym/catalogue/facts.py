"""What is known of a task without making it: its kind, what it offers, its spaces; `facts.toml` beside its table.

The files are written by `python -m advgym.catalogue.facts`, which makes every task once; a test compares them with
tasks that it makes. A task of a plugin has no such row: what asks for one makes the task.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from advgym import registry
from advgym.errors import AdvgymError


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one task at its defaults; spaces only where it has data of its own."""

    kind: str
    offers: list[str]
    proposal: str = ""  # one proposal, as words
    action: str = ""  # of the Gymnasium environment
    steps: int = 0  # of the Gymnasium environment, at most; a two-step view takes two for an edit
    observation: dict[str, str] = {}
    sizes: dict[str, int] = {}


@cache
def stored() -> dict[str, Facts]:
    """Every fact that ships, by task."""
    found = {}
    for path in sorted(registry.HOME.glob("envs/*/facts.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        found.update({f"{path.parent.name}/{name}": msgspec.convert(row, Facts) for name, row in table.items()})
    return found


def facts(name: str) -> Facts | None:
    """What is known of a task without making it; None of a plugin's."""
    return stored().get(name)


def agents_of(name: str) -> list[str]:
    """The agents that play a task as its row has it; a task that nothing is known of is made."""
    known = facts(name) or measured(name)
    return [a.name for a in registry.agents().values() if plays(a, known)]


def plays(agent: registry.Agent, known: Facts) -> bool:
    """Whether an agent, as it is registered, plays such a task."""
    return known.kind in agent.kinds and all(need in known.offers for need in agent.needs)


def guards(defense: registry.Defense, task: str, kind: str) -> bool:
    """Whether a defense is made for such a task."""
    return (not defense.domains or task.split("/")[0] in defense.domains) and kind in defense.kinds


def measured(name: str, **options: Any) -> Facts:
    """What making the task shows. `options` stand in for data and victim of one that has none of its own."""
    from advgym.catalogue.spaces import action_words, observation_words, space_words, steps_of
    from advgym.core.env import AttackEnv
    from advgym.core.offers import offers
    from advgym.core.task import make_task

    task = make_task(name, **options)
    split = next(iter(task.sizes))
    batch = task.samples(split, [0])
    known = {"kind": batch.kind, "offers": sorted(offers(task, batch))}
    if options:
        return Facts(**known)  # type: ignore[arg-type]
    env = AttackEnv(task, split=split)
    return Facts(
        **known, proposal=space_words(env.single_action_space), action=action_words(env), steps=steps_of(env),  # type: ignore[arg-type]
        observation=observation_words(env), sizes=dict(task.sizes),
    )  # fmt: skip


def like(name: str) -> str | None:
    """The task that a row names in `like`, else the first other one with a victim that the same function makes."""
    row = registry.task_row(name)[1]
    if "like" in row:
        return f"{name.split('/')[0]}/{row['like']}"
    same = (n for n, r in registry.tasks().items() if r["make"] == row["make"] and "victim" in r and n != name)
    return next(same, None)


def borrowed(name: str) -> Facts:
    """Kind and offers of a task that has no data or victim, found with those of one that is made alike."""
    other = like(name)
    if other is None:
        raise AdvgymError(f"no other task is made as {name} is")
    theirs, row = registry.tasks()[other], registry.tasks()[name]
    given = {key: theirs[key] for key in ("dataset", "victim") if key in theirs}
    given |= {k: v for k, v in theirs.get("constraint", {}).items() if k in row.get("constraint", {})}
    try:
        return measured(name, **given)
    except AdvgymError:
        known = measured(other)
        return Facts(kind=known.kind, offers=known.offers)


def write(names: list[str]) -> dict[str, str]:
    """Write the facts of these tasks into the files of their domains, and say of which there are none, and why."""
    from advgym.lib.files import write_atomic

    failed, found = {}, dict(stored())
    for name in names:
        try:
            row = registry.tasks()[name]
            found[name] = measured(name) if "victim" in row and "like" not in row else borrowed(name)
        except AdvgymError as error:
            failed[name] = str(error)
    for path in sorted(registry.HOME.glob("envs/*/tasks.toml")):
        domain = path.parent.name
        rows = [_row(n, found[n]) for n in registry.tasks() if n.split("/")[0] == domain and n in found]
        head = "# Written by `python -m advgym.catalogue.facts`, which makes every task; not by hand.\n"
        write_atomic(Path(path.with_name("facts.toml")), (head + "".join(rows)).encode())
    return failed


def _row(name: str, known: Facts) -> str:
    lines = [f"\n[{name.split('/', 1)[1]}]"]
    for key, value in msgspec.to_builtins(known).items():
        if isinstance(value, dict):
            text = "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
        else:
            text = _value(value)
        lines.append(f"{key} = {text}")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    return msgspec.json.encode(value).decode()  # of texts, numbers and lists of texts TOML's spelling is JSON's


if __name__ == "__main__":
    import sys

    for name, why in write(sys.argv[1:] or list(registry.tasks())).items():
        sys.stderr.write(f"{name}: {why}\n")
