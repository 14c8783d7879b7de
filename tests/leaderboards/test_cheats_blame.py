"""Who is to blame, and who pays: decided where a failure is raised, and by what a request paid for."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest
import strange_victims  # noqa: F401
from boundary_pair import raw_session
from cheating import BOARD, HONEYPOT, SOFT, WHITE, Place, board_of, each, place  # noqa: F401

from advgym import make_task
from advgym.core.env import AttackEnv
from advgym.errors import Unusable
from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary.terms import Unanswered
from advgym.leaderboards.rules.board_tables import Quota
from advgym.leaderboards.runs.fresh import same_from_nothing
from advgym.leaderboards.runs.stage import Stage
from advgym.leaderboards.store import jobs
from advgym.leaderboards.store.db import open_store
from advgym.leaderboards.store.submissions import spent, status, submit

LONG = HONEYPOT.replace("queries = 12", "queries = 5000")
GRAPH = WHITE.replace("\nconstraint = { eps = 1e-4, lattice = 0 }", "").replace(
    "image/digits-linf", "graph/sbm-feature"
)


# -- blame -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "dtype", "why"),
    [("graph/sbm-feature", np.float32, "rank without weights"), ("graph/sbm-edge", np.float32, "rank without weights"),
     ("text/synth-headline", np.float64, "float32"), ("text/synth-wordswap", np.int64, "float32"),
     ("graph/sbm-global", np.int64, "float32"), ("graph/sbm-global", np.float64, "float32"),
     ("image/digits-pixel", np.float32, "rank without weights"), ("graph/sbm-global", np.bool_, "float32")],
)  # fmt: skip
def test_weights_that_cannot_be_are_refused_by_name(name: str, dtype: type, why: str) -> None:
    """Before: an internal error that gave the quota back, for ever. Nothing is charged."""
    env = AttackEnv(make_task(name), assigned=[0, 1] if "global" not in name else [0])
    env.reset(seed=0)
    p = env.threat.null().numpy()
    left = env.asks_left.tolist()
    with raw_session(env) as (hostile, outcome, _):
        hostile.send(m.Rank(0, 1, False, True), [p, np.ones(p.shape[:-1], dtype)])
        reply, _ = hostile.recv()
        assert isinstance(reply, m.Refusal) and why in reply.text, reply
        assert env.asks_left.tolist() == left
        hostile.send(m.Step(0, True, True), [p, np.ones(p.shape[:-1], dtype)])
        reply, _ = hostile.recv()
        assert isinstance(reply, m.Refusal | m.Answer) and not outcome


def test_what_a_request_raises_is_the_participants(place: Place) -> None:  # noqa: F811
    """A proposal that stops the victim; the null perturbation of the same lanes does not."""
    code = """
def attack(env, *, seed):
    env.reset(seed=seed)
    env.step(torch.full((env.num_envs, *env.shape), 0.7))
"""
    found = place.play(code, SOFT.replace("image/digits-linf", "image/grumpy"))
    assert found.failure is not None and found.failure.code == "bad-request", (found.failure, found.log)
    assert "what is this corner" in found.failure.detail


def test_what_the_null_perturbation_raises_too_is_the_platforms() -> None:
    """Asked in a fresh process, with the same exception at the same place."""
    board = board_of(SOFT.replace("image/digits-linf", "strange_victims:image/broken"))
    task = Stage(board, "dev").tasks[0].task
    samples = task.samples("test", [0, 1])
    x = samples.inputs(samples.look(samples.null()).form)
    with pytest.raises(Unusable) as caught:
        task.victim(x)
    asked = (board, "dev", None, "cpu", 0, [0, 1], 0)
    assert same_from_nothing(*asked, m.Ask(0), caught.value) is True
    assert same_from_nothing(*asked, m.Ask(0), Unusable("elsewhere")) is False


def test_an_answer_that_raises_ends_the_session_with_the_request() -> None:
    env = AttackEnv(make_task("image/grumpy", knowledge="score"), assigned=[0, 1])
    env.reset(seed=0)
    with raw_session(env) as (hostile, outcome, thread):
        hostile.send(m.Step(0), [np.ones((2, 1, 8, 8), np.float32)])
        thread.join(30)
    assert isinstance(outcome[0], Unanswered) and isinstance(outcome[0].error, Unusable)


def test_refunds_are_capped_by_team_and_day(tmp_path) -> None:
    """The platform's faults give the quota back three times a day; another team has its own three."""
    now = [1_000_000.0]
    store = open_store(tmp_path / "db.sqlite3", clock=lambda: now[0])

    def fail(team: str) -> bool:
        id = submit(store, team, "b", "dev", "attack", "x", {"name": "n"}, Quota(20, 50))
        job = jobs.claim(store, "w", 60)
        assert job is not None and job.id == id and jobs.fail(store, job, "w", "internal-error")
        said = status(store, id)
        assert said is not None and ("was given back" in said.text) == (not said.counted)
        return not said.counted

    assert [fail("red") for _ in range(5)] == [True] * jobs.REFUNDS + [False] * (5 - jobs.REFUNDS)
    assert fail("blue") and spent(store, "red", "b", "dev") == (2, 2)
    now[0] += 24 * 3600
    assert fail("red")
    store.close()


# -- work that no query pays for -------------------------------------------------------------------------------
FREE = {
    "null_proposals": """
    view = env.view(proposals=1024)
    p = torch.zeros(env.num_envs, 1024, *env.shape)
    while True:
        view.step(p)
""",
    "many_views": """
    n = 0
    while True:
        n += 1
        env.view([n % env.num_envs], proposals=1 + n % 1000).step(torch.zeros(1, 1 + n % 1000, *env.shape))
""",
    "invalid_ranks": """
    while True:
        try:
            env.rank(env.threat.null())
        except Exception:
            pass
""",
}


@each(**FREE)
def test_work_that_nothing_paid_for_runs_on_the_agents_clock(place: Place, code: str) -> None:  # noqa: F811
    """Before: 14 s of the evaluator's CPU for 1 s of the agent's, hours in a submission."""
    started = time.process_time()
    found = place.play(f"def attack(env, *, seed):\n    env.reset(seed=seed)\n{code}", LONG, wall_s=1.5)
    assert found.failure is not None and found.failure.code in ("wall-limit", "malformed"), (found.failure, found.log)
    assert time.process_time() - started < 12  # two shards, a second and a half each, and what one request takes


def test_a_shard_ends_when_all_its_lanes_are_over(place: Place) -> None:  # noqa: F811
    """Nothing is answered any more: an agent that goes on talks to itself, on its own time."""
    code = """
def attack(env, *, seed):
    env.reset(seed=seed)
    for i in range(12):
        env.step(env.threat.random(seed + i))
    said = []
    many = torch.zeros(env.num_envs, 64, *env.shape)
    for ask in (lambda: env.step(env.threat.random(1)), lambda: env.view(proposals=64).step(many),
                lambda: env.victim(env._batch.x, torch.arange(env.num_envs))):
        try:
            ask()
            said.append("answered")
        except Exception as error:
            said.append(str(error))
    tell(done=env.done, said=said)
"""
    found = place.play(code)
    assert found.entry is not None and len(found.said) == 2, (found.failure, found.log)
    for said in found.said:
        assert said["done"] and all("every lane is over" in s for s in said["said"]), said


def test_a_job_has_a_hard_limit(place: Place) -> None:  # noqa: F811
    code = """
import time
def attack(env, *, seed):
    env.reset(seed=seed)
    time.sleep(1.2)
    env.step(env.threat.random(seed))
"""
    found = place.play(code, job_s=1.0)
    assert found.failure is not None and found.failure.code == "job-limit", (found.failure, found.entry)
    assert "1 s allowed" in found.failure.detail and len(found.runs) == 1
    defense = "import time\ndef defend(victim, task):\n    time.sleep(1.2)\n    return victim\n"
    found = place.play(defense, SOFT, track="defense", job_s=1.0)
    assert found.failure is not None and found.failure.code == "job-limit", (found.failure, found.entry)


def test_honest_work_is_not_charged(place: Place) -> None:  # noqa: F811
    """A search that asks what it pays for has its clock to itself, whatever the victim takes."""
    code = """
def attack(env, *, seed):
    env.reset(seed=seed)
    view = env.view(proposals=4)
    while not env.done:
        view.step(env.threat.random(seed, 4))
"""
    found = place.play(code, SOFT, wall_s=3)
    assert found.entry is not None and all(r.reason == "" for r in found.runs), (found.failure, found.log)


def test_the_limits_are_in_the_boards_hash() -> None:
    from advgym.leaderboards.rules.board import board_hash

    board = board_of(HONEYPOT)
    longer = msgspec.structs.replace(board, limits=msgspec.structs.replace(board.limits, job_s=5.0))
    wider = msgspec.structs.replace(board, tasks=[msgspec.structs.replace(t, widen=3.0) for t in board.tasks])
    assert len({board_hash(b) for b in (board, longer, wider)}) == 3
