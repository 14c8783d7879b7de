"""SimBA and the one-pixel attack against their papers' rules."""

import pytest
import torch
import toy

from advgym import attack, make, registry, verify
from advgym.agents.search.one_pixel import _children, _first
from advgym.agents.search.simba import _count, _direction
from advgym.agents.shared.common import clean_fitness, fitness
from advgym.core.rng import Draws


class Ball:
    """What directions read of an environment."""

    def __init__(self, shape, norm="l2"):
        self.threat, self.shape, self.norm, self.reach = self, shape, norm, torch.ones(1)

    def null(self):
        return torch.zeros(1, *self.shape)


@pytest.mark.parametrize(("basis", "shape"), [("pixel", (2, 4, 4)), ("dct", (2, 4, 6)), ("dct", (9,))])
def test_directions_are_an_orthonormal_basis(basis, shape):
    many = _count(shape, 1.0)
    rows = [_direction(Ball(shape), torch.tensor([i]), basis, 1.0).flatten() for i in range(many)]
    assert torch.allclose(torch.stack(rows) @ torch.stack(rows).T, torch.eye(many), atol=1e-5)
    assert many == torch.Size(shape).numel()


def test_low_frequencies_are_a_quarter_and_linf_has_its_own_length():
    assert _count((3, 8, 8), 0.5) == 3 * 16
    top = _direction(Ball((1, 8, 8), "linf"), torch.tensor([5]), "dct", 0.5)
    assert top.abs().max() == pytest.approx(1.0)


def test_simba_asks_backwards_only_where_forwards_failed():
    """Guo et al. 2019, algorithm 1: +q, then -q; a direction that helped is done; none is tried twice in a pass."""
    task = toy.task("field", knowledge="score", least=True, eps=0.5, lattice=None, queries=12)
    clean, _ = make(task, 6).reset(seed=0)
    env = make(task, 6)
    step, log = env.step, []

    def spy(p):
        out = step(p)
        log.append((p.clone(), fitness(out[0]), out[0]["evaluated"].clone()))
        return out

    env.step = spy
    registry.agent("simba").attack(env, seed=0)
    for lane in range(6):
        held, best, failed, tried = torch.zeros(toy.SIZE), float(clean_fitness(clean)[lane]), -1, []
        for p, value in ((p[lane], float(v[lane])) for p, v, asked in log if asked[lane]):
            (at,) = (p - held).nonzero(as_tuple=True)
            assert len(at) == 1
            back = int(at) == failed
            assert float((p - held)[at]) < 0 or not back
            tried += [] if back else [int(at)]
            won = value > best
            held, best = (p, value) if won else (held, best)
            failed = -1 if won or back else int(at)
        assert len(set(tried[: toy.SIZE])) == len(tried[: toy.SIZE]) > 0


def test_children_are_a_plus_f_of_a_difference():
    """Su et al. 2019, eq. 4, without crossover: a child lies on a line through three others of the population."""
    spans = torch.tensor([50.0, 9.0])
    x = _first(Draws(0, torch.arange(2)), 12, 1, spans)
    assert x.shape == (2, 12, 1, 2) and (x >= 0).all() and (x < spans).all()
    child = _children(Draws(1, torch.arange(2)), x, 0.5, spans)
    picks = Draws(1, torch.arange(2)).uniform(12, 12).topk(3, dim=2).indices
    assert all(len(set(row.tolist())) == 3 for row in picks.flatten(0, 1))
    for i in range(12):
        a, b, c = (x[0, j] for j in picks[0, i])
        assert torch.allclose(child[0, i], torch.minimum((a + 0.5 * (b - c)).clamp_min(0), spans - 1e-3))


@pytest.mark.parametrize("width", [0, 8])
def test_one_pixel_changes_as_many_as_it_is_told(width):
    result = attack("image/digits-pixel", "one-pixel", episodes=12, lanes=12, queries=200,
                    settings={"edits": 2, "population": 40, "generations": 20, "width": width})  # fmt: skip
    assert result.success_rate > result.control_rate and verify(result) == []
    assert all(s.distance <= 2 for s in result.samples)


def test_simba_in_both_bases():
    for basis in ("pixel", "dct"):
        result = attack("image/digits-l2", "simba", episodes=12, lanes=12, eps=1.5, queries=150,
                        settings={"basis": basis})  # fmt: skip
        assert result.success_rate > result.control_rate and verify(result) == []
