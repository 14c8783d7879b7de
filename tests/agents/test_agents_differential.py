"""Attacks against the same attack by hand, and against the optimum where it is known."""

import itertools

import pytest
import torch
import toy
from torch import nn

from advgym import Victim, make, registry
from advgym.judge.evaluator import evaluator


def agent(name):
    return registry.agent(name).attack


def two_class():
    """A linear victim whose margin is one linear function: the third class never comes up."""
    layer = nn.Linear(toy.SIZE, toy.CLASSES)
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(toy.CLASSES, toy.SIZE, generator=g))
        layer.weight[2] = 0
        layer.bias.copy_(torch.tensor([0.0, 0.0, -60.0]))
    return layer.requires_grad_(False)


def opened(kind, lanes=12, proposals=None, seed=0, **options):
    env = make(toy.task(kind, victim=Victim(two_class()), **options), lanes, proposals)
    env.reset(seed=seed)
    return env


def project(delta, x, eps):
    low, high = torch.maximum(-eps, -x), torch.minimum(eps, 1 - x)
    return torch.minimum(torch.maximum(delta, low), high)


@pytest.mark.parametrize("lattice", [4, None])
@pytest.mark.parametrize("random_start", [True, False])
def test_pgd_is_a_plain_loop_bit_for_bit(lattice, random_start):
    steps, size = 12, 0.05
    task = toy.task("field", lattice=lattice, least=True, queries=100)
    env = make(task, 10)
    found = agent("pgd")(env, steps=steps, step_size=size, random_start=random_start, seed=4)
    x, layer = toy.samples()[evaluator(env).batch.ids], toy.linear()
    ref = layer(x).argmax(1)
    eps = torch.full((10, 1), 0.5)
    delta = env.threat.random(4) if random_start else torch.zeros_like(x)
    for _ in range(steps):
        y = x + delta
        y = (y * lattice).round().clamp(0, lattice) / lattice if lattice else y.clamp(0, 1)
        y = y.requires_grad_()
        (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(layer(y), ref, reduction="sum"), y)
        delta = project(delta + size * eps * g.sign(), x, eps)
    assert torch.equal(found.detach(), delta)


def test_fgsm_is_one_step_of_the_full_radius():
    env = make(toy.task("field", least=True), 10)
    found = agent("fgsm")(env, seed=0)
    x, layer = toy.samples()[evaluator(env).batch.ids].requires_grad_(), toy.linear()
    ref = layer(x).argmax(1)
    (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(layer(x), ref, reduction="sum"), x)
    assert torch.equal(found.detach(), project(0.5 * g.sign(), x.detach(), torch.tensor(0.5)))
    assert (
        evaluator(env).book.queries_left.tolist() == [18] * 10
        and evaluator(env).book.gradients_left.tolist() == [19] * 10
    )


def test_bim_is_pgd_from_the_clean_sample():
    one, two = (make(toy.task("field", least=True), 10) for _ in range(2))
    a = agent("bim")(one, steps=7, step_size=0.2, seed=0)
    b = agent("pgd")(two, steps=7, step_size=0.2, random_start=False, seed=0)
    assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["pgd", "bim", "fgsm"])
def test_gradient_attacks_are_optimal_on_a_linear_victim(name):
    """On a linear margin the corner of the ball is the optimum; one signed step of full length reaches it."""
    env = opened("field", lattice=None, least=True, queries=100, gradients=100)
    delta = agent(name)(env, seed=0).detach()
    x, layer = toy.samples()[evaluator(env).batch.ids], two_class()
    ref = layer(x)[:, :2].argmax(1)
    w = layer.weight[1 - ref] - layer.weight[ref]
    optimum = project(0.5 * w.sign(), x, torch.tensor(0.5))
    assert torch.allclose((w * delta).sum(1), (w * optimum).sum(1), atol=1e-4)


def objective(env, p):
    scores = two_class()(evaluator(env).batch.inputs(evaluator(env).batch.look(p).form))
    ref = evaluator(env).episodes.ref.unsqueeze(1)
    return scores.scatter(1, ref, -torch.inf).amax(1) - scores.gather(1, ref).squeeze(1)


def test_first_order_is_the_best_single_edit_on_a_linear_victim():
    env = opened("edits", limit=1, least=True, queries=100, proposals=8)
    found = agent("first-order")(env, seed=0)
    best = torch.full((12,), -torch.inf)
    grid = env.table.mask()
    for s, c in itertools.product(range(toy.SIZE), range(toy.LEVELS)):
        p = env.threat.null()
        p[:, 0] = torch.tensor([s, c])
        best = torch.where(grid[:, s, c], torch.maximum(best, objective(env, p)), best)
    assert torch.allclose(objective(env, found), best, atol=1e-4)


def test_greedy_is_optimal_on_a_separable_victim():
    """Where edits do not interact the best choice at every site is the best set."""
    env = opened("edits", limit=toy.SIZE, least=True, queries=500, proposals=16)
    found = agent("greedy")(env, seed=0)
    x, layer = toy.samples()[evaluator(env).batch.ids], two_class()
    ref = layer(x)[:, :2].argmax(1)
    w = layer.weight[1 - ref] - layer.weight[ref]
    optimum = (w > 0).float()
    start = layer(x)
    clean = (start.gather(1, (1 - ref).unsqueeze(1)) - start.gather(1, ref.unsqueeze(1))).squeeze(1)
    best = clean + (w * (optimum - x)).sum(1)
    assert torch.allclose(objective(env, found), best, atol=1e-4)


def test_greedy_visits_important_sites_first():
    env = opened("edits", limit=1, least=True, queries=500, proposals=16)
    found = agent("greedy")(env, seed=0)
    x, layer = toy.samples()[evaluator(env).batch.ids], two_class()
    ref = layer(x)[:, :2].argmax(1)
    w = layer.weight[1 - ref] - layer.weight[ref]
    drop = w * (0.5 - x)  # what the probe shows
    want = drop.argmax(1)
    gain = (w * ((w > 0).float() - x)).gather(1, want.unsqueeze(1)).squeeze(1)
    moved = gain > 0
    assert torch.equal(found[moved, 0, 0], want[moved])


def test_random_search_returns_its_first_success():
    env = make(toy.task("field", least=True, knowledge="decision", queries=80), 12, 8)
    env.reset(seed=0)
    p = agent("random-search")(env, seed=0)
    won = evaluator(env).book.success
    found = p[won].flatten(1).abs().sum(1) > 0
    assert won.any() and found.all()


@pytest.mark.parametrize("name", ["square", "genetic"])
def test_score_attacks_never_go_down(name):
    entry = registry.agent(name)
    env = make(toy.task("field", knowledge="score", least=True, queries=64), 8, entry.proposals)
    seen = []
    step = env.step

    def spy(p):
        out = step(p)
        held = evaluator(env).batch.look(evaluator(env).book.held).form
        scores = toy.linear()(held)
        ref = evaluator(env).episodes.ref.unsqueeze(1)
        margin = scores.scatter(1, ref, -torch.inf).amax(1) - scores.gather(1, ref).squeeze(1)
        seen.append(torch.where(evaluator(env).book.success, 0.0, margin.clamp_max(0)))
        return out

    env.step = spy
    entry.attack(env, seed=0)
    track = torch.stack(seen)
    assert (track[1:] >= track[:-1] - 1e-6).all() and track[-1].mean() > track[0].mean()


def test_decision_search_asks_for_labels_only():
    env = make(toy.task("field", knowledge="decision", queries=60), 8)
    step = env.step
    seen = set()

    def spy(p):
        out = step(p)
        seen.update(out[0])
        return out

    env.step = spy
    agent("decision-search")(env, seed=0)
    assert "scores" not in seen and evaluator(env).book.success.any()
