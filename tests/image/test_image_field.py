"""The additive Field on images: lattice, balls, straight-through gradients, storage."""

import base64
import json
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.envs.image.tasks.balls import ImageBatch
from advgym.errors import DataError

SHAPE = (1, 3, 4)
WILD = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-8, 3e38, -3e38, float("nan"), float("inf"), float("-inf")]),
    st.floats(-2, 2, width=32),
    st.floats(width=32),
)


def batch(seed=0, n=2, norm="linf", lattice=16, eps=2 / 16, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *shape, generator=generator)
    x = torch.round(x * lattice) / lattice if lattice else x
    return ImageBatch(torch.arange(n), torch.zeros(n).long(), x, radius=eps, norm=norm, lattice=lattice)


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(WILD, min_size=12, max_size=12),
    norm=st.sampled_from(["linf", "l2"]),
    lattice=st.sampled_from([16, 255, None]),
    eps=st.floats(0.07, 3.0),
    seed=st.integers(0, 99),
)
def test_whatever_is_projected_is_valid(values, norm, lattice, eps, seed):
    b = batch(seed, 1, norm, lattice, eps)
    p = torch.tensor(values, dtype=torch.float32).view(1, *SHAPE)
    look = b.look(b.project(p))
    assert bool(look.valid) and bool(look.real) and float(look.distance) <= eps + 1e-6
    assert bool(((look.form >= 0) & (look.form <= 1)).all())
    again = b.look(look.form - b.x)
    assert torch.equal(again.form, look.form) and torch.equal(again.digest, look.digest)


@settings(max_examples=150, deadline=None)
@given(values=st.lists(WILD, min_size=12, max_size=12), norm=st.sampled_from(["linf", "l2"]), seed=st.integers(0, 99))
def test_the_check_believes_only_finite_perturbations_inside(values, norm, seed):
    b = batch(seed, 1, norm, 16, 2 / 16)
    p = torch.tensor(values, dtype=torch.float32).view(1, *SHAPE)
    look, finite = b.look(p), bool(torch.isfinite(p).all())
    assert bool(look.real) == finite
    if not finite:
        assert not bool(look.valid) and not bool(look.null) and float(look.distance) == 0
        return
    # A closed form in exact rationals: integers after clamping, as Python computes them.
    levels = [round(min(max(float(v), 0.0), 1.0) * 16) for v in (b.x + p).flatten()]
    change = [a - round(float(v) * 16) for a, v in zip(levels, b.x.flatten(), strict=True)]
    inside = max(map(abs, change)) <= 2 if norm == "linf" else sum(c * c for c in change) <= 4
    assert bool(look.valid) == inside and bool(look.null) == (not any(change))
    assert torch.equal(look.form.flatten() * 16, torch.tensor(levels, dtype=torch.float32))


@pytest.mark.parametrize("lattice", [16, 255, 1023, 65535])
def test_balls_are_compared_as_integers(lattice):
    """k / lattice is exactly k steps for every k; one step more is outside."""
    for k in range(1, lattice, max(1, lattice // 300)):
        x = torch.zeros(2, 1, 1, 1)
        b = ImageBatch(torch.arange(2), torch.zeros(2).long(), x, radius=k / lattice, norm="linf", lattice=lattice)
        p = torch.tensor([k / lattice, (k + 1) / lattice]).view(2, 1, 1, 1)
        assert b.look(p).valid.tolist() == [True, False], k


def test_the_mnist_ball():
    b = batch(0, 3, "linf", 255, 76 / 255)
    sign = torch.where(b.x > 0.5, -1.0, 1.0)
    steps = torch.tensor([76.0, 77.0, 76.49]).view(3, 1, 1, 1)
    assert b.look(sign * steps / 255).valid.tolist() == [True, False, True]
    assert batch(0, 1, "linf", 255, 0.3).limit.item() == 76
    assert batch(0, 1, "linf", 255, np.float32(76 / 255)).limit.item() == 76


def test_a_radius_per_sample():
    b = batch(0, 2, "linf", 16, torch.tensor([1 / 16, 3 / 16]))
    p = torch.where(b.x > 0.5, -2 / 16, 2 / 16)
    assert b.look(p).valid.tolist() == [False, True]
    assert b.look(p[[1, 1, 0]], torch.tensor([1, 0, 1])).valid.tolist() == [True, False, True]


@pytest.mark.parametrize("eps", [0.5, 5.0, 50.0])
def test_large_images_stay_in_the_float_ball(eps):
    """Rounding over 150,528 coordinates must not leave the ball."""
    b = batch(0, 2, "l2", None, eps, (3, 224, 224))
    noise = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    assert bool(b.look(b.project(noise * 10)).valid.all())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_points_are_valid_and_keyed_by_sample(norm):
    b = batch(0, 40, norm, 255, 0.3)
    p = b.random(7)
    assert bool(b.look(p).valid.all()) and not bool(b.look(p).null.any())
    assert torch.equal(b.random(7, torch.tensor([5, 3])), p[[5, 3]])
    assert not torch.equal(b.random(8), p)


@pytest.mark.parametrize("size", [0.3, 1.0, 1e4, 1e8, 3e38])
def test_a_proposal_with_gradient_meets_the_very_same_input(size):
    b = batch(0, 4, "linf", 255, 76 / 255)
    p = (torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1)) - 0.5) * size
    assert torch.equal(b.look(p).form, b.look(p.clone().requires_grad_()).form)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_gradient_passes_straight_through(norm):
    b = batch(0, 4, norm, 16, 0.5)
    weight = torch.randn(3, 12, generator=torch.Generator().manual_seed(2))

    def model(x):
        return torch.tanh(x.flatten(1) @ weight.T).square().sum(1)

    p = b.random(1).requires_grad_()
    form = b.look(p).form
    (through,) = torch.autograd.grad(model(form).sum(), p)
    x = form.detach().requires_grad_()
    (own,) = torch.autograd.grad(model(x).sum(), x)
    assert torch.equal(through, own)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("lattice", [16, 255, None])
def test_dump_and_load(norm, lattice):
    b = batch(3, 5, norm, lattice, 0.4)
    form = b.look(b.random(2)).form
    stored = json.loads(json.dumps([b.dump(form[i], i) for i in range(5)]))
    back = b.look(b.load(stored))
    assert torch.allclose(back.form, form, atol=0 if lattice else 1e-7) and bool(back.valid.all())
    assert bool(b.look(b.load([None] * 5)).null.all())


def test_load_refuses_what_is_no_dump():
    b = batch(3, 1, "linf", 16, 2 / 16)
    good = b.dump(b.look(b.random(2)).form[0], 0)

    def packed(array):
        return base64.b64encode(zlib.compress(array.tobytes())).decode()

    floats = {**good, "dtype": "<f4", "field": packed(np.zeros(12, "<f4"))}
    long = {**good, "field": packed(np.zeros(1 << 20, "<i4"))}
    bad = [
        floats, long, {**good, "field": "%%%"}, {**good, "field": 3}, {**good, "field": good["field"][:-4]},
        {**good, "shape": [1, 4, 3]}, {**good, "shape": None}, {**good, "lattice": 9}, {**good, "dtype": "|O"},
        {}, [], "x", 3,
    ]  # fmt: skip
    for entry in bad:
        with pytest.raises(DataError, match="stored perturbation 0"):
            b.load([entry])


def test_lanes_are_swapped_without_writing_in_place():
    a, c = batch(0, 4), batch(1, 2, eps=1 / 16)
    before = a.x.clone()
    d = a.put(torch.tensor([1, 3]), c)
    assert torch.equal(a.x, before) and torch.equal(d.x[[1, 3]], c.x) and torch.equal(d.x[[0, 2]], a.x[[0, 2]])
    assert d.limit.tolist() == [2, 1, 2, 1] and torch.equal(d.view()["clean"], d.x)
    assert bool(d.look(d.project(torch.ones_like(d.x))).valid.all())
