"""Kenansville's cells: an orthogonal transform, a closed table, and a bound that is a sum."""

from functools import partial

import pytest
import torch

from advgym import AdvgymError, attack, check_vector_env, make, make_task, verify
from advgym.envs.speech.perturb import bands

torch.set_num_threads(1)


def batch(ids=(0, 1, 2), **options):
    return make_task("speech/synth-bands", **options).samples("test", list(ids))


@pytest.mark.parametrize("samples", [100, 256, 1000, 1024])
def test_the_transform_is_orthogonal_and_comes_back(samples):
    x = torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    cells = bands.forward(x, 256)
    torch.testing.assert_close(bands.backward(cells, samples), x, atol=2e-5, rtol=0)
    torch.testing.assert_close(cells.square().sum((1, 2)), x.square().sum(1), rtol=1e-5, atol=0)


def test_bands_are_equally_wide_in_bark_and_none_is_empty():
    found = bands.bands_of(12, 256, 8000)
    assert (found.diff() >= 0).all() and found.unique().tolist() == list(range(12))
    assert found[int(256 * 1000 / 4000)] == int(12 * bands.bark(1007.8) / bands.bark(4000))


def test_an_edit_takes_its_cell_away_and_leaves_the_rest():
    b = batch()
    site = b.energy.argmax(1)
    p = b.null()
    p[:, 0, 0], p[:, 0, 1] = site, 3  # 120 dB: all of it
    left = bands.forward(b.inputs(b.look(p).form), len(b.band))
    power = b._cells(left.square())
    rows = torch.arange(3)
    assert (power[rows, site] < 1e-3 * b.energy[rows, site]).all()
    rest = torch.ones_like(power, dtype=torch.bool)
    rest[rows, site] = False
    assert ((power - b.energy).abs()[rest] < 2e-3 * b.energy.amax()).all()
    x = b.inputs(b.look(p).form)
    assert torch.equal(x * 32768, torch.round(x * 32768)) and not x[:, -1].any()


def test_the_bound_is_the_ratio_of_powers():
    b = batch(snr=12.0)
    p = b.random(5)
    assert b.check(p).all()
    change = b.inputs(b.look(p).form) - b.x
    ratio = 10 * torch.log10(b.x.double().square().sum(1) / change.double().square().sum(1))
    assert (ratio > 12 - 0.05).all()
    loudest = b.energy.topk(b.rows_max, dim=1).indices
    full = torch.stack([loudest, torch.full_like(loudest, 3)], 2)
    assert not b.check(full).any() and b.check(b.project(full)).all()
    change = b.x - b.inputs(full)
    assert (10 * torch.log10(b.x.square().sum(1) / change.square().sum(1)) < 12).all()


def test_silence_is_no_site():
    b = batch()
    late = (torch.arange(b.sites) // b.bands - 1) * b.blocks * 256 > b.length.unsqueeze(1) + 512
    assert late.any() and not b.site_mask()[late].any()


def test_ranked_cells_are_those_of_the_largest_slope():
    env = make("speech/synth-bands", lanes=2)
    env.reset(seed=0)
    b = env._batch
    edits, gains = env.rank(k=3)
    for e in range(3):
        p, w = env.threat.null(), torch.zeros(2, b.rows_max, requires_grad=True)
        p[:, 0] = edits[:, e]
        obs, *_ = env.step((p, w))
        (g,) = torch.autograd.grad(obs["surrogate"].sum(), w)
        torch.testing.assert_close(g[:, 0], gains[:, e], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("knowledge", ["decision"])
def test_the_task_keeps_the_contract(knowledge):
    check_vector_env(partial(make, "speech/synth-bands", knowledge=knowledge, cells=6))


def test_it_is_attacked_and_verified():
    result = attack("speech/synth-bands", "first-order", episodes=3, lanes=3, clean=3, queries=20)
    assert verify(result) == [] and result.columns["snr"].mean > 10


@pytest.mark.parametrize(
    ("options", "said"),
    [({"decibels": []}, "decibels"), ({"decibels": [6.0, 6.0]}, "once"), ({"cells": 0}, "cells"), ({"snr": -1}, "snr"),
     ({"bands": True}, "bands"), ({"decibels": [-3.0]}, "above 0")],
)  # fmt: skip
def test_mistakes_are_explained(options, said):
    with pytest.raises(AdvgymError, match=said):
        make_task("speech/synth-bands", **options)
