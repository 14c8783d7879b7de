"""Cheats on budgets, clocks, seeds and denominators: all of them are the evaluator's own."""

from __future__ import annotations

import msgspec
import pytest
from cheating import BOARD, HONEYPOT, NOISE, OPEN, QUERIES, SOFT, WHITE, Place, each, place, stage_of  # noqa: F401

from advgym.leaderboards.entries.card import folder_hash
from advgym.leaderboards.rules import commitments
from advgym.leaderboards.rules.board import board_hash

# -- row 12 ----------------------------------------------------------------------------------------------------
SPENDER = """
import threading
from advgym import AdvgymError
from advgym.errors import BudgetExhausted, Malformed
from advgym.leaderboards.boundary import messages as m
import numpy as np
answered = []
def count(obs):
    answered.append(int(obs["evaluated"].sum()))
def raw(env, rows, lanes):
    x = env.victim(torch.rand(rows, *env.shape), lanes)
    answered.append(len(x))
def tries(function):
    try:
        return function()
    except (AdvgymError, AssertionError, ValueError, KeyError, RuntimeError):
        return None
def attack(env, *, seed):
    env.reset(seed=seed)
    n = env.num_envs
    try:
        for i in range(40):
            p = env.threat.random(seed + i)
            WAY
    except BudgetExhausted:
        pass
    tell(answered=sum(answered))
"""
WAYS = {
    "plainly": "tries(lambda: count(env.step(p)[0]))",
    "many_proposals": "tries(lambda: count(env.view(None, 64).step(p[:, None] * torch.rand(n, 64, 1, 1, 1))[0]))",
    "second_reset": "env.reset(seed=i, options={'samples': [0] * n}); tries(lambda: count(env.step(p)[0]))",
    "views": "[tries(lambda: count(env.view([k]).step(p[[k]])[0])) for k in range(n)]",
    "the_same_again": "tries(lambda: count(env.step(env.threat.random(seed))[0]))",
    "own_meters": """
            env._book.queries_left, env._book.live = torch.full((n,), 10**6), torch.ones(n, dtype=torch.bool)
            tries(lambda: count(env.step(p)[0]))""",
    "raw_inputs": "tries(lambda: raw(env, n * 2, torch.arange(n).repeat(2)))",
    "raw_to_one_lane": "tries(lambda: raw(env, n * 2, [i % n] * n * 2))",
    "forged_views": """
            env._channel.send(m.View(None), [np.array([0] * 50 + [1])])
            env._channel.recv()
            tries(lambda: count(env.step(p)[0]))""",
    "negative_lanes": "tries(lambda: raw(env, 1, [-1])); tries(lambda: count(env.step(p)[0]))",
}  # fmt: skip


@each(**WAYS)
def test_nobody_is_answered_beyond_the_budget(place: Place, code: str) -> None:  # noqa: F811
    """What came back, counted by the agent, is no more than what its rows say was spent, and that is in the budget."""
    found = place.play(SPENDER.replace("WAY", code))
    assert found.entry is not None, (found.failure, found.log)
    assert sum(s["answered"] for s in found.said) == sum(s.queries for s in found.samples) > 0
    assert all(0 < s.queries <= QUERIES for s in found.samples)


def test_meters_are_exact(place: Place) -> None:  # noqa: F811
    """Lane k asks k + 1 times: every way to ask is one query a row."""
    code = """
def attack(env, *, seed):
    env.reset(seed=seed)
    for k in range(env.num_envs):
        for i in range(k + 1):
            env.view([k]).step(env.threat.random(seed + i)[[k]])
    env.victim(torch.rand(env.num_envs, *env.shape), torch.arange(env.num_envs))
    env.step(torch.zeros(env.num_envs, *env.shape))          # the clean input is known and free
"""
    found = place.play(code)
    assert [s.queries for s in found.samples] == [2, 3, 4] * 2, found.log


GRADIENTS = """
import threading
from advgym.leaderboards.boundary import messages as m
def attack(env, *, seed):
    env.reset(seed=seed)
    p = env.threat.random(seed).requires_grad_()
    obs, *_ = env.step(p)
    got = 0
    for i in range(12):
        g = torch.autograd.grad(obs["scores" if i % 2 else "surrogate"].sum(), p, retain_graph=True)[0]
        got += int((g.flatten(1) != 0).any(1).sum())
        env._book.gradients_left = torch.full((env.num_envs,), 99)
    tell(got=got)
"""


def test_gradients_are_counted_for_every_backward(place: Place) -> None:  # noqa: F811
    found = place.play(GRADIENTS, WHITE)
    assert found.entry is not None, (found.failure, found.log)
    assert [s.gradients for s in found.samples] == [4] * 6
    assert sum(s["got"] for s in found.said) <= 4 * 6


def test_a_crash_refunds_nothing_and_is_not_tried_again(place: Place) -> None:  # noqa: F811
    """The lanes that were not over count as failed, with what they spent; the others keep what they had."""
    code = """
def attack(env, *, seed):
    env.reset(seed=seed)
    for i in range(5):
        if not env.done:
            env.step(env.threat.random(seed + i))
    raise ValueError("again, please")
"""
    found, plain = place.play(code, SOFT), place.play(NOISE, SOFT)
    assert found.gain <= plain.gain
    for s in found.samples:
        assert s.queries <= 5
        assert s.success or s.reason == "crashed"
    if found.entry is not None:
        assert "shards failed: crashed" in found.entry.flags[-1]


# -- row 13 ----------------------------------------------------------------------------------------------------
CLOCKS = """
import signal, time, threading
clock = time.process_time
time.time = time.monotonic = time.perf_counter = time.process_time = lambda: 0.0
for number in (signal.SIGXCPU, signal.SIGTERM, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF):
    signal.signal(number, signal.SIG_IGN)
def burn(seconds):
    until = clock() + seconds
    while clock() < until:
        sum(range(1000))
def attack(env, *, seed):
    WAY
    burn(30)
"""


@each(alone="pass",
      in_a_child="\n    if os.fork(): os.wait()",
      in_an_orphan="""
    if os.fork():
        signal.sigtimedwait({signal.SIGUSR1}, 30)
    os.setsid()
    if os.fork():
        os._exit(0)""",
      in_many_short_ones="\n    while True:\n        if os.fork() == 0: burn(0.05); os._exit(0)\n        os.wait()",
      in_threads="\n    [threading.Thread(target=burn, args=(30,)).start() for _ in range(3)]")  # fmt: skip
def test_time_is_the_evaluators(place: Place, code: str) -> None:  # noqa: F811
    """CPU seconds of the whole tree decide, whatever the submission did to its clocks and signals."""
    found = place.play(CLOCKS.replace("WAY", code), HONEYPOT.replace("samples = 6", "samples = 3"), cpu_s=0.4)
    assert found.entry is None and found.failure is not None
    assert found.failure.code in ("cpu-limit", "exited"), (found.failure, found.log)
    assert found.runs[0].cpu_s >= 0.35


def test_work_outside_a_turn_does_not_happen(place: Place) -> None:  # noqa: F811
    """A helper that is left behind to think on is dead when the next turn starts; waiting is counted by the wall."""
    code = """
import time
def attack(env, *, seed):
    tell(there=[n for n in os.listdir(".") if n.startswith("thought")])
    if os.fork() == 0:
        os.setsid()
        for i in range(5000):
            open(f"thought-{i}", "w").close()
            time.sleep(0.01)
        os._exit(0)
    while not (count := len([n for n in os.listdir(".") if n.startswith("thought")])):
        time.sleep(0.01)
    tell(works=count > 0)
"""
    found = place.play(code)
    assert found.entry is not None and found.gain == 0, found.log
    assert found.said == [{"there": []}, {"works": True}] * 2
    lazy = place.play("import time\ndef attack(env, *, seed):\n    time.sleep(600)\n", wall_s=0.5)
    assert lazy.failure is not None and lazy.failure.code == "wall-limit"
    assert lazy.runs[0].cpu_s < 5


# -- rows 16 and 19 --------------------------------------------------------------------------------------------
SEEDED = """
def attack(env, *, seed):
    obs, _ = env.reset(seed=12345, options={"samples": [0] * env.num_envs})
    tell(seed=seed, ids=env._batch.ids.tolist(), draw=float(torch.rand(1)))
"""


def test_seeds_follow_from_the_secret_and_the_files(place: Place) -> None:  # noqa: F811
    """They are drawn after the upload, differ for the smallest change, and no reset moves the dealing."""
    text = SOFT.replace('source = "split:test"', 'source = "split:test"\nseeds = 2')
    stage = stage_of(text)
    secret = commitments.public_secret("own", "dev", board_hash(stage.board))
    seen, ids = [], []
    for extra in ("", "\n# lucky\n"):
        folder = place.write(SEEDED + extra)
        found = place.play(folder, text)
        assert found.entry is not None, found.log
        want = commitments.run_seeds(secret, folder_hash(folder), 2)
        assert found.entry.run_seeds == want
        assert [s["seed"] for s in found.said] == [want[0]] * 2 + [want[1]] * 2
        seen += want
        ids.append([i for s in found.said for i in s["ids"]])
    assert len(set(seen)) == 4
    assert ids[0] == ids[1] and len(set(ids[0])) == 6  # two runs of the same six samples, as the evaluator dealt them


def test_the_mean_over_seeds_counts_not_the_lucky_one(place: Place) -> None:  # noqa: F811
    text = SOFT.replace('source = "split:test"', 'source = "split:test"\nseeds = 2')
    lucky = "def attack(env, *, seed):\n    if seed % 2 == LUCKY:\n        play(env, seed=seed)\n"
    lucky += NOISE.replace("attack", "play")
    for parity in (0, 1):
        found = place.play(lucky.replace("LUCKY", str(parity)), text)
        assert found.entry is not None
        one, two = found.entry.tasks[0].seeds
        assert found.gain == pytest.approx((one + two) / 2)
        for value, seed in zip((one, two), found.entry.run_seeds, strict=True):
            assert value == 0 or seed % 2 == parity


def test_the_same_submission_gives_the_same_entry(place: Place) -> None:  # noqa: F811
    """Moves, scores and rows, to the bit: there is nothing to gain by handing in again."""
    folder = place.write(NOISE)
    one, two = place.play(folder, OPEN), place.play(folder, OPEN)
    assert one.entry is not None and two.entry is not None
    assert one.entry.id == two.entry.id and one.entry.transcript == two.entry.transcript


# -- row 20 ----------------------------------------------------------------------------------------------------
@each(
    the_easy_one_alone="env = env.view([0]); NOISE(env, seed=seed)",
    leave_after_the_first="\n    NOISE(env.view([0]), seed=seed)\n    os._exit(0)",
    break_the_rest="\n    NOISE(env.view([0]), seed=seed)\n    env._channel.sock.sendall(b'x' * 99)",
    drop_a_shard="\n    if env._batch.ids[0] % 2: os._exit(0)\n    NOISE(env, seed=seed)",
)
def test_leaving_samples_out_is_failing_on_them(place: Place, code: str) -> None:  # noqa: F811
    """The denominator is every sample assigned that the victim has right, whatever is handed in."""
    agent = NOISE.replace("def attack", "def NOISE")
    agent += f"def attack(env, *, seed):\n    env.reset(seed=seed)\n    {code}\n"
    found, plain = place.play(agent, SOFT), place.play(NOISE, SOFT)
    assert plain.entry is not None
    assert found.gain <= plain.gain
    if found.entry is not None:
        score = found.entry.tasks[0]
        assert score.attacked == plain.entry.tasks[0].attacked == len(found.samples)
        assert score.success.value == sum(s.success for s in found.samples) / score.attacked
        assert 0 <= found.entry.headline.low <= found.entry.headline.value <= 1


def test_a_task_left_out_counts_nought(place: Place) -> None:  # noqa: F811
    """A card that covers one of two tasks halves its mean; it does not raise it."""
    more = '[[tasks]]\nid = "image/digits-pixel"\nknowledge = "score"\nqueries = 12'
    text = BOARD.format(knowledge="score", more='constraint = { eps = "6/16" }\n' + more)
    folder = place.write(NOISE)
    (folder / "card.toml").write_text((folder / "card.toml").read_text() + 'kind = "field"\n')
    found = place.play(folder, text)
    assert found.entry is not None
    assert [t.status for t in found.entry.tasks] == ["scored", "not attempted"]
    assert found.entry.headline.value == pytest.approx(found.entry.tasks[0].success.value / 2)
    assert msgspec.structs.asdict(found.entry.tasks[1])["success"].value == 0
