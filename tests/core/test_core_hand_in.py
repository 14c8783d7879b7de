"""Under transfer the verdict is on what an attack returns, for which one query is kept; elsewhere on the best held."""

import numpy as np
import pytest
import torch
import toy

from advgym import Malformed, attack, verify
from advgym.core.env import AttackEnv
from advgym.judge.evaluator import evaluator
from advgym.judge.play import play
from advgym.registry import KINDS, Agent

QUERIES = 6
IDS = [i for i in range(10) if i % 10]


def env_of(kind="field", knowledge="transfer", proposals=None, queries=QUERIES):
    env = AttackEnv(toy.task(kind, knowledge=knowledge, queries=queries), proposals=proposals, assigned=IDS)
    obs, _ = env.reset(seed=0)
    return env, obs


def run(function, kind="field", knowledge="transfer", proposals=None, queries=QUERIES):
    """The rows of a function played as an agent, and its error."""
    task = toy.task(kind, knowledge=knowledge, queries=queries)
    return play(task, Agent("own", function, KINDS, knowledge, proposals), IDS, "cpu", 0, "test", {})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("proposals", [None, 3])
@pytest.mark.parametrize("form", ["tensor", "array", "grad"])
def test_what_is_returned_counts_and_is_charged(kind, proposals, form):
    told = {}

    def agent(env, *, seed):
        obs, _ = env.reset(seed=seed)
        told["left"] = obs["queries_left"].tolist()
        first, last = env.threat.random(1), env.threat.random(2)
        wide = first if proposals is None else first.unsqueeze(1).repeat(1, proposals, *[1] * (first.dim() - 1))
        env.step(wide)
        told["last"] = last
        if form == "grad" and kind == "field":
            return last.clone().requires_grad_()
        return last.numpy() if form == "array" else last

    rows, error = run(agent, kind, proposals=proposals)
    env, _ = env_of(kind)
    form_of = evaluator(env).batch.look(told["last"]).form
    assert not error and told["left"] == [QUERIES - 1] * len(IDS)
    for i, row in enumerate(rows):
        assert row.perturbation == evaluator(env).batch.dump(form_of[i], i)
        assert row.queries == (proposals or 1) + 1 and row.queries_distinct == 2


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_returned_is_the_last_proposed(kind):
    told = {}

    def agent(env, *, seed):
        env.reset(seed=seed)
        for k in range(3):
            told["last"] = env.threat.random(k)
            env.step(told["last"])

    rows, error = run(agent, kind)
    env, _ = env_of(kind)
    form = evaluator(env).batch.look(told["last"]).form
    assert not error and [r.queries for r in rows] == [3] * len(IDS)
    assert [r.perturbation for r in rows] == [evaluator(env).batch.dump(form[i], i) for i in range(len(IDS))]


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(len(IDS)), torch.zeros(3, toy.SIZE), "text", torch.zeros(len(IDS), toy.SIZE, dtype=torch.bool),
        (torch.zeros(len(IDS), toy.SIZE), None), [[1.0], [2.0, 3.0]], torch.zeros(len(IDS), 1, toy.SIZE),
    ],
    ids=["flat", "few", "text", "bools", "pair", "ragged", "wide"],
)  # fmt: skip
def test_a_malformed_return_is_told_and_the_last_counts(value):
    def agent(env, *, seed):
        env.reset(seed=seed)
        env.step(env.threat.random(1))
        return value

    rows, error = run(agent)
    plain, _ = run(lambda env, *, seed: agent(env, seed=seed) and None)
    assert error.startswith("Malformed: ")
    assert [r.perturbation for r in rows] == [r.perturbation for r in plain] and [r.queries for r in rows] == [1] * 9


def test_weights_are_no_last_word():
    env, _ = env_of("edits")
    p = env.threat.random(1)
    with pytest.raises(Malformed, match="whole edits"):
        evaluator(env).hand_in((p, torch.ones(p.shape[:-1])))


def test_what_is_not_valid_changes_nothing_and_nothing_is_the_clean_sample():
    env, _ = env_of()
    p = env.threat.random(1)
    env.step(p)
    held = evaluator(env).book.held.clone()
    far, null = torch.full_like(p, torch.nan), env.threat.null()
    evaluator(env).hand_in(torch.where(torch.arange(len(p)).unsqueeze(1) < 4, far, null))
    assert torch.equal(evaluator(env).book.held[:4], held[:4]) and not bool(evaluator(env).book.held[4:].any())
    assert evaluator(env).book.used.tolist() == [2] * 4 + [1] * 5  # the clean sample is free


@pytest.mark.parametrize("knowledge", ["decision", "score", "white-box"])
def test_elsewhere_the_best_held_counts(knowledge):
    def agent(env, *, seed, give):
        obs, _ = env.reset(seed=seed)
        assert obs["queries_left"].tolist() == [QUERIES] * len(IDS)
        env.step(env.threat.random(1))
        return give(env)

    found = [
        run(lambda env, *, seed, give=give: agent(env, seed=seed, give=give), knowledge=knowledge)
        for give in (lambda env: None, lambda env: env.threat.random(2), lambda env: "no perturbation at all")
    ]
    assert found[0] == found[1] == found[2] and not found[0][1]


def test_one_query_alone_is_for_the_last_word():
    def agent(env, *, seed):
        obs, _ = env.reset(seed=seed)
        assert env.done and obs["queries_left"].tolist() == [0] * len(IDS)
        return env.threat.random(2)

    rows, error = run(agent, queries=1)
    assert not error and [r.queries for r in rows] == [1] * len(IDS)
    assert any(np.any(r.perturbation["field"]) if isinstance(r.perturbation, dict) else r.perturbation for r in rows)


def test_the_file_is_true(tmp_path):
    task = toy.task(knowledge="transfer", queries=QUERIES)
    result = attack(task, "pgd", episodes=8, lanes=8, settings={"steps": 2})
    assert verify(result, task=task) == [] and max(s.queries for s in result.samples) <= QUERIES


def test_new_episodes_keep_a_query_of_their_own():
    env, _ = env_of()
    evaluator(env).hand_in(env.threat.random(1))
    assert evaluator(env).book.reserve.tolist() == [0] * len(IDS)
    fresh = AttackEnv(toy.task(knowledge="transfer", queries=QUERIES), 4, autoreset="same-step")
    fresh.reset(seed=0)
    for k in range(QUERIES):
        obs, *_ = fresh.step(fresh.threat.random(k))
    assert bool((obs["queries_left"] <= QUERIES - 1).all()) and evaluator(fresh).book.reserve.tolist() == [1] * 4
