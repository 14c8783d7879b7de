"""Attacks on labels: their geometry on a flat boundary in closed form, and what they reach on victims."""

import math

import pytest
import torch
import toy

from advgym import attack, make, registry, verify
from advgym.agents.decision.boundary import _adapt, _candidates
from advgym.agents.decision.cgba import _semicircle
from advgym.agents.decision.hopskipjump import _geometric, _to_boundary
from advgym.agents.shared.frequencies import cosines, low_noise
from advgym.agents.shared.labels import Labels, bisect, coarse, length, normal, settled, start, unit, visible
from advgym.core.rng import Draws
from advgym.judge.evaluator import evaluator


class Flat:
    """Labels of a half space: p is adversarial where its first coordinate is above `at`; no box, or a lattice."""

    def __init__(self, lanes=2, size=8, at=1.0, lattice=0):
        self.env, self.threat, self.at, self.lattice, self.asked = self, self, at, lattice, 0
        self.lane, self.shape, self.lanes = torch.arange(lanes), (size,), lanes
        self.reach = torch.full((lanes,), 100.0)

    def null(self):
        return torch.zeros(self.lanes, *self.shape)

    def apply(self, p):
        p = torch.as_tensor(p).reshape(-1, *self.shape)
        return torch.round(p * self.lattice) / self.lattice if self.lattice else p

    def distance(self, p):
        return p.flatten(1).norm(dim=1)

    def left(self):
        return torch.full((self.lanes,), 1000)

    def __call__(self, p, able):
        self.asked += int(able.sum())
        return (self.apply(p).view(p.shape)[..., 0] > self.at) & able, able

    def one(self, p, able):
        return self(p.unsqueeze(1), able.unsqueeze(1))[0][:, 0]


BOTH = torch.ones(2, dtype=torch.bool)


def test_bisection_finds_the_boundary():
    ask, far = Flat(at=0.3), torch.zeros(2, 8)
    far[:, 0] = 1.0
    hit, miss = bisect(ask, lambda a: far * a.view(-1, 1), torch.ones(2), torch.zeros(2), torch.full((2,), 1e-3), BOTH)
    assert ((hit > 0.3) & (miss <= 0.3) & (hit - miss <= 1e-3)).all() and ask.asked == 2 * 10


def test_the_semicircle_ends_at_the_foot_of_the_perpendicular():
    """Thales: where the boundary is flat and the normal known, one semicircle finds the nearest point."""
    ask, p, n = Flat(at=1.0), torch.zeros(2, 8), torch.zeros(2, 8)
    p[:, 0], p[0, 1], p[1, 2], n[:, 0] = 1.0 + 1e-6, 2.0, -0.5, 3.0
    found, turn = _semicircle(ask, p, n, torch.full((2,), 0.2), BOTH)
    assert (found[:, 0] > 1.0).all() and (length(found) < torch.tensor([1.05, 1.01])).all()
    assert turn[0] == pytest.approx(math.atan2(2.0, 1.0), rel=0.1)


def test_a_wrong_normal_leads_nowhere_worse():
    ask, p, n = Flat(at=1.0), torch.zeros(2, 8), torch.zeros(2, 8)
    p[:, 0], p[:, 1], n[:, 0], n[:, 1] = 1.0 + 1e-6, 1.0, -1.0, 1.0
    found, _ = _semicircle(ask, p, n, torch.full((2,), 0.2), BOTH)
    assert torch.allclose(found, p, atol=1e-5)


@pytest.mark.parametrize("low", [1.0, 0.5])
def test_the_normal_is_found_by_monte_carlo(low):
    """Chen et al. 2020, theorem 2: the estimate turns to the normal; the low cosines see their share of it."""
    ask, draws = Flat(size=16), Draws(0, torch.arange(2))
    p = torch.zeros(2, 16)
    p[:, 0] = 1.0
    probe = unit(low_noise(draws, 3000, (16,), low), 2)
    got = unit(normal(ask, p, probe, torch.full((2,), 0.1), torch.ones(2, 3000, dtype=torch.bool)))
    part = cosines(16)[: round(16 * low)]
    want = unit((part.T @ part)[0].unsqueeze(0))
    assert (got @ want[0] > 0.97).all()


def test_one_sided_answers_and_none_at_all():
    ask, p = Flat(at=-50.0), torch.zeros(2, 8)
    probe = unit(Draws(0, torch.arange(2)).normal(40, 8), 2)
    every = torch.ones(2, 40, dtype=torch.bool)
    assert torch.allclose(normal(ask, p, probe, torch.ones(2), every), probe.sum(1), atol=1e-5)
    assert not normal(ask, p, probe, torch.ones(2), ~every).any()


def test_probes_are_made_visible_on_a_lattice():
    z = unit(Draws(0, torch.arange(2)).normal(64), 1)
    small, fine = torch.full((2,), 1e-4), Flat(size=64)
    assert torch.equal(visible(fine, torch.zeros(2, 64), z, small), small)
    rough = Flat(size=64, lattice=255)
    radius = visible(rough, torch.zeros(2, 64), z, small)
    moved = (settled(rough, radius.view(-1, 1) * z) != 0).float().mean(1)
    assert (radius > 50 * small).all() and (moved > 0.3).all()


def test_hopskipjump_steps_and_comes_back():
    ask, p, v = Flat(at=1.0), torch.zeros(2, 8), torch.zeros(2, 8)
    p[:, 0], p[:, 1], v[:, 0] = 1.0 + 1e-6, 1.0, 1.0
    out = _geometric(ask, p, v, torch.full((2,), 0.5), BOTH)
    assert torch.allclose(out, p + 0.5 * v)
    back = _to_boundary(ask, out, 1e-3, BOTH, linf=False)
    assert (back[:, 0] > 1).all() and (length(back) < length(p)).all()
    clipped = _to_boundary(ask, out, 1e-3, BOTH, linf=True)
    assert (clipped.abs().amax(1) < 1.01).all()


def test_the_boundary_attack_steps_on_the_sphere_and_inwards():
    env, p = Flat(size=32), torch.zeros(2, 32)
    p[:, 0] = 2.0
    ε, δ = torch.tensor([0.1, 0.3]), torch.tensor([0.05, 0.01])
    on, whole = _candidates(env, p, Draws(0, torch.arange(2)).normal(32), ε, δ)
    assert torch.allclose(length(on), torch.full((2,), 2.0), atol=1e-5)
    assert torch.allclose(length(whole), 2 * (1 - δ), atol=1e-5)
    assert torch.allclose((on * p).sum(1) / 4, (1 + ε**2) ** -0.5, atol=1e-5)


def test_the_boundary_attack_adapts_lane_by_lane():
    looks = torch.tensor([[100.0, 100, 50], [80.0, 10, 40], [30.0, 30, 29], [0.0, 10, 29]])
    ε, δ = _adapt(looks, torch.ones(3), torch.ones(3), 1.5)
    assert torch.allclose(ε, torch.tensor([1.5, 1 / 1.5, 1.0]))
    assert torch.allclose(δ, torch.tensor([1.0, 1.0, 1.0]))
    assert looks[:, 0].tolist() == looks[:, 1].tolist() == [0, 0, 0, 0] and looks[0, 2] == 50


def test_cosines_are_orthonormal_and_low_ones_smooth():
    for size in (1, 5, 28):
        assert torch.allclose(cosines(size) @ cosines(size).T, torch.eye(size), atol=1e-5)
    z = low_noise(Draws(0, torch.arange(2)), 3, (2, 12, 10), 0.5)
    assert z.shape == (2, 3, 2, 12, 10)
    spectrum = cosines(12) @ z @ cosines(10).T
    assert spectrum[..., 6:, :].abs().max() < 1e-5 and spectrum[..., 5:].abs().max() < 1e-5
    assert coarse(Draws(0, torch.arange(2)), (1, 8, 8), 4)[0, 0].unique().numel() == 16


@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_a_start_is_adversarial(goal):
    env = make(toy.task("field", norm="l2", eps=3.0, knowledge="decision", least=True, goal=goal, queries=400), 8, 4)
    env.reset(seed=0)
    p, found = start(Labels(env), env.draws(0))
    obs, *_ = env.step(p.unsqueeze(1).expand(-1, 4, -1).contiguous())
    assert found.float().mean() > 0.6 and obs["success"][found].all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_distances_come_near_those_of_the_gradient(norm):
    ball = {"norm": norm, "eps": 2.0 if norm == "l2" else 1.0, "lattice": None, "least": True}
    pgd = {"steps": 100, "step_size": 0.01, "random_start": False}
    white = attack(toy.task("field", queries=200, gradients=200, **ball), "pgd", episodes=24, lanes=24, settings=pgd)
    told, found = toy.task("field", queries=800, knowledge="decision", **ball), {}
    for name in ("hopskipjump", "cgba", "boundary", "rays"):
        result = attack(told, name, episodes=24, lanes=24)
        assert result.success_rate >= white.success_rate - 0.1 and verify(result, task=told) == []
        found[name] = result.distance_median / white.distance_median
    best = {"l2": ("cgba", "hopskipjump"), "linf": ("hopskipjump", "rays")}[norm]
    assert all(found[name] <= 1.3 for name in best), found


def test_rays_is_the_field_half_of_decision_search():
    task = toy.task("field", knowledge="decision", queries=40)
    a, b = (attack(task, name, episodes=12, lanes=12).samples for name in ("rays", "decision-search"))
    assert [(s.success, s.queries, s.perturbation) for s in a] == [(s.success, s.queries, s.perturbation) for s in b]


@pytest.mark.parametrize("name", ["hopskipjump", "cgba", "boundary"])
def test_labels_alone_are_read(name):
    entry = registry.agent(name)
    env = make(toy.task("field", norm="l2", eps=2.0, knowledge="decision", least=True, queries=60), 6, entry.proposals)
    held = entry.attack(env, seed=0)
    won = evaluator(env).book.success
    assert won.any() and (held[won].flatten(1).abs().sum(1) > 0).all()
    best = evaluator(env).book.held
    assert torch.allclose(env.threat.distance(held)[won], env.threat.distance(best)[won], atol=1e-5)
