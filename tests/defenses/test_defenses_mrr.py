"""Modular robust redundancy: sparse coding against the peer, modules that differ, thresholds for each class."""

import numpy as np
import pytest
import torch

from advgym import AdvgymError, AttackEnv, make_task, registry
from advgym.agents.defenses.learning import answers
from advgym.agents.defenses.mrr.dictionaries import columns, learn, omp, patches, unit
from advgym.agents.defenses.mrr.latent import strange
from advgym.lib.tallies import auc, roc

SMALL = {"samples": 600, "epochs": 4, "side": 4, "atoms": 24, "sparsity": 3, "lr": 3e-3}
TASK = "image/digits-linf"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVGYM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_pursuit_is_the_peers():
    from sklearn.linear_model import orthogonal_mp

    atoms, y = unit(drawn(12, 30)), drawn(7, 12, seed=1)
    support, weights = omp(y, atoms.unsqueeze(0), torch.zeros(7, dtype=torch.int64), 4)
    ours = torch.zeros(7, 30).scatter_add(1, support, weights)
    theirs = orthogonal_mp(atoms.double().numpy(), y.double().numpy().T, n_nonzero_coefs=4).T
    assert np.allclose(ours.numpy(), theirs, atol=1e-3)


def test_each_signal_has_its_own_dictionary_and_no_other_signal_matters():
    atoms = torch.stack([unit(drawn(9, 15, seed=s)) for s in range(3)])
    y, which = drawn(10, 9, seed=5), torch.tensor([2, 0, 1, 1, 0, 2, 2, 0, 1, 0])
    support, weights = omp(y, atoms, which, 3)
    for k in range(10):
        alone = omp(y[k : k + 1], atoms[which[k]].unsqueeze(0), torch.zeros(1, dtype=torch.int64), 3)
        assert torch.equal(alone[0][0], support[k]) and torch.allclose(alone[1][0], weights[k], atol=1e-4)


def test_what_is_sparse_is_learnt():
    true = unit(drawn(16, 20))
    codes = torch.zeros(800, 20).scatter(1, drawn(800, 20, seed=2).argsort(1)[:, :2], drawn(800, 2, seed=3))
    y = codes @ true.T
    none = torch.zeros(800, dtype=torch.int64)

    def left(atoms):
        support, weights = omp(y, atoms.unsqueeze(0), none, 2)
        return float(
            (y - (weights.unsqueeze(1) @ columns(atoms.unsqueeze(0), none, support)).squeeze(1)).square().mean()
        )

    assert left(learn(y, 20, 2, 0)) < 0.5 * left(unit(y[:20].T)) and torch.equal(learn(y, 20, 2, 0), learn(y, 20, 2, 0))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 9)])
def test_squares_hold_every_pixel_once(shape):
    x = drawn(2, *shape)
    squares = patches(x, 4)
    assert squares.shape[2] == 16 * shape[0] and torch.isclose(squares.square().sum(), x.square().sum(), rtol=1e-5)


@pytest.fixture(scope="module")
def guard(cache):
    task = make_task(TASK)
    return task, registry.defense("mrr").defend(task.victim, task, modules=2, rate=0.05, **SMALL)


def test_the_victim_is_untouched_and_few_clean_images_are_found(guard):
    task, guarded = guard
    x = task.samples("test", list(range(200))).x
    assert torch.equal(guarded(x), task.victim(x))
    statistics = guarded.model.risk.statistics
    with torch.no_grad():
        assert statistics(x).shape == (200, 3)
        assert float((guarded.risk(x) >= 0.5).float().mean()) < 3 * 0.05 * 2
        assert torch.allclose(guarded.risk(x)[5:9], guarded.risk(x[5:9]), atol=1e-4)
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
        assert float((guarded.risk(noise) >= 0.5).float().mean()) > 0.9


def test_an_attack_that_does_not_know_it_is_found(guard):
    task, guarded = guard
    env = AttackEnv(task, assigned=list(range(60)))
    registry.agent("pgd").attack(env, steps=20)
    held = env.reset()[0]["perturbation"]
    clean, moved = env.threat.apply(env.threat.null()), env.threat.apply(held)
    won = task.victim(moved).argmax(1) != task.victim(clean).argmax(1)
    assert won.sum() > 10 and auc(guarded.risk(clean), guarded.risk(moved[won])) > 0.9


def test_modules_are_trained_one_after_another(guard):
    task, guarded = guard
    one = registry.defense("mrr").defend(task.victim, task, modules=1, rate=0.05, **SMALL).model.risk.statistics.parts
    two = guarded.model.risk.statistics.parts
    x = task.samples("test", list(range(100))).x
    y = answers(task.victim, x).argmax(1)
    with torch.no_grad():
        assert torch.equal(one[0].strangeness(x, y), two[0].strangeness(x, y)), "the first knows nothing of the second"
    moved = strange(two[0], x, y, 0.1, 0.15)
    with torch.no_grad():
        grown = [(m.strangeness(moved, y) / m.strangeness(x, y)).log().mean() for m in two[:2]]
    assert (moved - x).abs().max() <= 0.15 + 1e-6 and grown[0] > grown[1] > 0, "what fools one fools the other less"


def test_the_gradient_of_a_code_is_that_of_the_error(guard):
    _, guarded = guard
    part = guarded.model.risk.statistics.parts[-1]
    x, y = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 5, 5])
    at = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(part.strangeness(at, y).sum(), at)
    step = 1e-3 * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    with torch.no_grad():
        slope = (part.strangeness(x + step, y) - part.strangeness(x - step, y)) / 2e-3
    assert torch.allclose(slope, g.flatten(1).norm(dim=1), rtol=0.05)


def test_what_it_cannot_guard_is_named():
    with pytest.raises(AdvgymError, match="image"):
        make_task("speech/synth-keyword", defenses=["mrr"])
    with pytest.raises(AdvgymError, match="classes"):
        make_task("image/synth-scenes-caption", defenses=[("mrr", SMALL)])
    with pytest.raises(AdvgymError, match="at least one"):
        make_task(TASK, defenses=[("mrr", {"modules": 0, "inputs": 0})])
    with pytest.raises(AdvgymError, match="offers no features: the victim has 3 layers"):
        make_task(TASK, defenses=[("mrr", {**SMALL, "layer": -9})])


def test_curves_of_risks():
    at, false, true = roc(torch.tensor([0.2, 0.2, 0.5]), torch.tensor([0.5, 0.9]))
    assert at.tolist() == pytest.approx([float("inf"), 0.9, 0.5, 0.2])
    assert false.tolist() == pytest.approx([0, 0, 1 / 3, 1]) and true.tolist() == pytest.approx([0, 0.5, 1, 1])
    clean, attacked = drawn(50), drawn(40, seed=1) + 1
    apart = attacked.unsqueeze(1) - clean
    assert auc(clean, attacked) == pytest.approx(float((apart > 0).double().mean()))
    with pytest.raises(ValueError, match="finite"):
        auc(clean, torch.tensor([torch.nan]))
