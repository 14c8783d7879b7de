"""One perturbation for several members: scores, objective, price, verdict."""

import pytest
import torch
import toy

import advgym
from advgym import registry
from advgym.core.goals import BundleGoal, ClassGoal
from advgym.judge.evaluator import evaluator
from advgym.judge.play import play
from advgym.judge.verdict import judge


def test_the_objective_is_the_mean_of_the_members():
    task = toy.bundle()
    env = advgym.make(task, lanes=8, proposals=3)
    env.reset(seed=0)
    p = env.threat.random(1, 3)
    obs, *_ = env.step(p)
    batch, goal = evaluator(env).batch, ClassGoal(toy.CLASSES)
    x = batch.inputs(p.flatten(0, 1), torch.arange(8).repeat_interleave(3)).view(8, 3, toy.Shared.members, -1)
    ref = batch.labels.unsqueeze(1).expand(-1, 3, -1)
    each = goal.judge(task.victim(x.flatten(0, 2)), ref.flatten(), None)[0].view(8, 3, -1)
    live = obs["evaluated"]
    torch.testing.assert_close(obs["objective"][live], each.mean(2)[live])
    assert obs["scores"].shape == (8, 3, toy.Shared.members, toy.CLASSES)
    assert obs["output"].shape == (8, 3, toy.Shared.members)
    assert torch.equal(obs["success"], live & (each.mean(2) > 1e-6))


def test_every_member_is_a_query_and_what_is_left_bounds_the_proposals():
    env = advgym.make(toy.bundle(queries=10, least=True), lanes=4, proposals=2)
    env.reset(seed=0)
    left, first = [], env.threat.random(1, 2)
    assert env.asks_left.tolist() == [3] * 4
    while not env.done:
        obs, *_ = env.step(first)
        assert torch.equal(env.asks_left, obs["queries_left"] // 3)
        left.append((obs["queries_left"].tolist(), obs["evaluated"].sum(1).tolist()))
    assert left == [([4] * 4, [2] * 4), ([1] * 4, [1] * 4)], "one query is left, and no member of a fourth is asked"


@pytest.mark.parametrize("name", ["greedy", "first-order", "random-search", "genetic"])
def test_agents_play_bundles_and_the_verifier_agrees(name):
    task = toy.bundle(queries=60)
    entry = registry.agent(name)
    rows, error = play(task, entry, list(range(12)), "cpu", 0, "test", {})
    assert not error and all(s.queries <= 60 and s.queries % toy.Shared.members == 0 for s in rows)
    found = judge(task, "test", [s.id for s in rows], [s.perturbation for s in rows])
    assert [s.success for s in rows] == found.success.tolist()
    assert found.after.shape == (12, toy.Shared.members)
    goal = BundleGoal(ClassGoal(toy.CLASSES), toy.Shared.members)
    assert goal.describe(found.before[0]).count(",") == toy.Shared.members - 1


def test_a_randomised_victim_draws_for_each_member():
    seen = []

    def noisy(x, keys):
        seen.append(keys)
        return x[:, : toy.CLASSES]

    env = advgym.make(toy.bundle(victim=advgym.Victim(noisy, keyed=True, access="scores"), knowledge="score"), lanes=2)
    env.reset(seed=0)
    assert len(set(seen[-1].tolist())) == len(seen[-1])


def test_raw_inputs_of_a_bundle_are_its_members_side_by_side():
    env = advgym.make(toy.bundle(queries=10), lanes=3)
    env.reset(seed=0)
    members = toy.Shared.members
    x = torch.linspace(-1, 1, 2 * members * toy.SIZE).view(2 * members, toy.SIZE)
    got = env.victim(x, [2, 0])
    assert torch.allclose(got, evaluator(env).task.victim(x).view(2, members, -1))
    book = evaluator(env).book
    assert book.queries_left.tolist() == [10 - members, 10, 10 - members]


def test_under_decision_knowledge_the_share_of_turned_members_orders_failures():
    env = advgym.make(toy.bundle(queries=60, knowledge="decision"), lanes=8)
    env.reset(seed=0)
    before, best = evaluator(env).book.potential.clone(), torch.full((8,), -1.0)
    for nth in range(10):
        obs, *_ = env.step(env.threat.random(nth))
        turned = (obs["output"] != evaluator(env).episodes.ref).float().mean(1) - 1
        counts = obs["valid"] & obs["evaluated"]
        best = torch.where(counts, torch.maximum(best, turned), best)
        live = evaluator(env).book.potential <= 0
        assert torch.allclose(evaluator(env).book.potential[live], best[live])
    assert bool((evaluator(env).book.potential > before).any())


def test_a_target_is_one_for_all_members():
    goal = BundleGoal(ClassGoal(3, "targeted"), 2)
    scores = torch.tensor([[[0.0, 2.0, 1.0], [3.0, 0.0, 1.0]], [[0.0, 2.0, 1.0], [0.0, 4.0, 1.0]]])
    ref, target = torch.zeros(2, 2, dtype=torch.int64), torch.tensor([1, 1])
    each = [goal.inner.judge(scores[:, k], ref[:, k], target) for k in range(2)]
    objective, surrogate = goal.judge(scores, ref, target)
    assert torch.allclose(objective, (each[0][0] + each[1][0]) / 2)
    assert torch.allclose(surrogate, (each[0][1] + each[1][1]) / 2)
    assert goal.won(scores, ref, target).tolist() == [[True, False], [True, True]]
    said = goal.output(scores)
    assert goal.members_met(said, ref, target).tolist() == [[True, False], [True, True]]
    assert goal.met(said, ref, target).tolist() == [False, True]
    assert goal.target_shape == () and goal.parse_target(2).tolist() == 2
    assert (goal.targets(0, torch.tensor([5, 6]), ref) != ref[:, 0]).all()


@pytest.mark.parametrize("knowledge", ["white-box", "decision"])
def test_targeted_bundles_keep_the_contract(knowledge):
    def build(lanes=1, proposals=None, output="torch", autoreset="disabled", queries=30):
        task = toy.bundle(goal="targeted", knowledge=knowledge, queries=queries)
        return advgym.core.env.AttackEnv(task, lanes, proposals, output=output, autoreset=autoreset)

    advgym.check_vector_env(build)


def test_targeted_bundles_are_attacked_and_verified():
    task = toy.bundle(goal="targeted", queries=60)
    result = advgym.attack(task, "greedy", episodes=8, lanes=4)
    met = [a == s.target for s in result.samples for a in s.after]
    assert result.members_rate == sum(met) / len(met) and advgym.verify(result, task=task) == []


def test_bundles_want_inputs_of_every_member():
    env = advgym.make(toy.bundle(), lanes=2)
    env.reset(seed=0)
    with pytest.raises(advgym.errors.Malformed, match="3 inputs for each lane"):
        env.victim(torch.zeros(2, toy.SIZE), [0, 1])
