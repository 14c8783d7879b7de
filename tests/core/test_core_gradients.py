"""White-box: `step` is differentiable, and every backward is metered per row."""

import pytest
import torch
import toy
from test_core_contract import opened

from advgym import AdvgymError, Victim
from advgym.judge.evaluator import evaluator


def bare(env, delta, name):
    """The same quantity by hand on the victim."""
    x = evaluator(env).batch.x + delta
    y = x + ((x * 4).round().clamp(0, 4) / 4 - x).detach()
    scores = toy.linear()(y)
    ref = evaluator(env).episodes.ref
    if name == "surrogate":
        return torch.nn.functional.cross_entropy(scores, ref, reduction="sum")
    if name == "objective":
        own = scores.gather(1, ref.unsqueeze(1)).squeeze(1)
        return (scores.scatter(1, ref.unsqueeze(1), -torch.inf).amax(1) - own).sum()
    return (scores * torch.arange(3.0)).sum()


@pytest.mark.parametrize("name", ["surrogate", "objective", "scores"])
@pytest.mark.parametrize("proposals", [None, 3])
def test_gradients_equal_a_bare_autograd_loop(name, proposals):
    env, _, _ = opened(proposals=proposals)
    p = env.threat.random(0, proposals)
    p = p.requires_grad_()
    obs, *_ = env.step(p)
    value = (obs["scores"] * torch.arange(3.0)).sum() if name == "scores" else obs[name].sum()
    (g,) = torch.autograd.grad(value, p)
    rows = [p.detach()] if proposals is None else [p.detach()[:, j] for j in range(proposals)]
    found = [g] if proposals is None else [g[:, j] for j in range(proposals)]
    for row, seen in zip(rows, found, strict=True):
        q = row.clone().requires_grad_()
        (want,) = torch.autograd.grad(bare(env, q, name), q)
        assert torch.allclose(seen, want, atol=1e-6)


def test_obs_backward_fills_the_leaf():
    env, _, _ = opened()
    p = env.threat.random(0).requires_grad_()
    obs, *_ = env.step(p)
    obs["surrogate"].sum().backward()
    assert p.grad is not None and (p.grad != 0).any()


def left(env):
    return evaluator(env).book.gradients_left.tolist()


def test_a_backward_costs_one_gradient_per_sample():
    env, _, _ = opened()
    p = env.threat.random(0).requires_grad_()
    obs, *_ = env.step(p)
    assert left(env) == [20] * 4, "a forward costs no gradient"
    torch.autograd.grad(obs["surrogate"].sum(), p)
    assert left(env) == [19] * 4
    assert env.step(env.threat.null())[0]["gradients_left"].tolist() == [19] * 4


def test_fgsm_costs_one_query_and_one_gradient():
    env, _, _ = opened()
    p = env.threat.null().requires_grad_()
    obs, *_ = env.step(p)
    torch.autograd.grad(obs["surrogate"].sum(), p)
    assert obs["queries_left"].tolist() == [19] * 4 and left(env) == [19] * 4


def test_a_second_backward_costs_again():
    env, _, _ = opened()
    p = env.threat.random(0).requires_grad_()
    obs, *_ = env.step(p)
    torch.autograd.grad(obs["surrogate"].sum(), p, retain_graph=True)
    torch.autograd.grad(obs["objective"].sum(), p, retain_graph=True)
    torch.autograd.grad(obs["surrogate"].sum() + obs["objective"].sum(), p)  # one backward, whatever its loss
    assert left(env) == [17] * 4


def test_a_partial_loss_charges_only_its_rows():
    env, _, _ = opened(proposals=3)
    p = env.threat.random(0, 3).requires_grad_()
    obs, *_ = env.step(p)
    weight = torch.tensor([[1.0, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0]])
    (g,) = torch.autograd.grad((obs["surrogate"] * weight).sum(), p)
    assert left(env) == [19, 18, 17, 20]
    assert ((g != 0).any(2) == (weight != 0)).all()


def test_gradients_beyond_the_budget_are_zero():
    env, _, _ = opened(proposals=3, gradients=2)
    p = env.threat.random(0, 3).requires_grad_()
    obs, *_ = env.step(p)
    (g,) = torch.autograd.grad(obs["surrogate"].sum(), p, retain_graph=True)
    assert left(env) == [0] * 4
    assert (g[:, :2] != 0).any(2).all() and (g[:, 2] == 0).all()
    (g,) = torch.autograd.grad(obs["surrogate"].sum(), p)
    assert (g == 0).all() and left(env) == [0] * 4
    env, _, _ = opened(gradients=1)
    for expected in (True, False):
        p = env.threat.random(0).requires_grad_()
        obs, *_ = env.step(p)
        (g,) = torch.autograd.grad(obs["surrogate"].sum(), p)
        assert bool((g != 0).any()) == expected


def test_rows_that_are_not_evaluated_have_zero_gradient():
    env, _, _ = opened()
    p = env.threat.random(0)
    p[1] = torch.nan
    p.requires_grad_()
    obs, *_ = env.step(p)
    (g,) = torch.autograd.grad(obs["surrogate"].sum(), p)
    assert (g[1] == 0).all() and (g[0] != 0).any()
    assert left(env) == [19, 20, 19, 19]


def test_a_backward_through_nothing_evaluated_gives_zeros():
    env, _, _ = opened()
    p = torch.full((4, toy.SIZE), torch.nan, requires_grad=True)
    obs, *_ = env.step(p)
    (g,) = torch.autograd.grad(obs["surrogate"].sum(), p)
    assert (g == 0).all() and left(env) == [20] * 4


def test_finished_lanes_cost_no_gradient():
    env = opened(lanes=2)[0]
    env.reset(options={"samples": [10, 1]})  # the first arrives finished
    p = env.threat.random(0).requires_grad_()
    obs, *_ = env.step(p)
    (g,) = torch.autograd.grad(obs["surrogate"].sum(), p)
    assert left(env) == [20, 19] and (g[0] == 0).all()


def test_without_requires_grad_there_is_no_graph():
    env, _, _ = opened()
    obs, reward, *_ = env.step(env.threat.random(0))
    assert not any(v.requires_grad for v in obs.values()) and not reward.requires_grad
    p = env.threat.random(1).requires_grad_()
    obs, reward, *_ = env.step(p)
    assert not reward.requires_grad
    assert {k for k, v in obs.items() if v.requires_grad} == {"scores", "objective", "surrogate"}


def test_a_victim_that_has_no_gradient_says_so():
    env, _, _ = opened(victim=Victim(lambda x: toy.linear()(x).detach(), access="gradients", name="cut"))
    with pytest.raises(AdvgymError, match="cut"):
        env.step(env.threat.random(0).requires_grad_())


# -- relaxed edits -----------------------------------------------------------------------------------------------
def test_relaxed_edits_are_differentiable_and_never_count():
    env, _, _ = opened("edits")
    p = env.threat.random(0)
    w = torch.full((4, env.shape[0]), 0.5, requires_grad=True)
    obs, reward, *_ = env.step((p, w))
    assert obs["evaluated"].all() and not obs["valid"].any() and (reward == 0).all()
    assert (obs["queries_left"] == 19).all()
    assert torch.equal(obs["perturbation"], env.threat.null())
    (g,) = torch.autograd.grad(obs["surrogate"].sum(), w)
    used = p[..., 0] >= 0
    assert (g[~used] == 0).all() and (g[used] != 0).any()
    assert left(env) == [19] * 4


def test_relaxed_answers_interpolate():
    env, first, _ = opened("edits")
    p = env.threat.random(0)
    zero = torch.zeros(4, env.shape[0], requires_grad=True)
    one = torch.ones(4, env.shape[0], requires_grad=True)
    at_zero = env.step((p, zero))[0]
    at_one = env.step((p, one))[0]
    plain = toy.linear()(env.threat.apply(p))
    assert torch.allclose(at_zero["scores"].detach(), first["scores"], atol=1e-5)
    assert torch.allclose(at_one["scores"].detach(), plain, atol=1e-5)
    assert not at_zero["valid"].any(), "edits at weight 0 are not what was evaluated"
    assert at_one["valid"].all()


def test_weights_follow_their_edits_in_any_order():
    """The canonical form is sorted; the weights must stay with their edits."""
    env, _, _ = opened("edits", lanes=1)
    grid = env.table.mask()[0]
    a, b = (torch.tensor([s, int(grid[s].int().argmax())]) for s in (4, 1))
    p = torch.full((1, 3, 2), -1)
    p[0, 0], p[0, 1] = a, b
    w = torch.tensor([[0.25, 0.75, 0.0]], requires_grad=True)
    scores = env.step((p, w))[0]["scores"].detach()
    x = toy.samples()[evaluator(env).batch.ids].clone()
    for (s, c), weight in zip((a, b), (0.25, 0.75), strict=True):
        x[0, s] += weight * (c / 4 - x[0, s])
    assert torch.allclose(scores, toy.linear()(x), atol=1e-5)


@pytest.mark.parametrize("weight", [-0.5, 1.5, 9.0, torch.nan, torch.inf])
def test_weights_outside_zero_and_one_are_no_input(weight):
    env, _, _ = opened("edits")
    w = torch.full((4, env.shape[0]), float(weight), requires_grad=True)
    obs, reward, *_ = env.step((env.threat.random(0), w))
    assert not obs["evaluated"].any() and not obs["valid"].any() and not obs["success"].any()
    assert (obs["queries_left"] == 19).all() and (reward == 0).all()


def test_malformed_weights_raise():
    env, _, _ = opened("edits")
    p = env.threat.random(0)
    for w in (torch.ones(4, 1, requires_grad=True), torch.ones(3, env.shape[0]), [1.0] * 3):
        with pytest.raises(ValueError):
            env.step((p, w))


def test_two_lanes_as_a_list_are_not_weights():
    env, _, _ = opened("edits", lanes=2)
    p = env.threat.random(0)
    obs, *_ = env.step(p.tolist())
    assert obs["evaluated"].all()
