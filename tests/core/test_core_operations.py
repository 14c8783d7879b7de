"""What a step costs beside the victim, in operations and in waits for the device; counts, not times."""

import pytest
import torch
import toy

from advgym import AttackEnv
from advgym.judge.evaluator import evaluator


@pytest.fixture(scope="module")
def bench(benchmark_named):
    return benchmark_named("core.operations")


def test_a_step_of_pgd(bench):
    _, updated, turn = bench.pgd(lanes=16)
    assert updated[0] <= 40 and updated[1] <= 1
    assert turn[0] <= 46 and turn[1] <= 1  # `env.done`, the loss and its gradient, too


def test_a_bare_loop_shows_that_the_counter_counts(bench):
    _, updated, turn = bench.bare(lanes=16)
    assert updated == (7, 0) and turn == (13, 0)


@pytest.mark.parametrize(("case", "operations", "waits"), [(0, 65, 2), (1, 165, 2), (2, 150, 4)])
def test_a_step_of_a_search(bench, case, operations, waits):
    alone, _, _ = bench.search(*bench.SEARCHES[case], lanes=64)
    assert alone[0] <= operations and alone[1] <= waits


def test_waits_that_no_operation_shows_are_counted(bench):
    values = torch.arange(3)
    assert bench.count(values.tolist) == (1, 1)
    assert bench.count(lambda: values[values > 0])[1] == 1
    assert bench.count(lambda: bool(values.any()))[1] == 1
    assert bench.count(lambda: values.view(3, 1).expand(3, 2)) == (0, 0)


def test_what_was_projected_and_then_written_is_looked_at_again():
    env = AttackEnv(toy.task("field"), lanes=3)
    env.reset(seed=0)
    p = env.threat.project(env.threat.random(0))
    assert env.threat.projected(p) and not env.threat.projected(p.clone())
    p[1] = torch.nan
    obs, *_ = env.step(p.requires_grad_())
    assert obs["evaluated"].tolist() == [True, False, True] and not obs["valid"][1]
    assert evaluator(env).book.broken.sum() == 0


def test_what_a_client_writes_reaches_no_meter():
    env = AttackEnv(toy.task("field", queries=50), lanes=3)
    env.reset(seed=0)
    p = env.threat.project(0.1 * env.threat.random(0)).requires_grad_()
    obs, _, terminated, truncated, _ = env.step(p)
    left, live = env.asks_left.tolist(), env.live.tolist()
    for value in (*obs.values(), terminated, truncated, env.live):
        value.detach().zero_()
    assert env.asks_left.tolist() == left and env.live.tolist() == live and env.done is (not any(live))
