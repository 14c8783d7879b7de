"""`attack`: whole batches, resumable, crashes counted, judged by the verifier."""

import copy
import json

import msgspec
import pytest
import torch
import toy

import advgym
from advgym import AdvgymError, Malformed, Victim, attack, verify
from advgym.judge import results
from advgym.judge.evaluator import evaluator
from advgym.judge.run import Checkpoint


def rows(result):
    return [msgspec.to_builtins(s) for s in result.samples]


def same(a, b):
    x, y = (msgspec.to_builtins(r) for r in (a, b))
    for table in (x, y):
        table.pop("seconds")
    assert x == y


OPTIONS = {"episodes": 20, "lanes": 4, "queries": 20}


class Stop(KeyboardInterrupt):
    pass


def interrupt_after(batches):
    def progress(done, total, wins):
        progress.calls += 1
        if progress.calls > batches:
            raise Stop

    progress.calls = 0
    return progress


@pytest.fixture
def whole():
    return attack("image/digits-linf", "square", **OPTIONS)


def test_resuming_equals_an_uninterrupted_run(whole, tmp_path):
    out = tmp_path / "r.json"
    with pytest.raises(Stop):
        attack("image/digits-linf", "square", out=out, progress=interrupt_after(3), **OPTIONS)
    partial = tmp_path / "r.json.partial"
    assert partial.is_file() and not out.exists()
    kept = partial.read_bytes().count(b"\n") - 1
    assert kept >= 2
    asked = []
    resumed = attack(
        "image/digits-linf", "square", out=out, progress=lambda done, total, wins: asked.append(done), **OPTIONS
    )
    assert asked[0] == 4 * kept, "what was finished is not played again"
    same(resumed, whole)
    same(results.load(out), whole)
    assert not partial.exists()


def test_a_torn_last_line_is_dropped(whole, tmp_path):
    out = tmp_path / "r.json"
    with pytest.raises(Stop):
        attack("image/digits-linf", "square", out=out, progress=interrupt_after(3), **OPTIONS)
    partial = tmp_path / "r.json.partial"
    data = partial.read_bytes()
    partial.write_bytes(data[: len(data) - 30])
    same(attack("image/digits-linf", "square", out=out, **OPTIONS), whole)


@pytest.mark.parametrize("change", [{"seed": 1}, {"queries": 21}, {"lanes": 5}, {"settings": {"p_init": 0.5}},
                                    {"split": "train"}, {"defenses": ["smoothing"]}])  # fmt: skip
def test_the_partial_of_another_command_is_not_reused(change, tmp_path):
    out = tmp_path / "r.json"
    with pytest.raises(Stop):
        attack("image/digits-linf", "square", out=out, progress=interrupt_after(2), **OPTIONS)
    seen = []
    attack("image/digits-linf", "square", out=out, progress=lambda d, t, w: seen.append(d), **{**OPTIONS, **change})
    assert seen[0] == 0


@pytest.mark.parametrize("what", ["victim", "threat", "samples"])
def test_the_partial_of_another_object_is_not_reused(what, tmp_path):
    """Objects of one's own have no name to tell them apart by."""
    out = tmp_path / "r.json"
    first, second = toy.task(queries=9), toy.task(queries=9)
    if what == "victim":
        second = toy.task(queries=9, victim=Victim(toy.linear(3), name="linear"))
    if what == "threat":
        second = toy.task(queries=11)
    if what == "samples":
        second = copy.copy(first)
        second.deal = toy.task(queries=9, eps=0.25).deal
    with pytest.raises(Stop):
        attack(first, "random-search", out=out, progress=interrupt_after(2), episodes=12, lanes=3)
    seen = []
    attack(second, "random-search", out=out, progress=lambda d, t, w: seen.append(d), episodes=12, lanes=3)
    assert seen[0] == 0 or what == "samples", "samples cannot be told apart; the rest must be"


def test_a_partial_that_is_garbage_says_so(tmp_path):
    out = tmp_path / "r.json"
    with pytest.raises(Stop):
        attack("image/digits-linf", "square", out=out, progress=interrupt_after(2), **OPTIONS)
    partial = tmp_path / "r.json.partial"
    head = partial.read_bytes().split(b"\n")[0]
    partial.write_bytes(head + b"\nnot json\n")
    with pytest.raises(AdvgymError, match=r"r\.json\.partial"):
        attack("image/digits-linf", "square", out=out, **OPTIONS)


def test_no_file_no_partial(tmp_path):
    log = Checkpoint(None, "key")
    log.add([])
    log.close()
    assert log.rows == [] and not list(tmp_path.iterdir())


# -- agents that misbehave -------------------------------------------------------------------------------------------
def crash(env, *, seed=0):
    env.reset(seed=seed)
    env.step(env.threat.random(seed))
    raise ZeroDivisionError("my own bug")


def test_a_crash_is_recorded_and_counts_as_failure():
    result = attack(toy.task(eps=0.25), crash, episodes=12, lanes=4)
    noise = attack(toy.task(eps=0.25), "noise", episodes=12, lanes=4)
    assert any("ZeroDivisionError: my own bug" in f and "test_core_run.py" in f for f in result.flags)
    assert result.attacked == noise.attacked == len(result.samples)
    assert {s.reason for s in result.samples} <= {"crashed", "success"}
    assert result.success_rate == noise.success_rate, "what was found before the crash is kept"


def test_a_crash_before_the_first_reset():
    def early(env, *, seed=0):
        raise ValueError("at once")

    result = attack(toy.task(), early, episodes=6, lanes=3)
    assert result.success_rate == 0 and all(s.queries == 0 for s in result.samples)
    assert any("at once" in f for f in result.flags)


def test_a_malformed_proposal_is_the_agents_crash():
    def sloppy(env, *, seed=0):
        env.reset(seed=seed)
        env.step(env.threat.null()[:, :2])

    result = attack(toy.task(), sloppy, episodes=6, lanes=3)
    assert result.success_rate == 0 and any(Malformed.__name__ in f for f in result.flags)


def test_an_agent_that_returns_early_keeps_its_best_so_far():
    def short(env, *, seed=0):
        env.reset(seed=seed)
        for t in range(3):
            env.step(env.threat.random(t))

    result = attack(toy.task(least=True), short, episodes=12, lanes=4)
    assert 0 < result.success_rate < 1
    assert {s.reason for s in result.samples} == {"stopped"} and all(s.queries == 3 for s in result.samples)
    assert verify(result, task=toy.task(least=True)) == []


def test_an_agent_that_does_nothing_succeeds_nowhere():
    result = attack(toy.task(), lambda env, *, seed=0: None, episodes=6, lanes=3)
    assert result.success_rate == 0 and result.invalid_rate == 0 and result.queries_mean == 0


def test_budget_exhausted_ends_a_batch_quietly():
    def greedy(env, *, seed=0):
        env.reset(seed=seed)
        while True:
            env.victim(torch.rand(env.num_envs, toy.SIZE), range(env.num_envs))

    result = attack(toy.task(queries=5), greedy, episodes=6, lanes=3)
    assert all(s.queries == 5 for s in result.samples) and not any("crash" in f for f in result.flags)


def test_an_agent_chooses_neither_samples_nor_targets():
    chosen = {}

    def picky(env, *, seed=0):
        env.reset(seed=seed + 99, options={"samples": [1] * env.num_envs, "targets": [0] * env.num_envs})
        _obs, _ = env.reset(seed=12345)
        chosen[len(chosen)] = evaluator(env).batch.ids.tolist()

    def plain(env, *, seed=0):
        env.reset(seed=seed)

    task = toy.task(goal="targeted")
    a = attack(task, picky, episodes=8, lanes=4)
    b = attack(task, plain, episodes=8, lanes=4)
    assert [(s.id, s.target) for s in a.samples] == [(s.id, s.target) for s in b.samples]


def test_every_agent_plays_the_same_samples():
    a = attack(toy.task(), "noise", episodes=8, lanes=4, seed=1)
    b = attack(toy.task(), "pgd", episodes=8, lanes=3, seed=2)
    assert [s.id for s in a.samples] == [s.id for s in b.samples]


def test_wrong_commands_say_so():
    with pytest.raises(AdvgymError, match="plays edits"):
        attack("image/digits-linf", "greedy", episodes=2)
    with pytest.raises(AdvgymError, match="did you mean 'steps'"):
        attack("image/digits-linf", "pgd", settings={"step": 3})
    with pytest.raises(AdvgymError, match="episodes"):
        attack("image/digits-linf", "pgd", episodes=0)
    with pytest.raises(AdvgymError, match="gives at most"):
        attack("image/linf", "pgd", victim=Victim(lambda x: x, access="scores"), samples=[], episodes=1)


def test_flags():
    assert any("no better than the random control" in f for f in attack(
        toy.task(), lambda env, *, seed=0: None, episodes=20, lanes=10).flags)  # fmt: skip
    soft = torch.nn.Sequential(toy.linear(), torch.nn.Softmax(1))
    assert any("probabilities" in f for f in attack(toy.task(victim=Victim(soft)), "noise", episodes=4).flags)
    g = torch.Generator().manual_seed(0)
    loose = Victim(lambda x: toy.linear()(x) + 0.01 * torch.randn(len(x), 3, generator=g), access="scores")
    flags = attack(toy.task(victim=loose, knowledge="score"), "noise", episodes=4).flags
    assert any("non-deterministic" in f for f in flags)


def test_the_file_is_json_without_nan(tmp_path):
    """A verdict on a victim that answers NaN must still be a file that can be read."""
    clean, layer = toy.samples(), toy.linear()

    def brittle(x):
        known = (x.unsqueeze(1) == clean).all(2).any(1, keepdim=True)
        return torch.where(known, layer(x), torch.nan)

    task = toy.task(victim=Victim(brittle, access="gradients"), knowledge="transfer")
    out = tmp_path / "r.json"
    result = attack(task, "transfer", episodes=6, lanes=3, out=out)
    assert result.success_rate == 0
    json.loads(out.read_text(), parse_constant=lambda c: pytest.fail(f"{c} in a result file"))
    assert len(results.load(out).samples) == len(result.samples)
    assert advgym.verify(out, task=task) == []
