"""Messages that are well formed and mean harm: each is refused, charged as it should be, and costs nothing else."""

import numpy as np
import pytest
from boundary_pair import raw_session, referee

from advgym import BudgetExhausted, Malformed, make_task
from advgym.core.env import AttackEnv
from advgym.judge.evaluator import evaluator
from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary.wire import Broken


def env_of(task="image/digits-linf", knowledge="score", **options):
    env = AttackEnv(make_task(task, knowledge=knowledge, **options), assigned=range(3))
    env.reset(seed=0)
    return env


def ask(hostile, message, arrays=()):
    hostile.send(message, [np.asarray(a) for a in arrays])
    return hostile.recv()


FIELD = np.zeros((3, 1, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("message", "arrays", "why"),
    [
        (m.Step(0), [FIELD[:2]], "float32"),
        (m.Step(0), [FIELD.astype(np.int64)], "float32"),
        (m.Step(0), [], "1 arrays"),
        (m.Step(0), [FIELD, FIELD], "1 arrays"),
        (m.Step(7), [FIELD], "no view"),
        (m.Step(-1), [FIELD], "no view"),
        (m.Step(0, True), [FIELD], "white-box"),
        (m.Back(0, ["scores"]), [FIELD], "gone"),
        (m.Rank(0, 1), [FIELD], "white-box"),
        (m.Append(0), [np.zeros((3, 1), np.int64)], "closed"),
        (m.Ask(0, True), [FIELD, np.arange(3)], "white-box"),
        (m.Ask(0), [FIELD, np.array([0, 1, 9])], "lanes are"),
        (m.Ask(0), [FIELD * np.nan, np.arange(3)], "finite"),
        (m.Ask(0), [FIELD, np.arange(2)], "need 3 lanes"),
        (m.View(None), [np.array([5])], "at least one lane"),
        (m.View(None), [np.array([0.5])], "int64"),
        (m.View(10**9), [np.array([0])], "proposals"),
    ],
)
def test_a_wrong_wish_is_refused_and_costs_nothing(message, arrays, why):
    env = env_of()
    with raw_session(env) as (hostile, outcome, _):
        reply, _ = ask(hostile, message, arrays)
        assert isinstance(reply, m.Refusal) and why in reply.text
        assert evaluator(env).book.queries_left.tolist() == [500] * 3
        reply, _ = ask(hostile, m.Step(0), [FIELD])  # the connection goes on
        assert isinstance(reply, m.Answer)
        assert not outcome


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_input_is_charged_and_earns_nothing(value):
    env = env_of()
    with raw_session(env) as (hostile, _, _):
        reply, arrays = ask(hostile, m.Step(0), [FIELD + value])
        got = dict(zip(reply.names, arrays, strict=True))
    assert not got["evaluated"].any() and not got["success"].any() and not got["valid"].any()
    assert evaluator(env).book.queries_left.tolist() == [499] * 3 and not evaluator(env).book.held.any()


def test_nothing_is_answered_beyond_the_budget():
    env = env_of(queries=4)
    with raw_session(env) as (hostile, _, _):
        for _ in range(3):
            ask(hostile, m.Step(0), [FIELD + 0.01 * np.random.default_rng(1).standard_normal(FIELD.shape, np.float32)])
        left = int(evaluator(env).book.queries_left.max())
        reply, _ = ask(hostile, m.Ask(0), [np.repeat(FIELD[:1], left + 1, 0), np.zeros(left + 1, np.int64)])
        assert isinstance(reply, m.Refusal) and reply.kind == "exhausted"
        assert int(evaluator(env).book.queries_left.max()) == left


def test_backwards_of_infinities_are_refused_and_of_much_are_charged():
    env = env_of(knowledge="white-box", queries=20, gradients=2)
    with raw_session(env) as (hostile, _, _):
        reply, arrays = ask(hostile, m.Step(0, True), [FIELD])
        got = dict(zip(reply.names, arrays, strict=True))
        bad, _ = ask(hostile, m.Back(reply.step, ["scores"]), [got["scores"] * np.inf])
        assert isinstance(bad, m.Refusal) and "finite" in bad.text
        wrong, _ = ask(hostile, m.Back(reply.step, ["scores"]), [got["scores"][:, :2].copy()])
        assert isinstance(wrong, m.Refusal)
        grads = []
        for _ in range(4):
            back, arrays = ask(hostile, m.Back(reply.step, ["surrogate"]), [np.ones(3, np.float32)])
            grads.append(dict(zip(back.names, arrays, strict=True))["p"])
        assert grads[0].any() and grads[1].any() and not grads[2].any() and not grads[3].any()
    assert evaluator(env).book.gradients_left.tolist() == [0, 0, 0]


def test_only_the_last_graphs_are_kept():
    env = env_of(knowledge="white-box", queries=100)
    with raw_session(env) as (hostile, _, _):
        steps = [ask(hostile, m.Step(0, True), [FIELD])[0].step for _ in range(20)]
        reply, _ = ask(hostile, m.Back(steps[0], ["surrogate"]), [np.ones(3, np.float32)])
        assert isinstance(reply, m.Refusal) and "gone" in reply.text
        reply, _ = ask(hostile, m.Back(steps[-1], ["surrogate"]), [np.ones(3, np.float32)])
        assert isinstance(reply, m.Answer)


def test_endless_free_messages_end_the_session():
    env = env_of(queries=1)
    with raw_session(env) as (hostile, outcome, thread):
        hostile.sock.settimeout(60)
        with pytest.raises(Exception, match=r"gone|closed"):
            for _ in range(30_000):
                ask(hostile, m.Append(0), [np.zeros((3, 1), np.int64)])
        thread.join(30)
    assert isinstance(outcome[0], Broken) and "messages" in str(outcome[0])


def test_labels_and_other_secrets_are_nowhere_in_the_agents_world():
    import gc

    from advgym.core.batch import Batch

    env, seen = env_of(), []

    def look(remote, *, seed):
        remote.reset(seed=seed)
        seen.append(remote)

    referee(env, look)
    remote = seen[0]
    assert "labels" not in remote._batch.__dict__ and evaluator(env).batch.labels.any()
    assert not hasattr(remote._task, "victim") and not hasattr(remote._oracle.model, "model")
    mine = [b for b in gc.get_objects() if isinstance(b, Batch) and b is not evaluator(env).batch]
    assert not any("labels" in b.__dict__ for b in mine if b is remote._batch)


def test_the_agents_errors_are_the_contracts():
    env, seen = env_of(queries=2), []

    def wrong(remote, *, seed):
        for call in (lambda: remote.step(np.zeros((2, 2))), lambda: remote.victim(FIELD[[0] * 3], [0, 0, 0])):
            try:
                call()
            except Exception as error:
                seen.append(error)

    referee(env, wrong)
    assert isinstance(seen[0], Malformed) and isinstance(seen[1], BudgetExhausted)


def test_a_decision_environment_tells_no_score():
    env, seen = env_of(knowledge="decision"), []

    def look(remote, *, seed):
        obs, _ = remote.reset()
        obs2, *_ = remote.step(remote.threat.random(1))
        seen.extend([obs, obs2])
        seen.append(remote._now)

    referee(env, look)
    assert not {"scores", "objective", "surrogate"} & (set(seen[0]) | set(seen[1]))
    assert not seen[2].scores.any() and not seen[2].objective.any()


@pytest.mark.parametrize("task", ["image/digits-linf", "text/synth-wordswap"])
@pytest.mark.parametrize("proposals", [None, 4])
def test_what_an_attack_returns_crosses(task, proposals):
    """The same verdicts as in one process, whatever `proposals` is."""

    def attack(env, *, seed):
        env.reset(seed=seed)
        p = env.threat.random(seed)
        env.step(p if proposals is None else p.unsqueeze(1).repeat(1, proposals, *[1] * (p.dim() - 1)))
        return env.threat.random(seed + 1)

    made, held = make_task(task, knowledge="transfer", queries=9), []
    for remote in (True, False):
        env = AttackEnv(made, proposals=proposals, assigned=range(3))
        env.reset(seed=0)
        if remote:
            said, _, error = referee(env, attack, seed=5)
            assert isinstance(said, m.Done) and error is None
        else:
            evaluator(env).hand_in(attack(env, seed=5))
        held.append(evaluator(env).book)
    assert (held[0].held == held[1].held).all() and (held[0].used == held[1].used).all()


@pytest.mark.parametrize("value", ["text", FIELD[:2], [FIELD, FIELD], FIELD.astype(np.uint8), object()])
def test_a_malformed_return_is_malformed_and_the_last_counts(value):
    def attack(env, *, seed):
        env.reset(seed=seed)
        env.step(env.threat.random(seed))
        return value

    env = AttackEnv(make_task("image/digits-linf", knowledge="transfer", queries=9), assigned=range(3))
    env.reset(seed=0)
    with pytest.raises(Malformed):
        referee(env, attack)
    assert evaluator(env).book.used.tolist() == [1] * 3 and bool(evaluator(env).book.held.any())
