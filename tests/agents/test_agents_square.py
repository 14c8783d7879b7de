"""Square against algorithms 2 and 3 of its paper, written out cell by cell."""

import pytest
import torch
import toy

from advgym import make
from advgym.agents.search import square


class Fixed:
    """Draws that are what they are told."""

    def __init__(self, *values):
        self.values = list(values)

    def uniform(self, *shape):
        value = self.values.pop(0)
        return torch.as_tensor(value, dtype=torch.float32).expand(1, *shape).clone()


def rectangle(a, b):
    """One pyramid of an a x b rectangle, by growing squares (the paper's eq. 2)."""
    out, row, column = torch.zeros(a, b), a // 2, b // 2
    for k in range(max(a // 2, b // 2) + 1):
        top, left = row - k, column - k
        out[max(top, 0) : min(row + k + 1, a), max(left, 0) : min(column + k + 1, b)] += 1 / (k + 1) ** 2
    return out / out.norm()


@pytest.mark.parametrize("side", [3, 5, 7, 9, 15])
@pytest.mark.parametrize("turned", [False, True])
def test_two_pyramids_as_published(side, turned):
    want = torch.cat([rectangle(side // 2, side), -rectangle(side - side // 2, side)])
    want = want.T / want.norm() if turned else want / want.norm()
    sides, start = [torch.tensor([side])] * 2, [torch.tensor([2]), torch.tensor([1])]
    got = square._pyramids(sides, start, 20, 19, torch.tensor([turned]))[0, 0]
    assert torch.allclose(got[2 : 2 + side, 1 : 1 + side], want, atol=1e-6)
    got[2 : 2 + side, 1 : 1 + side] = 0
    assert not got.any()


def test_the_schedule_of_ten_thousand_iterations():
    at = torch.tensor([0, 10, 11, 50, 51, 200, 201, 501, 1001, 2001, 4001, 6001, 8000, 8001, 9999]) / 10_000
    halved = [0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9]
    assert torch.allclose(square._share(0.8, at), 0.8 / 2.0 ** torch.tensor(halved))


class Ball:
    """What the moves read of an environment."""

    def __init__(self, shape, reach=1.0):
        self.threat, self.shape = self, shape
        self.reach = torch.tensor([reach])

    def null(self):
        return torch.zeros(1, *self.shape)


def test_l2_starts_from_25_unit_pyramids_at_the_surface():
    delta = square._grid(Ball((3, 25, 25), 2.0), Fixed(*[v for i in range(25) for v in (i / 25, (i * 7 % 5) / 5)]))
    assert delta.norm() == pytest.approx(2.0, abs=1e-5)
    cells = delta[0, 0].unfold(0, 5, 5).unfold(1, 5, 5).flatten(0, 1).flatten(1).norm(dim=1)
    assert torch.allclose(cells, torch.full((25,), 2 / 75**0.5), atol=1e-5)


def test_l2_moves_the_mass_of_two_windows_into_one():
    g = torch.Generator().manual_seed(0)
    env, held = Ball((2, 12, 12), 3.0), torch.randn(1, 2, 12, 12, generator=g)
    held *= 2.5 / held.norm()
    share = torch.tensor([25 / 144])
    # Windows of side 5 at (2, 3) and (6, 5); not turned; the sign of each channel.
    signs = torch.tensor([0.1, 0.9]).view(2, 1, 1)
    place = lambda a, b: torch.tensor([(a + 0.5) / 8, (b + 0.5) / 8])  # noqa: E731
    got = square._masses(env, Fixed(place(2, 3), place(6, 5), 0.9, signs), held.clone(), share)
    want = held.clone()
    one, both = torch.zeros(12, 12, dtype=torch.bool), torch.zeros(12, 12, dtype=torch.bool)
    one[2:7, 3:8] = both[2:7, 3:8] = both[6:11, 5:10] = True
    eta = torch.cat([rectangle(2, 5), -rectangle(3, 5)])
    for c, sign in enumerate((1.0, -1.0)):
        old = held[0, c] * one
        new = sign * eta / eta.norm() + old[2:7, 3:8] / (1e-10 + old.norm())
        mass = ((9 - held.norm() ** 2).clamp_min(0) / 2 + (held[0, c] * both).norm() ** 2).sqrt()
        want[0, c][both] = 0
        want[0, c, 2:7, 3:8] = new / new.norm() * mass
    assert torch.allclose(got, want * 3 / want.norm(), atol=1e-5)
    assert got.norm() == pytest.approx(3.0, abs=1e-5)


def test_linf_sets_a_window_of_each_channel_and_starts_from_stripes():
    env = Ball((3, 10, 8), 0.2)
    stripes = square._stripes(env, Fixed(torch.rand(3, 1, 8, generator=torch.Generator().manual_seed(1))))
    assert (stripes.abs() == 0.2).all() and (stripes == stripes[:, :, :1]).all()
    assert not torch.equal(stripes[:, 0], stripes[:, 1])
    signs = torch.tensor([0.1, 0.9, 0.1]).view(3, 1, 1)
    moved = square._squares(env, Fixed(torch.tensor([0.0, 0.0]), signs), stripes, torch.tensor([0.25]))
    assert (moved[0, :, :5, :4] == torch.tensor([0.2, -0.2, 0.2]).view(3, 1, 1)).all()
    assert torch.equal(moved[0, :, 5:], stripes[0, :, 5:]) and torch.equal(moved[0, :, :, 4:], stripes[0, :, :, 4:])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_proposal_is_valid_and_none_comes_twice(norm):
    task = toy.task("field", norm=norm, knowledge="score", least=True, queries=60)
    env = make(task, 6)
    step, seen = env.step, []

    def spy(p):
        out = step(p)
        seen.append((env.threat.apply(p).clone(), out[0]["valid"] | ~out[0]["evaluated"]))
        return out

    env.step = spy
    square.attack(env, seed=3)
    assert all(valid.all() for _, valid in seen)
    for lane in range(6):
        asked = [tuple(x[lane].tolist()) for x, _ in seen]
        clean = tuple(env.threat.apply(env.threat.null())[lane].tolist())
        asked = [a for a in asked if a != clean]
        assert len(asked) == len(set(asked))
