"""Fields that are not added: what each does to an image, by closed forms; and that each keeps the contract."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym import AdvgymError, make_task
from advgym.envs.image.perturb.colour import ColourBatch, luv, rgb
from advgym.envs.image.perturb.flow import FlowBatch, warp
from advgym.envs.image.perturb.grids import looked_up, roughness
from advgym.envs.image.perturb.jpeg import JpegBatch, basis, decoded, encoded, tables
from advgym.envs.image.perturb.perceptual import Features

torch.set_num_threads(1)
MAPS = ["flow", "colour", "jpeg", "perceptual"]
BUNDLES = ["universal", "universal-l2", "patch", "patch-universal"]
SMALL = {
    "universal": {"images": 6},
    "universal-l2": {"images": 6},
    "patch": {"draws": 3},
    "patch-universal": {"images": 6},
}
WILD = st.sampled_from([0.0, -0.0, 1.0, -0.3, 1e-8, 3e38, -3e38, 1e3, float("nan"), float("inf"), float("-inf")])


def task(name, **options):
    return make_task(f"image/digits-{name}", **SMALL.get(name, {}), **options)


def images(n=3, channels=3, side=9, seed=0):
    return (torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed)) * 255).round() / 255


@pytest.mark.parametrize("name", MAPS + BUNDLES)
def test_each_keeps_the_contract(name):
    advgym.check_vector_env(partial(advgym.make, f"image/digits-{name}", **SMALL.get(name, {})))


@pytest.mark.parametrize("name", MAPS + BUNDLES)
@settings(max_examples=15, deadline=None)
@given(values=st.lists(WILD, min_size=8, max_size=8), seed=st.integers(0, 9))
def test_whatever_is_projected_is_valid(name, values, seed):
    b = task(name).samples("test", [seed, 3])
    p = torch.tensor(values).repeat(-(-b.size // 8))[: b.size].view(1, *b.shape).repeat(2, *[1] * len(b.shape))
    look = b.look(b.project(p))
    assert look.valid.all() and look.real.all() and (look.distance <= b.radius * (1 + 1e-5)).all()
    x = b.inputs(look.form)
    assert ((x >= 0) & (x <= 1)).all() and torch.equal((x * 16).round(), x * 16)
    assert b.look(p).real.tolist() == p.flatten(1).isfinite().all(1).tolist()
    stored = [b.dump(look.form[i], i) for i in range(2)]
    assert torch.equal(b.look(b.load(stored)).digest, look.digest)


@pytest.mark.parametrize("name", MAPS + BUNDLES)
def test_zeros_are_the_clean_images_and_have_a_gradient(name):
    b = task(name).samples("test", [0, 5, 7])
    null = b.null().requires_grad_()
    look = b.look(null)
    x = b.inputs(look.form)
    assert look.null.all() and torch.equal(x.detach(), b.clean(None).flatten(0, 1)) and len(x) == 3 * b.members
    (g,) = torch.autograd.grad(x.square().sum(), null)
    assert g.isfinite().all() and (g != 0).flatten(1).any(1).all()


@pytest.mark.parametrize("name", MAPS + BUNDLES)
def test_random_is_keyed_valid_and_alone_as_together(name):
    b = task(name).samples("test", [0, 5, 7])
    p, rows = b.random(3), torch.tensor([2, 0])
    assert b.check(p).all() and not b.look(p).null.any() and not torch.equal(p, b.random(4))
    torch.testing.assert_close(p[rows], b.random(3, rows), atol=1e-4, rtol=0)
    torch.testing.assert_close(b.distance(p)[rows], b.distance(p[rows], rows), atol=1e-5, rtol=0)
    if name not in ("perceptual", "patch", "patch-universal"):  # a unit step has the size 1
        torch.testing.assert_close(b.measure(b.steepest(p), None).clamp(0.99, 3), b.measure(b.steepest(p), None))


@pytest.mark.parametrize("name", MAPS + BUNDLES)
@pytest.mark.parametrize("agent", ["noise", "pgd", "square"])
def test_each_is_played_and_verified(name, agent):
    made = task(name, queries=120, knowledge={"pgd": "white-box"}.get(agent, "score"))
    result = advgym.attack(made, agent, episodes=3, lanes=3)
    assert not result.invalid_rate and advgym.verify(result, task=made) == []
    assert made.show is not None and made.line is not None
    b, row = made.samples("test", [result.samples[0].id]), result.samples[0]
    form = b.look(b.load([row.perturbation])).form[0]
    told = made.show(b, 0, form, torch.tensor(row.before), torch.tensor(row.after))
    assert "data:image/png" in told and made.line(b, 0, form)


# -- flows ------------------------------------------------------------------------------------------------------------
def test_a_flow_of_whole_pixels_shifts():
    x = images()
    flow = torch.zeros(3, 2, 9, 9)
    flow[:, 0], flow[:, 1] = 2.0, -1.0
    assert torch.allclose(warp(x, flow)[:, :, :7, 1:], x[:, :, 2:, :8], atol=1e-5)
    b = FlowBatch(torch.arange(3), torch.zeros(3).long(), x, radius=2.5, smooth=1.0, levels=255)
    assert torch.allclose(b.distance(flow), torch.full((3,), 5**0.5)) and b.check(flow).all()
    flow[:, 0, 4, 4] += 2  # one pixel apart from its four neighbours
    assert torch.allclose(roughness(flow), torch.full((3,), 4 * 2 / (2 * 9 * 8)))


# -- colours ----------------------------------------------------------------------------------------------------------
def test_cieluv_is_the_standard_and_its_inverse():
    seen = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 1], [0.5, 0.5, 0.5]]).view(4, 3, 1, 1)
    want = torch.tensor([[100, 0, 0], [53.24, 175.01, 37.76], [32.30, -9.40, -130.34], [53.39, 0, 0]]) / 100
    torch.testing.assert_close(luv(seen)[:, :, 0, 0], want, atol=2e-3, rtol=0)
    x = images(2, side=32)
    torch.testing.assert_close(rgb(luv(x)), x, atol=1e-3, rtol=0)


def test_pixels_of_one_colour_are_moved_alike():
    for channels in (1, 3):
        x = images(1, channels)
        x[:, :, 0, 0] = x[:, :, 5, 5]
        b = ColourBatch(torch.arange(1), torch.zeros(1).long(), x, radius=0.2, knots=5, levels=None)
        y = b.inputs(b.random(0))
        assert torch.allclose(y[..., 0, 0], y[..., 5, 5], atol=1e-6) and not torch.allclose(y, x)
    table = torch.arange(8.0).view(1, 1, 2, 2, 2)
    at = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    assert looked_up(table, at).item() == pytest.approx(4 + 1.0)
    assert looked_up(torch.tensor([[[0.0, 2.0, 6.0]]]), torch.full((1, 1, 1, 1), 0.75)).item() == pytest.approx(4)


# -- JPEG -------------------------------------------------------------------------------------------------------------
def test_jpeg_is_scipys_transform_and_inverts():
    from scipy.fft import idctn

    theta = torch.randn(1, 1, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    by_hand = idctn((theta[0, 0, 0, 0] * tables(75, 1)[0]).numpy(), norm="ortho") / 255
    np.testing.assert_allclose(decoded(theta, 75)[0, 0].numpy(), by_hand, atol=1e-5)
    assert torch.allclose(basis() @ basis().T, torch.eye(8), atol=1e-6)
    for channels in (1, 3):
        change = images(2, channels, 16) - 0.5
        torch.testing.assert_close(decoded(encoded(change, 50), 50), change, atol=1e-4, rtol=0)
    assert tables(50, 3)[:, 0, 0].tolist() == [16, 17, 17] and tables(100, 1).max() == 1
    b = JpegBatch(torch.arange(2), torch.zeros(2).long(), images(2, 3, 9), radius=1.0, quality=75, levels=255)
    assert b.shape == (3, 2, 2, 8, 8) and b.inputs(b.random(0)).shape == (2, 3, 9, 9)


# -- perceptual -------------------------------------------------------------------------------------------------------
def test_perceptual_distance_is_that_of_unit_features():
    made = task("perceptual")
    b = made.samples("test", [0, 1])
    p = b.random(0)
    x, y = b.inputs(b.null()), b.inputs(p)
    total, h0, h1 = 0, x, y
    for layer in made.victim.module.net:
        h0, h1 = layer(h0), layer(h1)
        if isinstance(layer, torch.nn.ReLU):
            u, v = (torch.nn.functional.normalize(h, dim=1, eps=1e-5) for h in (h0, h1))
            total = total + (u - v).square().sum(1).flatten(1).mean(1)
    torch.testing.assert_close(b.distance(p), total.sqrt().detach(), atol=1e-3, rtol=0)
    other = task("perceptual", network="digits-mlp").samples("test", [0, 1])
    assert other.features.public() == {"name": "digits-mlp"} and other.check(other.random(1)).all()
    with pytest.raises(TypeError, match="do not leave"):
        Features(module=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU())).public()
    with pytest.raises(AdvgymError, match="no activation layers"):
        Features(module=torch.nn.Flatten())


def test_it_is_bounded_by_the_callers_own_victim():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    x = images(6, 3, 3)
    made = make_task("image/perceptual", victim=net, samples=[(i, int(net(i[None]).argmax())) for i in x])
    b = made.samples("test", [0, 1])
    assert b.check(b.random(0)).all()
    with pytest.raises(AdvgymError, match="name a network="):
        make_task("image/perceptual", victim=lambda z: net(z).detach(), samples=[(x[0], 0)])
