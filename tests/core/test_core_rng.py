"""Keyed randomness: a counter-based generator without state."""

import itertools
import math

import pytest
import torch

from advgym.core.rng import Draws, bits, mix, normal, uniform

KEYS = torch.arange(2000)


def test_known_values():
    """The numbers themselves are part of the contract: data sets and transcripts are made of them."""
    first = mix(torch.tensor([1]))
    assert first.item() == 0x5692161D100B05E5  # SplitMix64's finaliser of 1
    assert torch.equal(uniform(0, torch.tensor([7]), (2,)), uniform(0, torch.tensor([7]), (2,)))


def test_mix_is_a_bijection():
    x = torch.cat([torch.arange(-5000, 5000), torch.tensor([-(2**63), 2**63 - 1])])
    assert len(mix(x).unique()) == len(x)


@pytest.mark.parametrize("draw", [uniform, normal, bits])
def test_a_key_draws_the_same_alone_and_in_any_order(draw):
    keys = torch.tensor([7, 3, 10**12, -4])
    x = draw(5, keys, (2, 3), 1)
    assert x.shape == (4, 2, 3)
    for i in range(4):
        assert torch.equal(draw(5, keys[i : i + 1], (2, 3), 1)[0], x[i])
    assert torch.equal(draw(5, keys.flip(0), (2, 3), 1), x.flip(0))


def test_a_longer_draw_starts_like_a_shorter_one():
    assert torch.equal(uniform(1, KEYS, (8,))[:, :3], uniform(1, KEYS, (3,)))


def test_uniform_moments():
    u = uniform(1, KEYS, (64,)).double()
    n = u.numel()
    assert u.min() >= 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 4 / math.sqrt(12 * n)
    assert abs(u.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / n)
    counts = (u.flatten() * 16).long().bincount(minlength=16).double()
    assert ((counts - n / 16) ** 2 / (n / 16)).sum() < 45  # chi-square, 15 degrees, p ~ 1e-4
    columns = u[:, :8] - 0.5
    cross = (columns.T @ columns / len(u) * 12).fill_diagonal_(0)
    assert cross.abs().max() < 5 / math.sqrt(len(u))
    rows = u[:200] - 0.5
    cross = (rows @ rows.T / 64 * 12).fill_diagonal_(0)
    assert cross.abs().max() < 6 / math.sqrt(64), "keys are not independent of each other"


def test_normal_moments():
    z = normal(3, KEYS, (64,)).double()
    n = z.numel()
    assert z.isfinite().all()
    assert abs(z.mean()) < 4 / math.sqrt(n) and abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / n) and abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)


def test_integers_stay_in_range():
    i = Draws(0, KEYS).integers(7, 10)
    assert i.min() == 0 and i.max() == 6


def test_every_call_moves_on():
    draws = Draws(0, KEYS[:3])
    a, b = draws.uniform(4), draws.uniform(4)
    assert not torch.equal(a, b)
    again = Draws(0, KEYS[:3])
    assert torch.equal(again.uniform(4), a) and torch.equal(again.uniform(4), b)


def test_no_collisions_between_seeds_keys_and_streams():
    """Each (seed, key, stream) is a stream of its own: none is another one shifted."""
    seen = {}
    seeds, keys, streams = (0, 1, 2, 3, 5, 1_000_003, 1_000_004, -1), torch.arange(-3, 40), (0, 1, 2, 11, 12)
    for seed, stream in itertools.product(seeds, streams):
        for key, row in zip(keys.tolist(), bits(seed, keys, (3,), stream).tolist(), strict=True):
            for value in row:
                here = (seed, stream, key)
                assert seen.setdefault(value, here) == here, f"{here} draws what {seen[value]} draws"


def test_neighbouring_seeds_and_keys_are_uncorrelated():
    u = torch.stack([uniform(seed, KEYS[:300], (32,)) for seed in range(3)]).double() - 0.5
    for a, b in ((u[0, 1:], u[1, :-1]), (u[0], u[1]), (u[0, :-1], u[0, 1:]), (u[0, 2:], u[2, :-2])):
        assert abs(float((a * b).mean()) * 12) < 5 / math.sqrt(a.numel())


def test_shape_of_nothing():
    assert uniform(0, KEYS[:4], ()).shape == (4,)
    assert uniform(0, KEYS[:0], (3,)).shape == (0, 3)
    assert uniform(0, KEYS[:2], (0,)).shape == (2, 0)
    assert normal(0, KEYS[:2], ()).shape == (2,)


def test_huge_seeds():
    for seed in (2**63, 2**64 + 5, -(2**70)):
        assert uniform(seed, KEYS[:2]).isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="gpu: no CUDA device")
def test_the_gpu_draws_the_same():
    assert torch.equal(bits(3, KEYS, (5,), 2), bits(3, KEYS.cuda(), (5,), 2).cpu())
    assert torch.equal(uniform(3, KEYS, (5,), 2), uniform(3, KEYS.cuda(), (5,), 2).cpu())
