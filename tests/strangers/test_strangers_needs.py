"""No agent plays another's game: on every embedded task it is refused by name, or asks what no other agent asks."""

import json

import pytest
import toy

import advgym
from advgym import AdvgymError, attack, make_task, registry, verify
from advgym.core.env import AttackEnv
from advgym.core.offers import check_fit, fits, lacking, offers
from advgym.judge.evaluator import evaluator
from advgym.lib.rooms import vocabulary

# Others of their kind stand for these.
SLOW = {"graph/sbm-poison", "graph/sbm-poison-jaccard", "graph/sbm-poison-rgcn", "graph/sbm-rewire",
        "graph/sbm-inject", "graph/sbm-global", "image/digits-l2", "image/digits-universal-l2",
        "image/digits-patch-universal", "speech/synth-universal", "speech/synth-prepend", "speech/synth-rooms",
        "speech/synth-transcribe", "image/digits-poison", "image/digits-poison-clean", "speech/synth-poison",
        "speech/synth-poison-clean"}  # fmt: skip
TASKS = [
    name for name, row in registry._built_in().tasks.items()
    if row.get("dataset") in ("digits", "karate", "sbm") or str(row.get("dataset", "")).startswith("synth")
]  # fmt: skip
# What coincides, and why: docs/agents.md says so.
ALIKE = [
    ({"beam", "greedy-search", "pso"}, "the first round of each asks about every single edit"),
    ({"greedy", "textfooler"}, "of two classes the objective orders as the probability does"),
    ({"decision-search", "rays"}, "on Fields the first is the second"),
    ({"cgba", "hopskipjump"}, "where no start is found they go no further"),
]
CASCADES = {"auto", "auto-score", "auto-labels"}  # they ask what their first member asks, where that suffices
QUERIES = 80


def asked(task, agent, queries):
    """The digests that an agent asks for, in order, lane by lane."""
    entry = registry.agent(agent)
    many = task.samples("test", [0]).price
    made = make_task(task.name, knowledge=entry.knowledge, queries=queries * many, gradients=queries)
    env = AttackEnv(made, proposals=entry.proposals, assigned=[0, 1] if task.sizes["test"] > 1 else [0])
    env.reset(seed=3)
    entry.attack(env, seed=3)
    return tuple(map(tuple, evaluator(env).book.pairs().tolist()))


@pytest.mark.parametrize("name", [t for t in TASKS if t not in SLOW])
def test_two_agents_never_ask_the_same(name):
    task, told = make_task(name), {}
    most = 4 if "poison" in name else QUERIES
    for agent, entry in registry.agents().items():
        allowed = registry.KNOWLEDGE.index(entry.knowledge) <= registry.KNOWLEDGE.index(task.threat.knowledge)
        if entry.origin.startswith("advgym.") and not entry.argument and fits(entry, task) and allowed:
            told.setdefault((entry.knowledge, asked(task, agent, most)), set()).add(agent)
    assert len(told) >= 8
    same = [agents - CASCADES for agents in told.values() if len(agents - CASCADES) > 1]
    assert all(any(agents <= alike for alike, _ in ALIKE) for agents in same), same


@pytest.mark.parametrize("name", [t for t in TASKS if t not in SLOW])
def test_what_does_not_fit_is_refused_by_name(name):
    task = make_task(name)
    batch = task.samples("test", [0])
    offered = offers(task, batch)
    assert offered <= set(vocabulary())
    for agent, entry in registry.agents().items():
        if batch.kind in entry.kinds and lacking(entry, offered):
            with pytest.raises(AdvgymError, match=f"agent '{agent}' needs what {name} does not offer"):
                check_fit(entry, task, batch)


# The games that the old fallbacks played: each read no graph, no injection, no members, no weights, no model, no probe.
WRONG = {
    "text/synth-wordswap": ["degree", "dice", "tdgia", "rl-s2v", "l1d-rnd", "fgsm-injection", "nettack", "sga", "eva",
                            "coverage", "prbcd", "metattack", "bert-attack", "bae", "clare", "textbugger",
                            "deepwordbug", "input-reduction", "pyg:prbcd"],
    "image/digits-pixel": ["degree", "nettack", "wir", "pwws", "textfooler", "a2t", "policy", "textattack:greedy"],
    "graph/sbm-rewire": ["nettack", "dice", "policy", "rl-s2v", "wir"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "agent"), [(t, a) for t, agents in WRONG.items() for a in agents])
def test_the_fallbacks_are_gone(name, agent):
    with pytest.raises(AdvgymError, match=r"needs what .* does not offer .*Agents that play it: .*random-search"):
        attack(name, agent, episodes=1)


@pytest.mark.parametrize("agent", ["degree", "l1d-rnd", "dice", "sga", "rl-s2v", "tdgia", "fgsm-injection", "nettack",
                                   "eva", "coverage", "prbcd"])  # fmt: skip
def test_called_by_hand_they_refuse_too(agent):
    entry = registry.agent(agent)
    env = advgym.make("text/synth-wordswap", 2, entry.proposals)
    with pytest.raises(AdvgymError, match="play "):
        entry.attack(env, seed=0)


def test_transfer_checks_whom_it_plays():
    with pytest.raises(AdvgymError, match=r"agent .transfer. needs what text/synth-wordswap does not offer .edges"):
        attack("text/synth-wordswap", "transfer", episodes=1, settings={"inner": "dice"})
    with pytest.raises(AdvgymError, match="agent 'pgd' plays field"):
        attack("text/synth-wordswap", "transfer", episodes=1, settings={"inner": "pgd"})


def test_joint_greedy_asks_for_no_gradient_whatever_it_may_know():
    result = attack("text/synth-joint", "joint-greedy", episodes=4, knowledge="white-box", queries=60)
    assert result.gradients_mean == 0 and result.queries_mean > 0


# -- names in files -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("task", "agent"), [("text/synth-wordswap", "textattack:greedy-word-wir"), ("graph/sbm-edge", "pyg:grbcd")]
)
def test_an_agent_with_an_argument_has_its_full_name_and_is_verified(tmp_path, task, agent):
    from advgym.cli.attack import run_attack

    out = tmp_path / "r.json"
    more = ["queries=40", *(["agent.epochs=3", "agent.block=200"] if agent.startswith("pyg") else [])]
    code = run_attack(task, agent, more, [], episodes=4, lanes=2, device="cpu", seed=0, split="test", out=out, show=0,
                      report=None)  # fmt: skip
    raw = json.loads(out.read_text())
    assert code == 0 and raw["agent"] == agent and not [f for f in raw["flags"] if "crashed" in f]
    assert max(s["queries"] for s in raw["samples"]) > 0 and verify(out) == []


def test_an_interrupted_one_goes_on(tmp_path):
    out, seen = tmp_path / "r.json", []

    def stop(done, total, wins):
        if done:
            raise KeyboardInterrupt

    given = {"episodes": 4, "lanes": 2, "queries": 30, "out": out}
    with pytest.raises(KeyboardInterrupt):
        attack("text/synth-wordswap", "textattack:wir-delete", progress=stop, **given)
    attack("text/synth-wordswap", "textattack:wir-delete", progress=lambda d, t, w: seen.append(d), **given)
    assert seen[0] == 2
    with pytest.raises(AdvgymError, match="after the colon"):
        attack("text/synth-wordswap", "textattack:wir-delete", episodes=1, settings={"recipe": "pso"})


def test_a_function_without_a_name_is_called_own():
    def pgd(env, *, seed=0):
        env.reset(seed=seed)
        env.step(env.threat.random(seed))

    result = attack(toy.task(), pgd, episodes=4)
    assert result.agent == "own" and any("the caller's own: pgd" in f for f in result.flags)
    assert attack(toy.task(), registry.agent("pgd").attack, episodes=4).agent == "pgd"
    with pytest.raises(AdvgymError, match="register it under another"):
        registry.register_agent("own", kind="field", knowledge="score")
    with pytest.raises(AdvgymError, match="unknown need of mine 'graf'; did you mean 'graph'"):
        registry.register_agent("mine", kind="field", knowledge="score", needs=("graf",))
