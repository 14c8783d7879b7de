"""The nearest points of l1 and l0 balls within a box, against slow closed forms; landing on a lattice."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.core import norms
from advgym.core.field import FieldBatch

common = settings(max_examples=60, deadline=None)
numbers = st.lists(st.floats(-3, 3, width=32), min_size=6, max_size=6)
rooms = st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6)


def row(values):
    return torch.tensor(values, dtype=torch.float32).view(1, -1)


def bisected(v, floor, ceiling, radius):
    """The projection by 200 halvings of the threshold, in float64."""
    v, floor, ceiling = v.double(), floor.double(), ceiling.double()

    def cut(t):
        return torch.minimum(torch.maximum(v.sign() * (v.abs() - t).clamp_min(0), floor), ceiling)

    if cut(0.0).abs().sum() <= radius:
        return cut(0.0)
    low, high = 0.0, float(v.abs().max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if cut(middle).abs().sum() > radius else (low, middle)
    return cut(high)


@common
@given(v=numbers, below=rooms, above=rooms, radius=st.sampled_from([0.0, 1e-3, 0.2, 1.0, 2.5, 50.0]))
def test_l1_is_the_nearest_point_in_the_box(v, below, above, radius):
    v, floor, ceiling = row(v), -row(below), row(above)
    p = norms.nearest_l1(v, floor, ceiling, torch.tensor([radius]))
    assert p.abs().sum() <= radius + 1e-12
    assert (p >= floor - 1e-7).all() and (p <= ceiling + 1e-7).all()
    assert torch.allclose(p, bisected(v, floor, ceiling, radius), atol=2e-6)


def test_l1_without_a_box_is_the_simplex_projection():
    """Duchi et al. 2008, figure 1, by hand."""
    v = torch.tensor([[3.0, -1.0, 0.5]])
    wide = torch.full_like(v, 9.0)
    assert torch.allclose(norms.nearest_l1(v, -wide, wide, torch.tensor([2.0])).float(), torch.tensor([[2.0, 0, 0]]))
    want = torch.tensor([[2.5, -0.5, 0.0]])
    assert torch.allclose(norms.nearest_l1(v, -wide, wide, torch.tensor([3.0])).float(), want, atol=1e-5)


@common
@given(v=numbers, below=rooms, above=rooms, most=st.integers(0, 6))
def test_l0_is_the_nearest_of_all_supports(v, below, above, most):
    v, floor, ceiling = row(v), -row(below), row(above)
    p = norms.nearest_l0(v, floor, ceiling, torch.tensor([most]))
    assert (p != 0).sum() <= most
    clamped = torch.minimum(torch.maximum(v, floor), ceiling)
    best = min(
        float((v - clamped * torch.isin(torch.arange(6), torch.tensor(on, dtype=torch.int64))).double().square().sum())
        for on in itertools.combinations(range(6), most)
    )
    assert float((v - p).double().square().sum()) <= best + 1e-5


@pytest.mark.parametrize("lattice", [4, 16, 255])
def test_an_l1_ball_on_a_lattice_keeps_what_it_can(lattice):
    """Landing gives up less than a step of the radius, and moves nothing that rounds inside."""
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(64, 40, generator=g) * lattice).round() / lattice
    b = FieldBatch(torch.arange(64), torch.zeros(64).long(), x, radius=5 / lattice, norm="l1", lattice=lattice)
    p = b.project(torch.randn(64, 40, generator=g))
    steps = b.look(p).distance * lattice
    assert b.check(p).all() and (steps >= 3).all() and (steps <= 5).all()
    small = torch.full((64, 40), 0.05 / lattice)
    assert torch.equal(b.project(small), torch.minimum(torch.maximum(small, b.floor), b.ceiling))


def test_rows_do_not_depend_on_each_other():
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(8, 3, 9, 9, generator=g) * 255).round() / 255
    for norm, radius in (("l1", 4.0), ("l0", 7)):
        radii = radius + torch.arange(8.0)
        b = FieldBatch(torch.arange(8), torch.zeros(8).long(), x, radius=radii, norm=norm, lattice=255)
        p = torch.randn(8, 3, 9, 9, generator=g)
        rows = torch.tensor([5, 1, 1])
        assert torch.equal(b.project(p)[rows], b.project(p[rows], rows))
        assert torch.equal(b.steepest(p)[rows], b.steepest(p[rows], rows))
        assert torch.equal(b.random(3)[rows], b.random(3, rows))


def test_a_step_leaves_out_what_the_box_holds_fast():
    x = torch.tensor([[0.0, 0.0, 1.0, 0.5]])
    b = FieldBatch(torch.arange(1), torch.zeros(1).long(), x, radius=2, norm="l0", lattice=None)
    g = torch.tensor([[-9.0, 1.0, 8.0, 2.0]])
    assert b.steepest(g).tolist() == [[0, 0, 0, 1]]
    assert b.steepest(g, p=torch.tensor([[0.0, 0.0, 0.0, 0.5]])).tolist() == [[0, 1, 0, 0]]


def test_the_largest_radius():
    assert [norms.largest(n, 4, 0.5) for n in norms.NORMS] == [0.5, 1.0, 2.0, 4.0]
    assert [norms.per_value(n, r, 4) for n, r in zip(norms.NORMS, (0.5, 1.0, 2.0, 2.0), strict=True)] == [0.5] * 4
