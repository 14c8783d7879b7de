"""Goals: the objective is above zero exactly on success; victims answer in chunks and say what is wrong."""

import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym import AdvgymError, Victim, VictimError, make, make_task
from advgym.core.goals import ClassGoal
from advgym.core.victim import as_victim, one_hot, resolve_device
from advgym.judge.evaluator import evaluator

scores = st.lists(st.floats(-50, 50, width=32), min_size=5, max_size=5)


@settings(deadline=None)
@given(row=scores, ref=st.integers(0, 4))
def test_untargeted_objective_is_positive_exactly_on_success(row, ref):
    goal = ClassGoal(5)
    s = torch.tensor([row])
    objective, surrogate = goal.judge(s, torch.tensor([ref]), None)
    best = max(v for i, v in enumerate(row) if i != ref)
    assert (objective.item() > 0) == (best > row[ref])
    if objective.item() > 0:
        assert goal.output(s).item() != ref
    if objective.item() < 0:
        assert goal.output(s).item() == ref
    assert surrogate.item() == pytest.approx(torch.nn.functional.cross_entropy(s, torch.tensor([ref])).item(), abs=1e-4)


@settings(deadline=None)
@given(row=scores, target=st.integers(0, 4))
def test_targeted_objective_is_positive_exactly_on_success(row, target):
    goal = ClassGoal(5, "targeted")
    s = torch.tensor([row])
    objective, _ = goal.judge(s, torch.tensor([0]), torch.tensor([target]))
    best = max(v for i, v in enumerate(row) if i != target)
    assert (objective.item() > 0) == (row[target] > best)
    if objective.item() > 0:
        assert goal.output(s).item() == target


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_drawn_targets_are_other_classes_and_all_of_them(seed):
    goal = ClassGoal(4, "targeted")
    ref = torch.arange(200) % 4
    target = goal.targets(seed, torch.arange(200), ref)
    assert (target != ref).all() and set(target.tolist()) == {0, 1, 2, 3}


def test_surrogates_follow_the_goal():
    """Climbing the surrogate climbs the objective, for both goals."""
    for name in ("untargeted", "targeted"):
        goal = ClassGoal(3, name)
        s = torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)
        ref, target = torch.tensor([0]), torch.tensor([1])
        before, surrogate = goal.judge(s, ref, target)
        (g,) = torch.autograd.grad(surrogate.sum(), s)
        after, _ = goal.judge(s + 0.1 * g, ref, target)
        assert after > before


@pytest.mark.parametrize("value", [3, -1, 99, "x", 1.5, [0, 1], None])
def test_parse_target_refuses_what_is_no_class(value):
    with pytest.raises((AdvgymError, ValueError)):
        ClassGoal(3, "targeted").parse_target(value)


def test_parse_target_takes_classes():
    goal = ClassGoal(3, "targeted")
    for value in (2, "2", torch.tensor(2), 2.0):
        assert goal.parse_target(value).item() == 2


# -- victims ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("chunk", [0, 1, 3, 7, 100])
def test_chunks_answer_the_same(chunk):
    x = toy.samples()
    whole = Victim(toy.linear())(x)
    assert torch.allclose(Victim(toy.linear(), chunk=chunk)(x), whole, atol=1e-6)


def test_chunks_are_no_larger_than_asked():
    sizes = []

    def spy(x):
        sizes.append(len(x))
        return torch.zeros(len(x), 3)

    Victim(spy, chunk=16)(toy.samples())
    assert max(sizes) == 16 and sum(sizes) == toy.SAMPLES


def test_chunked_keys_stay_with_their_rows():
    def model(x, keys):
        return torch.stack([keys.float(), x[:, 0], x[:, 1]], 1)

    keys = torch.arange(toy.SAMPLES)
    one = Victim(model, keyed=True)(toy.samples(), keys)
    assert torch.equal(one, Victim(model, keyed=True, chunk=7)(toy.samples(), keys))


def test_answers_of_every_sort():
    x = toy.samples()[:2]
    for answer in ([[1, 2, 3], [4, 5, 6]], torch.ones(2, 3).numpy(), torch.ones(2, 3, dtype=torch.int64)):
        assert Victim(lambda x, a=answer: a)(x).is_floating_point()
    with pytest.raises(VictimError, match="one row of scores per input"):
        Victim(lambda x: torch.zeros(3, 3))(x)
    with pytest.raises(VictimError, match="one row of scores per input"):
        Victim(lambda x: 1.0)(x)


def test_access_follows_the_model():
    assert Victim(toy.linear()).access == "gradients" and Victim(lambda x: x).access == "scores"
    with pytest.raises(ValueError, match="labels, scores, gradients"):
        Victim(lambda x: x, access="all")
    victim = Victim(toy.linear())
    assert as_victim(victim) is victim


def test_label_only_victims_play_under_decision_knowledge():
    def label(x):
        return (x.flatten(1).mean(1) > 0.5).long()

    images = [(torch.full((1, 2, 2), level), int(level > 0.5)) for level in (0.2, 0.4, 0.6, 0.8)]
    env = make("image/linf", 4, victim=Victim(label, access="labels"), samples=images, eps=0.3)
    assert env.knowledge == "decision"
    obs, _ = env.reset(seed=0)
    right = [images[i][1] for i in evaluator(env).batch.ids.tolist()]
    assert obs["output"].tolist() == right
    flip = torch.tensor([0.25, -0.25])[torch.tensor(right)].view(4, 1, 1, 1).expand(4, 1, 2, 2)
    obs, reward, *_ = env.step(flip)
    assert obs["success"].sum() == 2 and torch.equal(reward, obs["success"].float())
    assert torch.equal(one_hot([2, 0], 3), torch.tensor([[0.0, 0, 1], [1, 0, 0]]))


def test_knowledge_beyond_the_victims_access_is_refused():
    for access, knowledge in (("labels", "score"), ("labels", "white-box"), ("scores", "white-box")):
        with pytest.raises(AdvgymError, match="gives at most"):
            make_task("image/linf", victim=Victim(lambda x: x, access=access), samples=[], knowledge=knowledge)


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    for bad in ("cuda:99", "tpu", "meta", 3.5):
        with pytest.raises(AdvgymError, match="cpu"):
            resolve_device(bad)
