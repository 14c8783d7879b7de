"""Universal changes and patches: what a member sees, what the verdict takes; goals beyond the best class."""

import pytest
import torch

import advgym
from advgym import AdvgymError, make_task
from advgym.core.goals import ClassGoal
from advgym.envs.image.perturb.patch import Draws, PatchBatch, posed
from advgym.judge.verdict import judge

torch.set_num_threads(1)
STILL = Draws(0.0, 0.0, 0.0, 0.0)


def images(n, side=9):
    return (torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(0)) * 255).round() / 255


def patched(draws=STILL, members=2, side=3):
    x = images(2).unsqueeze(1).repeat_interleave(members, 1)
    return PatchBatch(torch.arange(2), torch.zeros(2, members).long(), x, side=side, draws=draws, levels=255)


def test_a_patch_that_nothing_moves_lies_in_the_middle():
    b = patched()
    theta = b.random(0)
    theta[:, 1] = 0
    y = b.inputs(theta).view(2, 2, 1, 9, 9)
    texture = ((theta[:, 0] + 0.5) * 255).round() / 255
    torch.testing.assert_close(y[:, 0, 0, 3:6, 3:6], texture, atol=1 / 255, rtol=0)
    outside = torch.ones(9, 9, dtype=torch.bool)
    outside[3:6, 3:6] = False
    assert torch.equal(y[..., outside], b.x[..., outside])
    theta[:, 1] = 0.5  # all the way down and to the right
    torch.testing.assert_close(b.inputs(theta).view(2, 2, 1, 9, 9)[:, 0, 0, 6:, 6:], texture, atol=1 / 255, rtol=0)


def test_poses_are_keyed_and_within_their_ranges():
    keys = torch.arange(64)
    pose = posed(keys, 5, Draws(0.5, 30.0, 0.2, 0.1))
    assert torch.equal(pose[[3]], posed(keys[[3]], 5, Draws(0.5, 30.0, 0.2, 0.1)))
    low, high = pose.amin((0, 1)), pose.amax((0, 1))
    assert (low[:2] >= -0.5).all() and (high[:2] <= 0.5).all() and (high[:2] > 0.4).all()
    assert 0.8 <= low[3] < 0.85 < 1.15 < high[3] <= 1.2 and 0.9 <= low[4] < high[4] <= 1.1
    assert abs(float(high[2]) - 0.52) < 0.04


def test_the_verdict_draws_places_anew():
    b = patched(Draws())
    fresh = b.fresh(torch.tensor([77, 78]))
    assert torch.equal(fresh.x, b.x) and not torch.equal(fresh.pose, b.pose)
    assert torch.equal(fresh.pose, b.fresh(torch.tensor([77, 78])).pose)
    assert (b.distance(b.random(0)) == 1 / 9).all() and (b.distance(b.null()) == 0).all()
    wide = b.widened(4.0)
    assert wide.side == 6 and wide.check(wide.random(0)).all() and torch.allclose(wide.reach, torch.tensor(4 / 9))


def test_universal_changes_are_judged_on_images_that_nobody_was_asked_about():
    made = make_task("image/digits-universal", images=10)
    b = made.samples("test", [0, 2])
    fresh = made.judged("test", [0, 2])
    plain = make_task("image/digits-linf")
    assert torch.equal(b.x[1], plain.samples("train", list(range(20, 30))).x)
    assert torch.equal(fresh.x[1], plain.samples("test", list(range(20, 30))).x)
    assert torch.equal(fresh.labels[1], plain.samples("test", list(range(20, 30))).labels)
    found = judge(made, "test", [0, 2], b.random(0))
    assert torch.equal(found.labels[1], fresh.labels[1])
    scores = made.victim(fresh.x.flatten(0, 1)).argmax(1).view(2, 10)
    assert torch.equal(found.before, scores) and found.right.all()


def test_own_images_are_halved_where_there_is_no_train():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(81, 3))
    x = images(12)
    samples = [(i, int(net(i[None]).argmax())) for i in x]
    made = make_task("image/universal", victim=net, samples=samples, images=3)
    assert made.sizes == {"test": 2} and any("even place" in note for note in made.notes)
    b = made.samples("test", [1])
    assert torch.equal(b.x[0], x[[6, 8, 10]]) and torch.equal(made.judged("test", [1]).x[0], x[[7, 9, 11]])
    with pytest.raises(AdvgymError, match="Ask for fewer: images=6"):
        make_task("image/universal", victim=net, samples=samples, images=50)


@pytest.mark.parametrize("name", ["patch", "universal"])
def test_targets_are_one_for_all_members(name):
    options = {"draws": 3} if name == "patch" else {"images": 8}
    made = make_task(f"image/digits-{name}", goal="targeted", queries=200, **options)
    result = advgym.attack(made, "pgd", episodes=3, lanes=3, settings={"steps": 4})
    assert advgym.verify(result, task=made) == []
    for row in result.samples:
        assert isinstance(row.target, int)
    hits = [a == row.target for row in result.samples for a in row.after]
    assert result.members_rate == pytest.approx(sum(hits) / len(hits))


# -- goals ------------------------------------------------------------------------------------------------------------
def test_top_k_is_reached_when_k_classes_are_above_the_label():
    goal = ClassGoal(6, "top-3")
    scores = torch.tensor([[5.0, 6, 7, 4, 1, 0], [5.0, 6, 7, 5.5, 1, 0]], requires_grad=True)
    objective, surrogate = goal.judge(scores, torch.tensor([0, 0]), None)
    assert objective.tolist() == [-1.0, 0.5]
    surrogate.sum().backward()
    with pytest.raises(AdvgymError, match="cannot leave the best 6 of 6"):
        ClassGoal(6, "top-6")


def test_least_likely_is_the_class_of_least_clean_score():
    made = make_task("image/digits-linf", goal="least-likely")
    env = advgym.make(made, lanes=16)
    obs, _ = env.reset(seed=0)
    assert torch.equal(obs["target"], obs["scores"].argmin(1))
    result = advgym.attack(made, "pgd", episodes=8, lanes=8)
    assert advgym.verify(result, task=made) == []


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_the_least_distortion_is_wanted_in_each_norm(norm):
    """After a success a smaller one earns what it saves, and it is the one that is held."""
    eps = {"linf": "12/16", "l2": 4.0, "l1": 30.0, "l0": 40}[norm]
    made = make_task(f"image/digits-{norm}", eps=eps, least=True)
    env = advgym.make(made, lanes=8)
    env.reset(seed=0)
    held, best = env.threat.null(), torch.full((8,), torch.inf)
    for t in range(60):
        shrink = 1.0 if t < 30 else 0.93 ** (t - 30)
        p = env.threat.random(t) if t < 30 else env.threat.project(held * shrink)
        obs, *_ = env.step(p)
        won = obs["success"] & obs["valid"] & obs["evaluated"]
        best = torch.where(won, torch.minimum(best, obs["distance"]), best)
        held = obs["perturbation"]
    some = best < torch.inf
    assert some.any() and not env.done
    assert torch.allclose(env.threat.distance(held)[some], best[some], atol=1e-6)
    found = judge(made, "test", env.unwrapped._batch.ids.tolist(), held)
    assert torch.equal(found.success, some)
