"""Fields: the ball, the lattice, storage. Properties over hostile tensors."""

import base64
import math
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.core import norms
from advgym.core.field import FieldBatch
from advgym.errors import DataError

NORMS = ("linf", "l2", "l1", "l0")
RADII = (0.0, 1 / 255, 0.03, 0.1, 0.3, 2.0)
LATTICES = (None, 4, 16, 255, 32768)


def batch(norm="linf", lattice=255, radius=None, shape=(3, 4), n=3, seed=0, low=0.0, high=1.0, support=None):
    radius = {"l0": 3, "l1": 0.6}.get(norm, 0.1) if radius is None else radius
    g = torch.Generator().manual_seed(seed)
    x = low + (high - low) * torch.rand(n, *shape, generator=g)
    x[0].clamp_(max=low)  # a corner of the box
    if lattice:
        x = ((x * lattice).round() / lattice).clamp(math.ceil(low * lattice) / lattice, high)
        x = (x * lattice).floor() / lattice if high * lattice % 1 else x
    return FieldBatch(torch.arange(n), torch.zeros(n, dtype=torch.int64), x, radius=radius, norm=norm,
                      lattice=lattice, low=low, high=high, support=support)  # fmt: skip


hostile = st.lists(
    st.one_of(
        st.floats(width=32, allow_nan=True, allow_infinity=True),
        st.floats(-0.25, 0.25, width=32),
        st.sampled_from([0.0, -0.0, 1e30, -1e30, 1e-40, 0.5 / 255, 1.5 / 255, 0.49999 / 16]),
    ),
    min_size=12, max_size=12,
)  # fmt: skip
common = settings(max_examples=60, deadline=None)


def exactly_inside(b, form):
    """The constraint by another road: numpy float64, or integers on the lattice."""
    change = form.double().numpy() - b.x.double().numpy()
    radius = b.radius.double().numpy()
    inside = ((form >= b.low - 1e-7) & (form <= b.high + 1e-7)).flatten(1).all(1).numpy()
    if b.lattice:
        change = np.rint(change * b.lattice)
        radius = radius * (1 if b.norm == "l0" else b.lattice)
    flat = change.reshape(len(change), -1)
    size = {
        "linf": lambda: np.abs(flat).max(1),
        "l2": lambda: np.sqrt((flat**2).sum(1)),
        "l1": lambda: np.abs(flat).sum(1),
        "l0": lambda: (flat != 0).sum(1),
    }[b.norm]()
    # The stated tolerance is 1e-6: absolute for floats, of the radius on a lattice (k / lattice is seldom exact).
    return inside & (size <= (radius + 1e-6 if not b.lattice else radius * (1 + 1e-6) + 1e-3))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("lattice", LATTICES)
@common
@given(values=hostile, radius=st.sampled_from(RADII))
def test_project_is_always_valid(norm, lattice, values, radius):
    b = batch(norm, lattice, radius * (5 if norm == "l0" else 1))
    p = torch.tensor(values).view(1, 3, 4).expand(3, -1, -1)
    q = b.project(p)
    look = b.look(q)
    assert look.valid.all() and look.real.all()
    assert exactly_inside(b, look.form).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("lattice", LATTICES)
@common
@given(values=hostile)
def test_project_is_idempotent_up_to_rounding(norm, lattice, values):
    b = batch(norm, lattice)
    q = b.project(torch.tensor(values).view(1, 3, 4).expand(3, -1, -1))
    again = b.project(q)
    assert torch.allclose(q, again, atol=1e-6)
    assert torch.equal(b.look(q).form, b.look(again).form) or lattice is None


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("lattice", LATTICES)
@common
@given(values=hostile, scale=st.sampled_from([0.01, 0.3, 1.0, 30.0]))
def test_look_agrees_with_a_check_by_another_road(norm, lattice, values, scale):
    b = batch(norm, lattice)
    p = torch.tensor(values).view(1, 3, 4).expand(3, -1, -1) * scale
    look = b.look(p)
    finite = p.isfinite().flatten(1).all(1)
    assert torch.equal(look.real, finite)
    assert not look.valid[~finite].any() and (look.distance[~finite] == 0).all()
    if finite.all():
        by_hand = torch.from_numpy(exactly_inside(b, look.form))
        assert torch.equal(look.valid, by_hand)
        assert (look.null == (look.form == b.x).flatten(1).all(1)).all()
        # What is looked at is canonical: looking again at it changes nothing.
        again = b.look(b.proposal(look.form))
        assert torch.allclose(again.form, look.form, atol=1e-7) and torch.equal(again.valid, look.valid)
        if lattice:
            assert torch.equal(again.form, look.form) and torch.equal(again.digest, look.digest)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("lattice", [None, 16, 255])
def test_high_dimensions_and_huge_values(norm, lattice):
    g = torch.Generator().manual_seed(1)
    b = batch(norm, lattice, radius={"l1": 30, "l0": 40}.get(norm, 0.5), shape=(3, 64, 64), n=4)
    for scale in (1e-3, 1.0, 1e20, 3e38):
        for kind in ("normal", "constant", "sparse"):
            p = torch.randn(4, 3, 64, 64, generator=g) * scale
            if kind == "constant":
                p = torch.full_like(p, scale)
            if kind == "sparse":
                p = p * (torch.rand(p.shape, generator=g) < 1e-3)
            look = b.look(b.project(p))
            assert look.valid.all() and exactly_inside(b, look.form).all(), (scale, kind)


@pytest.mark.parametrize("lattice", [16, 255, 32768])
def test_lattice_limits_are_integers(lattice):
    """k / lattice in float32 can fall short of k steps; the ball of k steps must hold k steps, not k + 1."""
    for k in (1, 2, 7, 8, min(76, lattice - 1)):
        b = FieldBatch(torch.tensor([0]), torch.tensor([0]), torch.zeros(1, 2), radius=k / lattice, lattice=lattice)
        edge = torch.tensor([[k / lattice, 0.0]])
        over = torch.tensor([[(k + 1) / lattice, 0.0]])
        assert b.check(edge).item() and not b.check(over).item()
        assert torch.equal(b.look(b.project(over)).form, b.look(edge).form)


def test_the_ball_is_per_sample():
    b = batch(radius=torch.tensor([0.0, 0.1, 0.5]), lattice=None)
    p = torch.full((3, 3, 4), 0.3)
    assert b.check(p).tolist() == [False, False, True]
    assert b.check(b.project(p)).all()
    rows = torch.tensor([2, 2, 0, 1])
    assert b.check(p[:1].expand(4, -1, -1), rows).tolist() == [True, True, False, False]


def test_tolerance_of_float_balls():
    x = torch.full((1, 4), 0.5)
    for norm in NORMS[:3]:
        b = FieldBatch(torch.tensor([0]), torch.tensor([0]), x, radius=0.1, norm=norm, lattice=None)
        p = torch.zeros(1, 4)
        for size, fine in ((0.1, True), (0.1 + 5e-7, True), (0.1 + 3e-6, False)):
            p[0, 0] = size
            assert b.check(p).item() == fine, (norm, size)


def test_outside_the_support_nothing_counts():
    support = torch.zeros(3, 3, 4, dtype=torch.bool)
    support[:, :, :2] = True
    b = batch(support=support, lattice=None, radius=0.1)
    p = torch.full((3, 3, 4), 0.05)
    p[:, :, 2:] = 9.0
    look = b.look(p)
    assert look.valid.all()
    assert torch.equal(look.form[:, :, 2:], b.x[:, :, 2:])
    q = b.project(p)
    assert (q[:, :, 2:] == 0).all()
    p[:, :, :2] = 0
    assert b.look(p).null.all()


def test_straight_through():
    b = batch(lattice=4, radius=1.0)
    p = torch.full((3, 3, 4), 0.1, requires_grad=True)
    form = b.look(p).form
    (g,) = torch.autograd.grad((form * 3).sum(), p)
    assert (g == 3).all()
    p = torch.full((3, 3, 4), 9.0, requires_grad=True)  # clamped: still straight-through
    (g,) = torch.autograd.grad(b.look(p).form.sum(), p)
    assert (g == 1).all()


@pytest.mark.parametrize("norm", NORMS)
def test_distance_is_differentiable(norm):
    b = batch(norm, lattice=None, radius=1.0)
    p = torch.full((3, 3, 4), 0.01, requires_grad=True)
    d = b.distance(p)
    (g,) = torch.autograd.grad(d.sum(), p)
    assert g.isfinite().all() and (g != 0).any()
    assert torch.allclose(d.detach(), b.look(p.detach()).distance, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_rises_fastest(norm):
    b = batch(norm, lattice=None)
    g = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0))
    step = b.steepest(g)
    size = norms.size(norm, step.flatten(1))
    assert torch.allclose(size, torch.ones(3))
    rise = (step * g).flatten(1).sum(1)
    for seed in range(20):
        other = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(seed)).flatten(1)
        other = other.clamp(b.floor.flatten(1).sign(), b.ceiling.flatten(1).sign()) if norm in ("l1", "l0") else other
        if norm == "l0":  # one value, moved by at most 1
            other = other.clamp(-1, 1) * torch.nn.functional.one_hot(torch.randint(0, 12, (3,)), 12)
        else:
            other = other / norms.size(norm, other).clamp_min(1e-12).unsqueeze(1)
        assert (rise + 1e-6 >= (other * g.flatten(1)).sum(1)).all()
    assert b.steepest(torch.zeros(3, 3, 4)).isfinite().all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("lattice", LATTICES)
def test_random_is_valid_and_keyed(norm, lattice):
    b = batch(norm, lattice, n=8, radius=3 if norm == "l0" else 0.5)
    p = b.random(3)
    assert b.check(p).all() and not b.look(p).null.all()
    assert torch.equal(p[[5, 2]], b.random(3, torch.tensor([5, 2])))
    assert not torch.equal(p, b.random(4))


# -- storage ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("lattice", LATTICES)
@common
@given(values=hostile)
def test_dump_and_load_are_inverse(norm, lattice, values):
    b = batch(norm, lattice)
    look = b.look(b.project(torch.tensor(values).view(1, 3, 4).expand(3, -1, -1)))
    loaded = b.load([b.dump(look.form[i], i) for i in range(3)])
    again = b.look(loaded)
    assert again.valid.all()
    assert torch.equal(again.form, look.form) if lattice else torch.allclose(again.form, look.form, atol=1e-6)
    if lattice:
        assert torch.equal(again.digest, look.digest)


def packed(array):
    return base64.b64encode(zlib.compress(np.asarray(array).tobytes())).decode()


def entry(**change):
    zeros = np.zeros((3, 4), "<i4")
    return {"field": packed(zeros), "dtype": "<i4", "shape": [3, 4], "lattice": 255, **change}


GARBAGE = [
    entry(shape=[4, 3]), entry(shape=[12]), entry(shape="34"), entry(shape=None), entry(lattice=None),
    entry(lattice=16), entry(dtype="<f4"), entry(dtype="O"), entry(field=packed(np.zeros((3, 3), "<i4"))),
    entry(field=packed(np.zeros((3, 5), "<i4"))), entry(field="not base64!"), entry(field=""), entry(field=5),
    entry(field=None), entry(field="ünicode"), entry(field=base64.b64encode(b"no zlib").decode()),
    entry(field=base64.b64encode(zlib.compress(bytes(48))[:-3]).decode()),
    entry(field=base64.b64encode(zlib.compress(bytes(48)) + b"tail").decode()),
    {}, [], "text", 7, {"edits": []}, True,
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_load_refuses_garbage(garbage):
    b = batch()
    assert (b.load([None, entry(), None]) == 0).all()
    with pytest.raises(DataError, match="perturbation 1"):
        b.load([None, garbage, None])


def test_a_bomb_is_refused_cheaply():
    import resource
    import time

    squeeze = zlib.compressobj(9)
    bomb = b"".join(squeeze.compress(bytes(1 << 24)) for _ in range(64)) + squeeze.flush()  # 1 GiB of zeros
    text = base64.b64encode(bomb).decode()
    assert len(text) < 2_000_000
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(DataError):
        batch().load([entry(field=text), None, None])
    assert time.perf_counter() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_stored_values_are_judged_not_believed():
    b = batch(lattice=None, radius=0.1)
    nan = {"field": packed(np.full((3, 4), np.nan, "<f4")), "dtype": "<f4", "shape": [3, 4], "lattice": None}
    big = {**nan, "field": packed(np.full((3, 4), 0.5, "<f4"))}
    p = b.load([nan, big, None])
    assert b.check(p).tolist() == [False, False, True]
    b = batch(lattice=255, radius=0.1)
    huge = entry(field=packed(np.full((3, 4), 2**31 - 1, "<i4")))
    assert b.check(b.load([huge, huge, huge]))[1:].tolist() == [False, False]


@common
@given(values=hostile, other=hostile)
def test_digests_are_equal_exactly_when_forms_are(values, other):
    b = batch(lattice=255, n=1)
    p, q = (b.project(torch.tensor(v).view(1, 3, 4)) for v in (values, other))
    a, c = b.look(p), b.look(q)
    assert (a.digest == c.digest).item() == torch.equal(a.form, c.form)


def test_put_replaces_and_never_writes():
    b, other = batch(n=4), batch(n=2, seed=9)
    x = b.x.clone()
    twin = b.put(torch.tensor([1, 3]), other)
    assert torch.equal(b.x, x)
    assert torch.equal(twin.x[[1, 3]], other.x) and torch.equal(twin.x[[0, 2]], x[[0, 2]])
    p = torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(0))
    whole = twin.look(p)
    part = other.look(p[[1, 3]])
    assert torch.equal(whole.form[[1, 3]], part.form) and torch.equal(whole.valid[[1, 3]], part.valid)
