import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.envs.image.perturb.pixels import PixelBatch, random_levels
from advgym.errors import DataError


def batch(n=3, shape=(1, 3, 4), pixels=3, lattice=4, seed=0):
    x = torch.randint(0, lattice + 1, (n, *shape), generator=torch.Generator().manual_seed(seed)) / lattice
    return PixelBatch(torch.arange(n), torch.zeros(n).long(), x, pixels=pixels, lattice=lattice)


INT = st.one_of(st.integers(-3, 13), st.sampled_from([-(1 << 62), 1 << 62]))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(INT, INT), min_size=3, max_size=3), st.integers(0, 20))
def test_whatever_is_projected_is_valid(pairs, seed):
    b = batch(1, seed=seed)
    p = torch.tensor([pairs])
    look = b.look(b.project(p))
    assert bool(look.valid) and float(look.distance) <= 3
    x = b.inputs(look.form)
    assert int((x != b.x).sum()) == int(look.distance)  # an edit always changes its pixel
    # The check by itself, from its definition.
    edits = [e for e in pairs if e != (-1, -1)]
    sites = [s for s, _ in edits]
    real = len(set(sites)) == len(sites) and all(
        0 <= s < 12 and 0 <= c <= 4 and c != round(float(b.x.flatten()[s]) * 4) for s, c in edits
    )
    assert bool(b.look(p).real) == real == bool(b.look(p).valid)


def test_inputs_are_the_levels_and_the_rest_is_untouched():
    b = batch(2, (2, 3, 3), 4, 255)
    form = b.look(b.random(3)).form
    x = b.inputs(form)
    want = b.x.clone().flatten(1)
    for row in range(2):
        for site, choice in form[row].tolist():
            if site >= 0:
                want[row, site] = torch.tensor(choice) / 255
    assert torch.equal(x, want.view_as(x))
    assert torch.equal(b.inputs(b.null()), b.x)
    rows = torch.tensor([1, 1, 0])
    assert torch.equal(b.inputs(form[rows], rows), x[rows])


def test_masks_agree_with_legal():
    b = batch(2)
    grid = b.mask()
    site, choice = torch.meshgrid(torch.arange(12), torch.arange(5), indexing="ij")
    legal = b.legal(site.reshape(1, -1).expand(2, -1), choice.reshape(1, -1).expand(2, -1)).view(2, 12, 5)
    assert torch.equal(grid, legal) and int((~grid).sum()) == 24
    assert torch.equal(b.site_mask(), grid.any(2))
    assert torch.equal(b.choice_mask(torch.tensor([7, 2])), grid[[0, 1], [7, 2]])
    rows = torch.tensor([1])
    assert torch.equal(b.choice_mask(torch.tensor([7]), rows)[0], grid[1, 7])
    with pytest.raises(NotImplementedError, match="dense mask"):
        batch(1, (3, 32, 32), 3, 255).mask()


def test_random_sets_are_valid_and_keyed():
    b = batch(30)
    p = b.random(1)
    assert bool(b.look(p).valid.all()) and not bool(b.look(p).null.any())
    assert torch.equal(b.random(1, torch.tensor([4, 2])), p[[4, 2]])


def test_dump_and_load():
    b = batch(4)
    form = b.look(b.random(5)).form
    stored = json.loads(json.dumps([b.dump(form[i], i) for i in range(4)]))
    assert torch.equal(b.look(b.load(stored)).form, form)
    for bad in (
        {"edits": [[99, 0]]},
        {"edits": [[0, 9]]},
        {"edits": [["a", 0]]},
        {"edits": 3},
        {"edits": [[0, 1]] * 4},
    ):
        with pytest.raises(DataError):
            b.load([bad])


def cells(b, form, row):
    """Every single edit that may be added to a row of `form`."""
    held = {s for s, _ in form[row].tolist()}
    own = b.level[row].tolist()
    return [(s, c) for s, c in itertools.product(range(b.sites), range(b.choices)) if s not in held and c != own[s]]


@pytest.mark.parametrize("k", [1, 5, 44, 100])
@pytest.mark.parametrize("shape", [(1, 3, 4), (2, 3, 2)])
def test_rank_is_the_brute_force_order_and_exact_for_a_linear_victim(k, shape):
    b = batch(3, shape)
    weight = torch.randn(b.sites, generator=torch.Generator().manual_seed(4))

    def model(x):
        return x.flatten(1) @ weight

    form = b.null()
    form[1, 0] = torch.tensor([2, (int(b.level[1, 2]) + 1) % 5])
    form[2, :2] = torch.tensor([[0, (int(b.level[2, 0]) + 2) % 5], [11, (int(b.level[2, 11]) + 1) % 5]])
    x, leaves = b.leaves(form)
    grads = torch.autograd.grad(model(x).sum(), leaves)
    edits, gain = b.rank_by(form, list(grads), k)
    assert edits.shape == (3, k, 2) and gain.shape == (3, k)
    base = model(b.inputs(form))
    for row in range(3):
        legal = cells(b, form, row)
        exact = {}
        for edit in legal:
            longer = form[row : row + 1].clone()
            longer[0, 2] = torch.tensor(edit)
            exact[edit] = float(model(b.inputs(longer, torch.tensor([row]))) - base[row])
        order = sorted(exact.values(), reverse=True)[:k]
        assert torch.allclose(gain[row, : len(order)], torch.tensor(order), atol=1e-5)
        found = [tuple(e) for e in edits[row].tolist()]
        for edit, value in zip(found[: len(order)], gain[row].tolist(), strict=False):
            assert exact[edit] == pytest.approx(value, abs=1e-5)
        assert len(set(found[: len(order)])) == len(order)
        assert all(e == (-1, -1) for e in found[len(order) :]) and bool(torch.isneginf(gain[row, len(order) :]).all())


def test_rank_survives_missing_and_broken_gradients():
    b = batch(2)
    for g in (None, torch.full((2, 1, 3, 4), float("nan"))):
        edits, gain = b.rank_by(b.null(), [g], 4)
        assert bool(torch.isfinite(gain).all()) and bool(b.legal(edits[..., 0], edits[..., 1]).all())


def test_relaxed_runs_from_clean_to_edited():
    b = batch(3)
    form = b.look(b.random(2)).form
    shape = form.shape[:2]
    assert torch.equal(b.relaxed(form, torch.zeros(shape)), b.x)
    assert torch.equal(b.relaxed(form, torch.ones(shape)), b.inputs(form))
    weights = torch.full(shape, 0.5, requires_grad=True)
    half = b.relaxed(form, weights)
    assert torch.allclose(half, (b.x + b.inputs(form)) / 2)
    (g,) = torch.autograd.grad(half.sum(), weights)
    change = (b.inputs(form) - b.x).flatten(1)
    want = torch.where(form[..., 0] >= 0, change.gather(1, form[..., 0].clamp_min(0)), 0)
    assert torch.allclose(g, want)


def test_view_has_features_per_site_for_small_images():
    b = batch(3)
    features = b.view()["site_features"]
    assert features.shape == (3, 12, 4)
    assert torch.equal(features[..., 0], b.x.flatten(1))
    assert features[0, 11, 1:3].tolist() == [1, 1] and features[0, 0, 1:3].tolist() == [0, 0]
    assert float(features[0, 5, 3]) == pytest.approx(float(b.x[0, 0, 1, 1] - b.x[0, 0, :3, :3].mean()), abs=1e-6)
    assert set(batch(1, (3, 40, 40)).view()) == {"clean"}
    swapped = b.put(torch.tensor([0]), batch(1, seed=9))
    assert torch.equal(swapped.view()["site_features"][0], batch(1, seed=9).view()["site_features"][0])


def test_random_levels_read_only_the_input_and_the_keys():
    x = batch(200, (1, 8, 8), 3, 16).x
    keys = torch.arange(200)
    y = random_levels(x, 0.25, keys, lattice=16)
    assert torch.equal(y[[7]], random_levels(x[[7]], 0.25, keys[[7]], lattice=16))
    assert torch.equal(random_levels(x, 0.0, keys, lattice=16), x)
    every = random_levels(x, 1.0, keys, lattice=16)
    assert torch.equal(every, random_levels(1 - x, 1.0, keys, lattice=16))
    share = (every * 16).round().long().flatten().bincount(minlength=17) / every.numel()
    assert bool((share - 1 / 17).abs().max() < 0.01)
    changed = float((y != x).float().mean())
    assert abs(changed - 0.25 * 16 / 17) < 0.01  # one draw in 17 is the level it was
