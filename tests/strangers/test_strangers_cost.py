"""What an attack costs: nothing is asked twice, and everything that is asked is counted."""

import pytest
import torch

from advgym import attack, make
from advgym.agents._once import END, PATIENCE, Once, names


def stubborn(texts):
    """Never beaten, and not constant."""
    return [[1.0, 0.001 * (len(t) % 7)] for t in texts]


FEW = {
    "victim": stubborn, "samples": [(t, 0) for t in ("good film", "a good film", "dull plot", "good dull plot")],
    "candidates": {"good": ["fine", "decent"], "dull": ["slow", "grey"], "film": ["movie"], "plot": ["story"]},
    "edits": 2,
}  # fmt: skip
SETS = (3, 3, 3, 5)  # valid sets of each text: one word of two or three may change
# Queries and different ones before searches remembered: text/wordswap as here, digits-pixel of one pixel, karate-edge.
BEFORE = {
    "hard-label": (1200, 18), "decision-search": (1200, 18), "random-search": (1200, 18), "genetic": (1200, 18),
    "joint-greedy": (36, 18), "policy": (1200, 8), "pwws": (31, 27),
}  # fmt: skip


@pytest.mark.parametrize("agent", [*BEFORE, "alzantot", "pso", "beam", "greedy", "wir", "exhaustive", "additive"])
def test_few_choices_are_asked_once(agent):
    result = attack("text/wordswap", agent, queries=300, **FEW)
    assert result.attacked == 4
    for s, most in zip(sorted(result.samples, key=lambda s: s.id), SETS, strict=True):
        assert s.queries == s.queries_distinct <= most + 3  # a probe is no set: words deleted or unknown, one each
        assert agent not in ("hard-label", "decision-search", "random-search", "genetic") or s.queries == most


@pytest.mark.parametrize(
    ("task", "agent", "options"),
    [
        *[("image/digits-pixel", a, {"pixels": 1}) for a in ("hard-label", "decision-search", "random-search")],
        *[("image/digits-pixel", a, {"pixels": 1}) for a in ("genetic", "joint-greedy")],
        *[("graph/karate-edge", a, {}) for a in ("hard-label", "decision-search", "random-search", "genetic")],
        *[("graph/karate-edge", a, {}) for a in ("joint-greedy", "rl-s2v")],
        *[("image/digits-linf", a, {"eps": "1/16"}) for a in ("square", "decision-search", "genetic")],
    ],
)
def test_small_tables_are_asked_once(task, agent, options):
    result = attack(task, agent, episodes=6, queries=300, **options)
    queries, distinct = (sum(getattr(s, name) for s in result.samples) for name in ("queries", "queries_distinct"))
    assert distinct >= 0.9 * queries > 0


def test_alone_a_lane_asks_what_it_asks_among_others():
    for agent in ("hard-label", "decision-search", "random-search", "genetic"):
        rows = [attack("graph/karate-edge", agent, episodes=4, lanes=n, queries=60).samples for n in (1, 4)]
        assert [(s.queries, s.success) for s in rows[0]] == [(s.queries, s.success) for s in rows[1]]
    rows = [attack("image/digits-linf", "square", episodes=4, lanes=n, queries=60).samples for n in (1, 4)]
    assert [(s.queries, s.success) for s in rows[0]] == [(s.queries, s.success) for s in rows[1]]


def test_memory_answers_as_the_victim_did():
    env = make("text/wordswap", lanes=2, proposals=2, queries=200, **FEW)
    env.reset(seed=0)
    asked, p = Once(env), env.threat.random(3, 2)
    first, *_ = asked.step(p)
    again, *_ = asked.step(p.flip(1))
    left = again["queries_left"]
    assert torch.equal(left, first["queries_left"]) and bool(again["evaluated"].all())
    assert torch.equal(again["objective"], first["objective"].flip(1))
    for _ in range(PATIENCE):
        asked.step(p)
    assert asked.done and not env.done and torch.equal(env.asks_left, left)


def test_names_tell_sets_apart_and_nothing_else():
    env = make("graph/karate-edge", lanes=1)
    env.reset(seed=0)
    p = env.threat.random(1, 64)
    turned = p.flip(2).flip(3)  # another order of edits, the other order of pairs
    some = (p >= 0).all(3, keepdim=True)
    assert torch.equal(names(env, p), names(env, torch.where(some.flip(2), turned, -1)))
    sets = [frozenset(frozenset(e) for e in row if e[0] >= 0) for row in p[0].tolist()]
    assert len(set(sets)) == len(names(env, p)[0].unique())
    assert int(names(env, env.threat.null().unsqueeze(1))) == END
