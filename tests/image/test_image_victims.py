import pytest
import torch

from advgym import registry
from advgym.core.task import load_victim
from advgym.envs.image.data import sets as data
from advgym.envs.image.victims import recipes as victims
from advgym.lib.fit import accuracy
from advgym.lib.weights import retrain, weights_hash


@pytest.mark.parametrize(("name", "least", "bytes_"), [("digits-cnn", 0.98, 150_000), ("digits-mlp", 0.97, 100_000)])
def test_shipped_victims(name, least, bytes_, tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    victim = load_victim(name)
    assert not list(tmp_path.iterdir())  # shipped: nothing was trained
    assert (victims.WEIGHTS / f"{name}.safetensors").stat().st_size < bytes_
    test = data.load("digits", "test")
    measured = accuracy(victim.module, test, test.labels)
    assert measured >= least and measured == pytest.approx(victim.card["clean_accuracy"], abs=2 / 450)
    assert victim.access == "gradients" and not any(p.requires_grad for p in victim.module.parameters())
    assert not victim.module.training


def test_another_recipe_is_trained_and_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    first = load_victim("digits-mlp", epochs=1, widths=[8])
    assert first.card["recipe"]["epochs"] == 1 and len(list(tmp_path.rglob("*.safetensors"))) == 1
    retrain("digits-mlp")
    again = load_victim("digits-mlp", epochs=1, widths=[8])
    assert weights_hash(first.module) == weights_hash(again.module)  # one seed, one victim
    torch.manual_seed(5)
    state = torch.get_rng_state()
    load_victim("digits-mlp", epochs=1, widths=[8], seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_answers_do_not_depend_on_the_batch():
    victim = load_victim("digits-cnn")
    x = data.load("digits", "test").pixels(slice(0, 64))
    with torch.no_grad():
        assert torch.allclose(victim(x)[5:6], victim(x[5:6]), atol=1e-5)


def test_architectures_are_rows():
    x = torch.rand(2, 3, 9, 11)
    assert victims.Cnn((3, 9, 11), 4, (5, 6), 7)(x).shape == (2, 4)
    assert victims.Cnn((3, 9, 11), 4, (5,))(x).shape == (2, 4)
    assert victims.Mlp((3, 9, 11), 4, (5, 6))(x).shape == (2, 4)
    for name, row in registry.victims().items():
        if row["make"].startswith("advgym.envs.image.victims.recipes:") and "victim" not in row:
            assert {"dataset", "shape", "widths", "epochs"} <= set(row), name


def test_shifts_move_images_and_keep_their_ink():
    x = torch.zeros(50, 1, 6, 6)
    x[:, :, 2, 3] = 1
    y = victims.shifted(x, 1, 0, torch.arange(50), 0)
    places = {tuple(p) for p in (y[:, 0] == 1).nonzero()[:, 1:].tolist()}
    assert torch.equal(y.sum((1, 2, 3)), torch.ones(50)) and len(places) == 9
    assert all(1 <= r <= 3 and 2 <= c <= 4 for r, c in places)
    assert torch.equal(victims.shifted(x, 0, 0, torch.arange(50), 0), x)


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("mnist-cnn", 0.985), ("mnist-mlp", 0.96)])
def test_mnist_victims(data_dir, name, least):
    victim = load_victim(name)
    assert victim.card["clean_accuracy"] >= least
    held = data.load("mnist", "test")
    assert accuracy(victim.module, held, held.labels) == pytest.approx(victim.card["clean_accuracy"])
