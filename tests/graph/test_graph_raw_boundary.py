"""Raw graphs through the process boundary: the same answers, gradients and charges as without it, and no others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import advgym
from advgym import registry
from advgym.core.env import AttackEnv
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.tasks.poison import retrained_victim
from advgym.errors import AdvgymError, BudgetExhausted, Malformed
from advgym.judge.evaluator import evaluator

sys.path.insert(0, str(Path(__file__).parents[1] / "leaderboards"))
from boundary_pair import referee


def both(task, play, lanes=2, **options):
    """What `play` found in this process and behind the boundary, with the books of both."""
    found, books = [], []

    def kept(env, *, seed):
        found.append(play(env, seed))

    for through in (False, True):
        env = AttackEnv(advgym.make_task(task, **options), assigned=range(lanes))
        env.reset(seed=1)
        if through:
            error = referee(env, kept)[2]
            assert error is None, error
        else:
            kept(env, seed=5)
        books.append(evaluator(env).book)
    return found, books


@pytest.mark.parametrize("task", ["graph/karate-edge", "graph/karate-global", "graph/karate-inject"])
def test_answers_gradients_and_charges_are_the_same(task):
    def ask(env, seed):
        rows, out = env.threat.apply(env.threat.null()).of_lane(1), []
        index = env.context["edge_index"]
        weight = torch.linspace(0.1, 1.0, index.shape[1]).requires_grad_()
        scores = env.victim(rows.raw(index, weight), torch.tensor([1]))
        (slope,) = torch.autograd.grad(scores.square().sum(), weight)
        with torch.no_grad():
            again = env.victim(rows.raw(index, weight), torch.tensor([1]))
        out += [scores.detach(), slope, again]
        return out

    found, books = both(task, ask)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert float(found[0][1].abs().max()) > 1e-6
    for name in ("queries_left", "gradients_left"):
        left = [getattr(book, name).tolist() for book in books]
        assert left[0] == left[1] and left[0][1] == left[0][0] - (2 if name == "queries_left" else 1)


@pytest.mark.parametrize("task", ["graph/karate-edge", "graph/karate-global"])
def test_pyg_s_own_attack_plays_behind_it(task):
    settings = {"block": 400, "epochs": 6, "resampling": 3}

    def play(env, seed):
        registry.agent("pyg:prbcd").attack(env, seed=seed, **settings)

    _, books = both(task, play, knowledge="white-box")
    assert torch.equal(books[0].held, books[1].held) and bool((books[0].held >= 0).any())
    assert torch.equal(books[0].queries_left, books[1].queries_left)
    assert torch.equal(books[0].gradients_left, books[1].gradients_left)


def test_what_is_no_graph_of_the_task_is_refused():
    def ask(env, seed):
        rows = env.threat.apply(env.threat.null()).of_lane(0)
        index, words = env.context["edge_index"], []
        good = rows.raw(index, torch.ones(index.shape[1]))
        for parts, lanes in (
            ((index, torch.full((index.shape[1],), torch.nan)), [0]),
            ((index + 30, torch.ones(index.shape[1])), [0]),
            ((index.float(), torch.ones(index.shape[1])), [0]),
            ((index, torch.ones(3)), [0]),
            ((index, torch.ones(index.shape[1])), [0, 1]),
            ((index, torch.ones(index.shape[1])), [7]),
            ((index, index, torch.ones(index.shape[1])), [0]),
            ((torch.zeros(2, (1 << 20) + 1, dtype=torch.int64), torch.ones((1 << 20) + 1)), [0]),
        ):
            with pytest.raises(Malformed) as error:
                env.victim(type("Raw", (), {"parts": lambda self, parts=parts: parts})(), torch.tensor(lanes))
            words.append(str(error.value))
        with pytest.raises(AdvgymError, match="do not cross the boundary"):
            env.victim(object(), torch.tensor([0]))
        before = env.asks_left.clone()
        assert bool((before == 3).all())  # nothing of all that was charged
        for _ in range(3):
            env.victim(good, torch.tensor([0]))
        with pytest.raises(BudgetExhausted):
            env.victim(good, torch.tensor([0]))
        return words

    env = AttackEnv(advgym.make_task("graph/karate-edge", knowledge="score", queries=3), assigned=range(2))
    env.reset(seed=1)
    found = []
    assert referee(env, lambda env, *, seed: found.append(ask(env, seed)))[2] is None
    assert "names node" in found[0][1] and "at most 1048576" in found[0][7]


def test_a_victim_that_takes_none_says_so():
    victim = retrained_victim("quick", data=load_nodes("karate"), epochs=5, lr=0.1)

    def ask(env, *, seed):
        index = env.context["edge_index"]
        raw = env.threat.apply(env.threat.null()).of_lane(0).raw(index, torch.ones(index.shape[1]))
        with pytest.raises(AdvgymError, match="a training run answers whole graphs"):
            env.victim(raw, torch.tensor([0]))

    env = AttackEnv(advgym.make_task("graph/karate-poison", victim=victim, fresh=1), assigned=range(1))
    env.reset(seed=1)
    assert referee(env, ask)[2] is None
