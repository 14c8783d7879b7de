"""One capability table: every agent on one embedded task of each domain and kind. A new attack is a new row."""

from dataclasses import replace
from functools import cache

import msgspec
import pytest
import toy

from advgym import attack, make_task, registry, verify
from advgym.core.offers import fits
from advgym.core.task import Task
from advgym.judge.play import play
from advgym.registry import KNOWLEDGE

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
def kind_of(name):
    task = make_task(name)
    return task.samples("test", [0]).kind


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
    "image/digits-l2", "image/digits-l0", "text/synth-charswap", "text/synth-reduction", "graph/karate-global",
    "graph/karate-inject",
)  # fmt: skip
NEEDY = [agent for agent, entry in AGENTS.items() if entry.needs]


def plays(agent, task):
    """Whether an agent plays a task, by what it needs."""
    made = task if isinstance(task, Task) else make_task(task)
    return fits(AGENTS[agent], made)


TABLE = [
    pytest.param(agent, task, id=f"{agent}-{task}")
    for task in TASKS.values() for agent in AGENTS if plays(agent, task)
]  # fmt: skip
TABLE += [
    pytest.param(agent, task, id=f"{agent}-{task}")
    for task in MORE for agent in NEEDY if plays(agent, task) and not any(plays(agent, t) for t in TASKS.values())
]  # fmt: skip


def test_every_agent_plays_somewhere():
    played = {param.values[0] for param in TABLE}
    # Where a query is a training run they have tests of their own: tests/agents/*_poison.py, tests/core/*_poison.py.
    assert set(AGENTS) - played - {"metattack", "badnets", "clean-label"} == MODELS


def test_the_table_covers_every_domain_and_both_kinds():
    assert {d for d, _ in TASKS} == {"image", "text", "graph", "speech", "fusion"}
    assert {k for _, k in TASKS} == {"field", "edits"}
    for kind in ("field", "edits"):
        assert sum(kind in e.kinds for e in AGENTS.values()) >= 5


@pytest.mark.parametrize(("agent", "task"), TABLE)
def test_an_agent_keeps_the_rules(agent, task):
    entry = AGENTS[agent]
    result = attack(task, agent, episodes=EPISODES, lanes=EPISODES, seed=1, **BUDGET)
    assert result.attacked and not [f for f in result.flags if "crashed" in f], result.flags
    for s in result.samples:
        assert 0 <= s.queries <= BUDGET["queries"] and 0 <= s.gradients <= BUDGET["gradients"]
        assert s.valid and s.queries_distinct <= s.queries
        assert not s.gradients or entry.knowledge in ("white-box", "transfer")
    assert verify(result) == []
    # The same seed gives the same rows, through a proxy that shows the contract alone.
    made = make_task(task, knowledge=entry.knowledge, **BUDGET)
    honest = replace(entry, attack=lambda env, **kw: entry.attack(Public(env, PUBLIC), **kw))
    rows, error = play(made, honest, [s.id for s in result.samples], "cpu", 1, "test", {})
    assert error == ""
    unmeasured = [msgspec.structs.replace(s, columns={}) for s in result.samples]
    assert [msgspec.to_builtins(r) for r in rows] == [msgspec.to_builtins(s) for s in unmeasured]


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_says_who_published_it_and_has_defaults(name):
    entry = AGENTS[name]
    assert entry.summary.endswith((".", ").")) or entry.summary[-1:].isalpha()
    assert entry.knowledge in KNOWLEDGE and set(entry.kinds) <= {"field", "edits"}
    assert entry.name == entry.origin.rsplit(".", 1)[1].replace("_", "-"), "one attack, one file, the same name"


@pytest.mark.parametrize("kind", ["field", "edits"])
@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_an_agent_plays_every_threat_model(name, kind, least, goal):
    entry = AGENTS[name]
    if not plays(name, toy.task(kind)):
        return
    task = toy.task(kind, knowledge=entry.knowledge, least=least, goal=goal, queries=40, gradients=40)
    result = attack(task, name, episodes=12, lanes=5)
    assert not [f for f in result.flags if "crashed" in f], result.flags
    assert result.invalid_rate == 0 and verify(result, task=task) == []


@pytest.mark.parametrize("queries", [1, 2, 3])
@pytest.mark.parametrize("kind", ["field", "edits"])
@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_survives_a_tiny_budget(name, kind, queries):
    entry = AGENTS[name]
    if not plays(name, toy.task(kind)):
        return
    task = toy.task(kind, knowledge=entry.knowledge, queries=queries, gradients=1)
    result = attack(task, name, episodes=8, lanes=8)
    assert not [f for f in result.flags if "crashed" in f], result.flags
    assert all(s.queries <= queries and s.gradients <= 1 for s in result.samples)


def rate(name, kind, knowledge=None, **options):
    task = toy.task(kind, knowledge=knowledge or AGENTS[name].knowledge, queries=80, gradients=80, **options)
    return attack(task, name, episodes=toy.SAMPLES, lanes=20)


@pytest.mark.parametrize("kind", ["field", "edits"])
@pytest.mark.parametrize("name", [n for n, e in AGENTS.items() if e.knowledge in ("white-box", "score", "decision")])
def test_an_attack_beats_noise(name, kind):
    if not plays(name, toy.task(kind)):
        return
    result = rate(name, kind)
    if name == "noise":
        assert result.success_rate > 0
    else:
        assert result.success_rate > result.control_rate


def test_transfer_is_bounded_by_the_white_box():
    for kind, best in (("field", "pgd"), ("edits", "first-order")):
        assert rate("transfer", kind).success_rate <= rate(best, kind).success_rate


@pytest.mark.parametrize("inner", ["square", "genetic", "random-search", "decision-search", "fgsm"])
def test_any_attack_transfers(inner):
    task = toy.task(knowledge="transfer", queries=40)
    result = attack(task, "transfer", episodes=8, lanes=8, settings={"inner": inner})
    assert not result.flags or not any("crashed" in f for f in result.flags)
    assert verify(result, task=task) == []


def test_two_seeds_differ():
    a, b = (attack(toy.task(), "random-search", episodes=12, seed=s) for s in (0, 1))
    assert [s.perturbation for s in a.samples] != [s.perturbation for s in b.samples]


@pytest.mark.parametrize("name", AGENTS)
def test_lanes_do_not_matter(name):
    """An agent's rows are the same whichever samples play beside them."""
    entry = AGENTS[name]
    for kind in entry.kinds:
        task = toy.task(kind, knowledge=entry.knowledge, queries=30)
        if not plays(name, task):
            continue
        one, four = ({s.id: s for s in attack(task, name, episodes=12, lanes=lanes).samples} for lanes in (1, 12))
        assert {i: s.success for i, s in one.items()} == {i: s.success for i, s in four.items()}


def test_the_proxy_shows_the_contract_alone():
    """The test of the test: private attributes are caught at every depth."""
    from advgym import make

    env = make(toy.task("edits"), 2)
    env.reset()
    seen = Public(env, PUBLIC)
    assert seen.num_envs == 2 and seen.threat.null().shape[0] == 2 and seen.table.sites == toy.SIZE
    for read in (
        lambda: seen._book, lambda: seen._task, lambda: seen.single, lambda: seen.threat._batch,
        lambda: seen.table._batch, lambda: seen.view([0])._book, lambda: setattr(seen, "output", "numpy"),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match="an agent"):
            read()


# Its victim learns for ten minutes; tests/text/test_text_translation.py has a small one.
LONG = {"text/multi30k-wordswap"}
REAL = [
    n for n, row in registry._built_in().tasks.items() if row.get("dataset") and not embedded(row) and n not in LONG
]


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("task", REAL)
def test_real_tasks_are_played(task, data_dir):
    training = "-poison" in task  # each query is a training run
    episodes, budget = (1, {"queries": 4, "gradients": 4}) if training else (EPISODES, BUDGET)
    for agent in ("random-search",) if training else ("random-search", "genetic"):
        result = attack(task, agent, episodes=episodes, lanes=episodes, **budget)
        assert result.attacked and not [f for f in result.flags if "crashed" in f] and verify(result) == []
