"""`advgym.describe`: the card of a task, an agent, a defense or a victim."""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advgym import registry
from advgym.catalogue import cards
from advgym.catalogue.facts import facts, guards, plays
from advgym.catalogue.names import domain_of_victim
from advgym.errors import AdvgymError, unknown
from advgym.ids import gym_id
from advgym.lib.rooms import vocabulary
from advgym.lib.settings import settings_in_words

WHAT = ("task", "agent", "defense", "victim")
# "Madry et al. 2018", "Xu, Evans and Qi (2018)", as docstrings cite.
CITED = re.compile(r"[A-Z][\w'\-]+(?: et al\.|(?: and|,| &) [A-Z][\w\-]+)*,? \(?\d{4}[a-z]?\)?")


def describe(name: str, what: str | None = None, *, sample: int | None = None) -> cards.Card:
    """What there is to know of a task, an agent, a defense or a victim.

    Args:
        name: as the lists name it; the Gymnasium id of a task, and "agent:argument", are understood.
        what: "task", "agent", "defense" or "victim", where a plugin's names coincide; else found by the name.
        sample: of a task: make it (which may load or train its victim) and show this sample of its test split.

    Returns:
        A card: it prints as a listing, shows as a table in notebooks, and has `to_dict()` and `to_json()`.

    >>> describe("pgd").settings[0].name, describe("image/digits-linf").constraint["eps"]
    ('steps', '2/16')

    Raises:
        AdvgymError: for a name that is none, with the nearest one.
    """
    if not isinstance(name, str) or not name.strip():
        raise AdvgymError("describe takes the name of a task, an agent, a defense or a victim, not an empty one")
    if what is not None and what not in WHAT:
        raise unknown("kind of name", what, WHAT)
    kind = what or kind_of(name)
    if sample is not None and kind != "task":
        raise AdvgymError(f"sample= is of a task; {name!r} is {'an' if kind == 'agent' else 'a'} {kind}")
    if kind == "task":
        return task_card(name, sample)
    makers: dict[str, Callable[[str], cards.Card]] = {
        "agent": agent_card,
        "defense": defense_card,
        "victim": victim_card,
    }
    return makers[kind](name)


def kind_of(name: str) -> str:
    """Of what a name is."""
    head = name.partition(":")[0]
    if name.startswith("advgym/") or name in registry.tasks():
        return "task"
    tables = {"agent": registry.names("agent"), "defense": registry.names("defense"), "victim": set(registry.victims())}
    for what, names in tables.items():
        if head in names:
            return what
    registry.agents(), registry.defenses()  # plugins
    tables |= {what: registry.names(what) for what in ("agent", "defense")}
    for what, names in tables.items():
        if name in names:
            return what
    every = sorted({*registry.tasks(), *(n for names in tables.values() for n in names)})
    near = difflib.get_close_matches(name, every, n=3, cutoff=0.4) + [n for n in every if name in n][:3]
    guess = f"; did you mean {', '.join(map(repr, dict.fromkeys(near)))}?" if near else "."
    raise AdvgymError(
        f"there is no task, agent, defense or victim {name!r}{guess} "
        "`advgym list tasks|agents|defenses|victims` shows all"
    )


# -- tasks -----------------------------------------------------------------------------------------------------------
def task_card(name: str, sample: int | None = None) -> cards.Task:
    """Of a task: its row, and what is known of it without making it; with `sample` it is made."""
    name, row = registry.task_row(name)
    known = facts(name)
    most = registry.KNOWLEDGE.index(row.get("knowledge", "white-box"))
    agents = [] if known is None else [a for a in registry.agents().values() if plays(a, known)]
    gives = [what for key, what in (("victim", "victim="), ("dataset", "samples= or dataset=")) if key not in row]
    return cards.Task(
        name=name, summary=row.get("title", ""), domain=name.split("/")[0], kind=known.kind if known else "",
        dataset=row.get("dataset", ""), victim=row.get("victim", ""), surrogate=row.get("surrogate", ""),
        knowledge=list(registry.KNOWLEDGE[(0 if "surrogate" in row or gives else 1) : most + 1]),
        goals=list(row.get("goals", ["untargeted"])), queries=row.get("queries", 500),
        gradients=row.get("gradients", 500), constraint=dict(row.get("constraint", {})), gives=gives,
        offers={word: vocabulary()[word] for word in known.offers} if known else {}, id=gym_id(name),
        action=known.action if known else "", proposal=known.proposal if known else "",
        max_episode_steps=known.steps if known else 0, reward_threshold=row.get("reward_threshold"),
        observation=known.observation if known else {}, sizes=known.sizes if known else {},
        sample="" if sample is None else sample_line(name, sample),
        agents=[a.name for a in agents],
        defenses=[d.name for d in registry.defenses().values() if known and guards(d, name, known.kind)],
        command=task_command(name, row, agents, gives),
    )  # fmt: skip


def task_command(name: str, row: dict[str, Any], agents: list[registry.Agent], gives: list[str]) -> str:
    """The command that attacks a task with a strong agent that plays it: one that a demo names, of the most told."""
    if not agents:
        return ""
    wanted = [a for a in row.get("demo", []) if a != "noise"] or ["pgd", "first-order", "greedy", "prbcd"]
    by = {a.name: a for a in agents}
    chosen = next((a for a in reversed(wanted) if a in by and by[a].knowledge == "white-box"), None)
    chosen = chosen or next((a for a in wanted if a in by), agents[0].name)
    own = "".join(f" --set {g.partition('=')[0]}=..." for g in (["victim="] if "victim=" in gives else []))
    own += " --set dataset=..." if any("dataset" in g for g in gives) else ""
    return f"advgym attack {name} --agent {chosen}{own}"


def sample_line(name: str, sample: int) -> str:
    """A clean sample in a line, as the task writes it; makes the task."""
    from advgym.clients.render import ask
    from advgym.core.task import make_task

    task = make_task(name)
    split = "test" if "test" in task.sizes else next(iter(task.sizes))
    batch = task.samples(split, [sample])
    look = batch.look(batch.null())
    line = ask(task, task.line, batch, 0, look.form[0]) if task.line is not None else f"sample {sample}"
    label = task.goal.describe(batch.labels[0])
    return f"{split} {sample} ({label}): {line}"


# -- agents and defenses ---------------------------------------------------------------------------------------------
def agent_card(name: str) -> cards.Agent:
    """Of an agent."""
    entry = registry.agent(name) if ":" in name else _entry(name)
    tasks = [t for t in registry.tasks() if (known := facts(t)) is not None and plays(entry, known)]
    bare = _bare(entry.attack)
    first = shown_task(tasks) or "TASK"
    called = f"{entry.name}:{entry.argument.upper()}" if entry.argument and ":" not in name else entry.name
    return cards.Agent(
        name=entry.name, summary=entry.summary, kinds=list(entry.kinds), knowledge=entry.knowledge,
        proposals=entry.proposals, needs={word: vocabulary()[word] for word in entry.needs}, papers=papers(bare),
        settings=[s for s in settings_in_words(entry.attack, entry.allowed) if s.name != entry.argument],
        about=inspect.getdoc(bare) or "", file=entry.origin, argument=entry.argument, tasks=tasks,
        command=f"advgym attack {first} --agent {called}",
    )  # fmt: skip


def shown_task(tasks: list[str]) -> str | None:
    """The task for a first try: one that a demo shows, else one with a victim of its own."""
    rows = registry.tasks()
    for key in ("demo", "victim"):
        for name in tasks:
            if key in rows[name]:
                return name
    return None


def _entry(name: str) -> registry.Agent:
    """An agent by its bare name, also one that is played with an argument after a colon."""
    if name in registry.agents():
        return registry.agents()[name]
    return registry.agent(name)


def defense_card(name: str) -> cards.Defense:
    """Of a defense."""
    entry = registry.defense(name)
    tasks = [t for t in registry.tasks() if (known := facts(t)) is not None and guards(entry, t, known.kind)]
    first = shown_task(tasks)
    agent = task_card(first).command.partition("--agent ")[2] if first else "NAME"
    bare = _bare(entry.defend)
    return cards.Defense(
        name=entry.name, summary=entry.summary, domains=list(entry.domains), kinds=list(entry.kinds),
        papers=papers(bare), settings=settings_in_words(entry.defend, entry.allowed), about=inspect.getdoc(bare) or "",
        file=entry.origin, tasks=tasks, command=f"advgym attack {first or 'TASK'} --agent {agent} --defense {name}",
    )  # fmt: skip


def _bare(function: Any) -> Callable[..., Any]:
    found: Callable[..., Any] = inspect.unwrap(getattr(function, "func", function))
    return found


def papers(function: Callable[..., Any]) -> list[str]:
    """The papers that a docstring cites, or else its module's, in order: "Madry et al. 2018"."""
    module = inspect.getmodule(function)
    for text in (inspect.getdoc(function) or "", (module.__doc__ or "") if module else ""):
        found = [re.sub(r"[()]", "", cited) for cited in CITED.findall(text)]
        if found:
            return list(dict.fromkeys(found))
    return []


# -- victims ---------------------------------------------------------------------------------------------------------
def victim_card(name: str) -> cards.Victim:
    """Of a victim: its row, and what its weights' card says."""
    row = registry.victim_row(name)[1] if ":" in name else registry.victims().get(name)
    if row is None:
        raise unknown("victim", name, registry.victims())
    used = {role: [t for t, r in registry.tasks().items() if r.get(role) == name] for role in ("victim", "surrogate")}
    measured, weights = stored_card(name)
    argument = str(row.get("argument", ""))
    return cards.Victim(
        name=name, summary=row.get("title", ""), domain=domain_of_victim(row),
        dataset=str(row.get("dataset", row.get("corpus", ""))),
        settings={k: v for k, v in row.items() if k not in ("make", "title", "dataset", "argument")},
        measured=measured, weights="" if argument else weights, argument=argument, tasks=used["victim"],
        surrogate_of=used["surrogate"],
        command=f"advgym train {name}" if not argument else f"advgym list victims {name}:{argument.upper()}",
    )  # fmt: skip


def stored_card(name: str) -> tuple[dict[str, Any], str]:
    """(figures of the card that lies with a victim's weights, where the weights are). No weights are read."""
    from advgym.lib.weights import cache_dir

    shipped = sorted(registry.HOME.glob(f"envs/*/weights/{name}.safetensors"))
    kept = sorted((cache_dir() / "victims").glob(f"{name}-????????????.safetensors"), key=lambda p: p.stat().st_mtime)
    for paths, where in ((shipped, "shipped"), (kept[::-1], "kept")):
        for path in paths:
            card = _header(path)
            return {k: v for k, v in card.items() if k not in ("name", "recipe")}, where
    return {}, "trained when first used"


def _header(path: Path) -> dict[str, Any]:
    """The card in the header of a safetensors file; {} where there is none that can be read."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, 1 << 24)))
        found = json.loads(header.get("__metadata__", {}).get("card", "{}"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, AttributeError):
        return {}
