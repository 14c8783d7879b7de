"""The verifier believes nothing: every kind of tampering is found, an honest file passes."""

import copy

import msgspec
import pytest
import torch
import toy

from advgym import AdvgymError, DataError, Victim, attack, make_task, verify
from advgym.judge import figures, results
from advgym.judge.verdict import judge
from advgym.lib import rates

CASES = [("image/digits-linf", "pgd"), ("image/digits-pixel", "greedy")]


@pytest.fixture(scope="module")
def honest():
    return {name: attack(name, agent, episodes=24, lanes=12, queries=40) for name, agent in CASES}


@pytest.fixture(params=[c[0] for c in CASES])
def result(request, honest):
    return copy.deepcopy(honest[request.param])


def test_an_untouched_file_passes(result, tmp_path):
    assert verify(result) == []
    results.save(result, tmp_path / "r.json")
    assert verify(tmp_path / "r.json") == []


def failure(result):
    return next(s for s in result.samples if not s.success)


def winner(result):
    return next(s for s in result.samples if s.success)


def recount(result):
    """Make the rates agree with the rows, as a careful cheat would."""
    n, wins = len(result.samples), sum(s.success for s in result.samples)
    result.attacked = n
    result.success_rate, result.robust_accuracy = wins / n, (n - wins) / result.episodes
    result.success_ci = rates.wilson(wins, n)
    result.invalid_rate = sum(not s.valid for s in result.samples) / n
    result.curve = figures.success_curve(result.samples, result.threat["queries"])


def test_a_claimed_success_is_found(result):
    s = failure(result)
    s.success, s.first_success = True, min(1, s.queries)
    recount(result)
    assert any(f"sample {s.id}: success" in w for w in verify(result))


def test_another_perturbation_is_found(result):
    one, two = winner(result), failure(result)
    one.perturbation = two.perturbation
    assert any(f"sample {one.id}" in w for w in verify(result))


def test_no_perturbation_is_found(result):
    s = winner(result)
    s.perturbation = None
    assert any(f"sample {s.id}: success" in w for w in verify(result))


def test_swapped_samples_are_found(result):
    a, b = [s for s in result.samples if s.success][:2]
    a.id, b.id = b.id, a.id
    assert verify(result)


@pytest.mark.parametrize("name", ["attacked", "success_rate", "robust_accuracy", "invalid_rate", "clean_accuracy",
                                  "queries_mean", "queries_median", "gradients_mean", "distance_median"])  # fmt: skip
def test_changed_figures_are_found(result, name):
    setattr(result, name, getattr(result, name) + 1 if name == "attacked" else getattr(result, name) + 0.01)
    assert any(name in w for w in verify(result))


def test_changed_intervals_and_curves_are_found(result):
    changed = copy.deepcopy(result)
    changed.success_ci = (changed.success_ci[0] + 0.01, changed.success_ci[1])
    assert any("success_ci" in w for w in verify(changed))
    changed = copy.deepcopy(result)
    changed.curve[0] = (changed.curve[0][0], 1.0)
    assert any("curve" in w for w in verify(changed))


@pytest.mark.parametrize("name", ["objective", "distance", "valid", "before", "after", "label"])
def test_changed_rows_are_found(result, name):
    s = winner(result)
    value = getattr(s, name)
    setattr(s, name, not value if isinstance(value, bool) else value + 1)
    if name == "valid":
        recount(result)
    assert any(f"sample {s.id}: {name}" in w for w in verify(result))


@pytest.mark.parametrize("name", ["queries", "gradients"])
def test_more_than_the_budget_is_found(result, name):
    s = winner(result)
    setattr(s, name, result.threat[name] + 1)
    setattr(result, f"{name}_mean", rates.mean([getattr(s, name) for s in result.samples]))
    result.queries_median = rates.median([s.queries for s in result.samples])
    assert any(f"sample {s.id}" in w for w in verify(result))


def test_the_same_sample_twice_is_found(result):
    result.samples[1] = copy.deepcopy(result.samples[0])
    with pytest.raises(DataError, match="twice"):
        verify(result)


def test_dropped_failures_are_found(result):
    """Leaving out the samples that resisted raises every rate, and all figures still agree with the rows."""
    dropped = failure(result)
    result.samples.remove(dropped)
    recount(result)
    result.queries_mean = rates.mean([s.queries for s in result.samples])
    result.queries_median = rates.median([s.queries for s in result.samples])
    result.gradients_mean = rates.mean([s.gradients for s in result.samples])
    assert any(str(dropped.id) in w for w in verify(result))


def test_a_budget_other_than_the_options_say_is_found(result):
    result.threat["queries"] = 10**6
    assert any("queries" in w for w in verify(result))


def test_a_sample_that_the_victim_has_wrong_is_found():
    task = toy.task()
    result = attack(task, "noise", episodes=20, lanes=5)
    assert verify(result, task=task) == []
    result.samples[0].id = 10
    assert verify(result, task=task)


def test_garbage_is_a_data_error(result):
    for garbage in ({"field": "x"}, {"edits": [[999, 0]]}, [1, 2], "text", {"edits": [["a", "b"]]}):
        broken = copy.deepcopy(result)
        broken.samples[0].perturbation = garbage
        with pytest.raises(DataError):
            verify(broken)
    broken = copy.deepcopy(result)
    broken.samples[0].id = 10**9
    with pytest.raises(AdvgymError, match="no sample"):
        verify(broken)


def test_another_victim_is_found(honest):
    result = honest["image/digits-linf"]
    other = make_task("image/digits-linf", victim="digits-mlp", queries=40)
    assert any("weights" in w for w in verify(result, task=other))


def test_results_on_own_objects_need_the_task_again():
    result = attack(toy.task(), "noise", episodes=4)
    with pytest.raises(AdvgymError, match="task="):
        verify(result)


def test_targets_are_judged():
    result = attack("image/digits-linf", "pgd", episodes=12, lanes=12, queries=30, goal="targeted")
    assert verify(result) == []
    won = [s for s in result.samples if s.success]
    assert won and all(s.after == s.target for s in won)
    won[0].target = (won[0].target + 1) % 10
    assert verify(result)


def test_the_judge_agrees_with_a_plain_loop():
    task = toy.task(eps=0.5)
    ids = [i for i in range(40) if i % 10]
    batch = task.samples("test", ids)
    p = batch.random(1)
    p[0] = torch.nan
    p[1] = 0
    p[2] = 1.0 - 2 * batch.x[2].round()  # out of the ball
    found = judge(task, "test", ids, p)
    for i in range(len(ids)):
        x = batch.x[i]
        y = ((x + p[i]) * 4).round().clamp(0, 4) / 4
        inside = bool(p[i].isfinite().all()) and bool((y - x).abs().max() <= 0.5)
        before, after = toy.linear()(x), toy.linear()(y)
        ref = before.argmax()
        win = inside and bool((y != x).any()) and after.argmax() != ref
        assert found.valid[i] == inside
        assert bool(found.success[i]) == win
    assert not found.success[:3].any()


def test_the_judges_batching_does_not_matter():
    task = toy.task()
    ids = list(range(40)) * 4  # more than one chunk of 64
    batch = task.samples("test", ids)
    p = batch.random(1, keys=torch.arange(160))
    whole = judge(task, "test", ids, p)
    for i in (0, 63, 64, 159):
        one = judge(task, "test", ids[i : i + 1], p[i : i + 1])
        assert all(torch.allclose(a[i].double(), b[0].double(), atol=1e-6) for a, b in zip(whole, one, strict=True))


def test_a_randomised_victim_is_judged_by_majority():
    """Half of the draws say another class: no best-of-many makes a success of that."""

    layer = toy.linear()

    class Coin(torch.nn.Module):
        def forward(self, x, keys):
            from advgym.core.rng import uniform

            scores = layer(x)
            moved = ((x * 4).round() / 4 - x).abs().sum(1) > 9
            flip = (uniform(0, keys) < 0.3) & ~moved
            known = (x.unsqueeze(1) == toy.samples()).all(2).any(1)
            return torch.where((flip & ~known).unsqueeze(1), scores.roll(1, 1), scores)

    task = toy.task(victim=Victim(Coin(), keyed=True), knowledge="score", eps=0.25, queries=60)

    def hammer(env, *, seed=0):
        """The same harmless change until the coin falls."""
        env.reset(seed=seed)
        p = env.threat.null()
        p[:, 0] = torch.where(env.threat.apply(p)[:, 0] < 0.5, 0.25, -0.25)
        while not env.done:
            env.step(p)

    result = attack(task, hammer, episodes=20, lanes=10)
    plain = attack(toy.task(eps=0.25, knowledge="score", queries=60), hammer, episodes=20, lanes=10)
    assert {s.id for s in result.samples if s.success} <= {s.id for s in plain.samples if s.success} | {
        s.id for s in result.samples if s.objective > 0
    }
    # A coin that falls wrong in three of ten draws: the fifth of the answers that it turns end no lane.
    told = [s for s in result.samples if s.reason == "success"]
    assert result.success_rate <= plain.success_rate + 0.15 and len(told) <= 4
    denied = sum(not s.success for s in told)
    assert any(f"{denied} successes that were told are denied" in f for f in result.flags) == bool(denied)
    assert verify(result, task=task) == []
    assert msgspec.to_builtins(result)["flags"]
