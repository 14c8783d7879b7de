"""The capability table of agents: every agent on one embedded task of each domain and kind. A new attack is a new row.

It is played by `test_agents_table_<domain>.py`, a file for each domain, since a file of tests is one worker's.
"""

from dataclasses import replace
from functools import cache

import msgspec
import pytest

from advgym import attack, make_task, registry, verify
from advgym.core.offers import fits
from advgym.core.task import Task
from advgym.judge.play import play

BUDGET = {"queries": 24, "gradients": 24}
EPISODES = 4

# What an agent may touch of an environment: section 3 of the design.
PUBLIC = {
    "reset", "step", "done", "live", "asks_left", "threat", "table", "context", "draws", "rank", "append", "victim",
    "view", "kind", "shape", "knowledge", "keyed", "proposals", "num_envs", "device", "action_space",
    "single_action_space", "observation_space", "single_observation_space", "metadata", "autoreset_mode",
    "close", "render",
}  # fmt: skip


class Public:
    """An environment, or a part of one, without its private side."""

    def __init__(self, thing, names=None):
        object.__setattr__(self, "_Public__thing", thing)
        object.__setattr__(self, "_Public__names", names)

    def __getattr__(self, name):
        thing, names = (object.__getattribute__(self, f"_Public__{k}") for k in ("thing", "names"))
        if name.startswith("_") or (names is not None and name not in names):
            raise AssertionError(f"an agent reads {type(thing).__name__}.{name}, which is no part of the contract")
        value = getattr(thing, name)
        if name == "view":
            return lambda *args, **kwargs: Public(value(*args, **kwargs), PUBLIC)
        return Public(value) if name in ("threat", "table") else value

    def __setattr__(self, name, value):
        raise AssertionError(f"an agent writes {name}")


def embedded(row):
    """No download, no ADVGYM_DATA."""
    dataset = row.get("dataset", "")
    return dataset in ("digits", "karate", "sbm") or dataset.startswith("synth")


@cache
def made(name):
    """A registered task, for what it says of itself."""
    return make_task(name)


def kind_of(name):
    return made(name).samples("test", [0]).kind


def tasks():
    """The first embedded task of each (domain, kind)."""
    found = {}
    for name, row in registry._built_in().tasks.items():
        if embedded(row):
            found.setdefault((name.split("/")[0], kind_of(name)), name)
    return found


TASKS = tasks()
AGENTS = {
    name: entry
    for name, entry in registry.agents().items()
    if entry.origin.startswith("advgym.") and not entry.argument  # a bridge has tests of its own
}
MODELS = {"bae", "bert-attack", "clare"}  # no embedded task has the language model that they need
# Further tasks that offer what the first of their domain does not.
MORE = (
    "image/digits-l2", "image/digits-l1", "image/digits-l0", "text/synth-charswap", "text/synth-reduction",
    "graph/karate-global", "graph/karate-inject",
)  # fmt: skip
NEEDY = [agent for agent, entry in AGENTS.items() if entry.needs]


def plays(agent, task):
    """Whether an agent plays a task, by what it needs."""
    return fits(AGENTS[agent], task if isinstance(task, Task) else made(task))


def rows(domain):
    """(agent, task) of a domain's part of the table."""
    first = [task for (of, _), task in TASKS.items() if of == domain]
    more = [task for task in MORE if task.startswith(f"{domain}/")]
    found = [(agent, task) for task in first for agent in AGENTS if plays(agent, task)]
    found += [
        (agent, task) for task in more for agent in NEEDY
        if plays(agent, task) and not any(plays(agent, t) for t in TASKS.values())
    ]  # fmt: skip
    return [pytest.param(agent, task, id=f"{agent}-{task}") for agent, task in found]


def keeps_the_rules(agent, task):
    """Budgets, validity, verdicts, and the same rows again through a proxy that shows the contract alone."""
    entry = AGENTS[agent]
    result = attack(task, agent, episodes=EPISODES, lanes=EPISODES, seed=1, **BUDGET)
    assert result.attacked and not [f for f in result.flags if "crashed" in f], result.flags
    for s in result.samples:
        assert 0 <= s.queries <= BUDGET["queries"] and 0 <= s.gradients <= BUDGET["gradients"]
        assert s.valid and s.queries_distinct <= s.queries
        assert not s.gradients or entry.knowledge in ("white-box", "transfer")
    assert verify(result) == []
    same = make_task(task, knowledge=entry.knowledge, **BUDGET)
    honest = replace(entry, attack=lambda env, **kw: entry.attack(Public(env, PUBLIC), **kw))
    rows, error = play(same, honest, [s.id for s in result.samples], "cpu", 1, "test", {})
    assert error == ""
    unmeasured = [msgspec.structs.replace(s, columns={}) for s in result.samples]
    assert [msgspec.to_builtins(r) for r in rows] == [msgspec.to_builtins(s) for s in unmeasured]
