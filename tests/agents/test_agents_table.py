"""The capability table of agents as a whole: who plays where, and what all of them say of themselves."""

import pytest
import toy
from table import AGENTS, MODELS, PUBLIC, TASKS, Public, rows

from advgym import attack, verify
from advgym.registry import KNOWLEDGE

DOMAINS = ("image", "text", "graph", "speech", "fusion")


def test_every_agent_plays_somewhere():
    played = {param.values[0] for domain in DOMAINS for param in rows(domain)}
    # Where a query is a training run they have tests of their own: tests/agents/*_poison.py, tests/core/*_poison.py.
    assert set(AGENTS) - played - {"metattack", "badnets", "clean-label"} == MODELS


def test_the_table_covers_every_domain_and_both_kinds():
    assert {d for d, _ in TASKS} == set(DOMAINS)
    assert {k for _, k in TASKS} == {"field", "edits"}
    for kind in ("field", "edits"):
        assert sum(kind in e.kinds for e in AGENTS.values()) >= 5


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_says_who_published_it_and_has_defaults(name):
    entry = AGENTS[name]
    assert entry.summary.endswith((".", ").")) or entry.summary[-1:].isalpha()
    assert entry.knowledge in KNOWLEDGE and set(entry.kinds) <= {"field", "edits"}
    assert entry.name == entry.origin.rsplit(".", 1)[1].replace("_", "-"), "one attack, one file, the same name"


@pytest.mark.parametrize("inner", ["square", "genetic", "random-search", "decision-search", "fgsm"])
def test_any_attack_transfers(inner):
    task = toy.task(knowledge="transfer", queries=40)
    result = attack(task, "transfer", episodes=8, lanes=8, settings={"inner": inner})
    assert not result.flags or not any("crashed" in f for f in result.flags)
    assert verify(result, task=task) == []


def test_two_seeds_differ():
    a, b = (attack(toy.task(), "random-search", episodes=12, seed=s) for s in (0, 1))
    assert [s.perturbation for s in a.samples] != [s.perturbation for s in b.samples]


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
