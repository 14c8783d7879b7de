"""Weights: shipped, cached or trained now; safetensors alone."""

import logging
import random
import re

import numpy as np
import pytest
import torch
from torch import nn

from advgym import DataError
from advgym.lib import weights


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Recipe:
    """Counts how often it trains."""

    def __init__(self):
        self.trained = 0

    def load(self, name="v", recipe=None, **kwargs):
        def train(module):
            self.trained += 1
            with torch.no_grad():
                module.weight.fill_(float(self.trained))
                module.bias.uniform_()
            return {"clean_accuracy": 0.5}

        return weights.load_or_train(name, lambda: nn.Linear(3, 2), train, recipe=recipe or {"seed": 1}, **kwargs)


def test_trains_once_and_keeps(cache, caplog):
    r = Recipe()
    with caplog.at_level(logging.WARNING, logger="advgym"):
        module, card = r.load()
    assert "training the victim 'v'" in caplog.text and str(cache) in caplog.text
    again, same = r.load()
    assert r.trained == 1 and torch.equal(module.bias, again.bias)
    assert card["clean_accuracy"] == same["clean_accuracy"] == 0.5 and same["recipe"] == {"seed": 1}
    assert not module.training and not any(p.requires_grad for p in module.parameters())
    assert not list(cache.rglob("*.part"))


def test_another_recipe_trains_anew():
    r = Recipe()
    r.load(recipe={"seed": 1, "epochs": 2})
    r.load(recipe={"seed": 1, "epochs": 3})
    r.load(recipe={"epochs": 2, "seed": 1})
    assert r.trained == 2


def test_retrain_forces_one_training(cache, tmp_path):
    r = Recipe()
    r.load()
    weights.retrain("v")
    assert float(r.load()[0].weight.mean()) == 2 and float(r.load()[0].weight.mean()) == 2 and r.trained == 2


def test_shipped_weights_come_first(tmp_path):
    shipped = tmp_path / "v.safetensors"
    r = Recipe()
    r.load()
    next(weights.cache_dir().rglob("*.safetensors")).rename(shipped)
    other = Recipe()
    _module, card = other.load(shipped=shipped)
    assert other.trained == 0 and card["clean_accuracy"] == 0.5
    other.load(shipped=tmp_path / "missing.safetensors")
    assert other.trained == 1


@pytest.mark.parametrize("how", ["garbage", "empty", "truncated", "other model"])
def test_a_corrupted_file_is_a_data_error(cache, how):
    r = Recipe()
    r.load()
    path = next(cache.rglob("*.safetensors"))
    data = path.read_bytes()
    if how == "other model":
        weights.save_weights(path, nn.Linear(5, 5), {})
    else:
        path.write_bytes({"garbage": b"\x00" * 64, "empty": b"", "truncated": data[:-4]}[how])
    with pytest.raises(DataError, match=f"(?s){re.escape(path.name)}.*delete it"):
        r.load()


def test_a_card_that_is_none_is_a_data_error(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    state = {k: v.clone() for k, v in nn.Linear(3, 2).state_dict().items()}
    for card in ("[1, 2]", "3", "{"):
        save_file(state, str(path), metadata={"card": card})
        with pytest.raises(DataError):
            weights.load_weights(path, nn.Linear(3, 2))
    save_file(state, str(path))
    assert weights.load_weights(path, nn.Linear(3, 2)) == {}


def test_random_state_is_untouched():
    r = Recipe()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    r.load()
    r.load()
    assert torch.equal(states[0], torch.get_rng_state()) and (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()


def test_training_is_seeded_by_the_recipe():
    bias = []
    for seed in (1, 2, 1):
        torch.rand(3)
        r = Recipe()
        bias.append(r.load(f"v{len(bias)}", {"seed": seed})[0].bias)
    assert torch.equal(bias[0], bias[2]) and not torch.equal(bias[0], bias[1])


def test_a_failed_training_leaves_nothing(cache):
    def train(module):
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError):
        weights.load_or_train("v", lambda: nn.Linear(1, 1), train, recipe={})
    assert not list(cache.rglob("*.safetensors*"))


def test_an_interrupted_write_leaves_the_old_file(cache, monkeypatch):
    r = Recipe()
    r.load()
    path = next(cache.rglob("*.safetensors"))
    before = path.read_bytes()

    def torn(state, name, metadata=None):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", torn)
    weights.retrain("v")
    with pytest.raises(OSError):
        r.load()
    weights._forced.discard("v")
    assert path.read_bytes() == before


def test_fingerprints_and_hashes():
    assert weights.fingerprint({"a": 1, "b": 2}) == weights.fingerprint({"b": 2, "a": 1})
    assert re.fullmatch(r"[0-9a-f]{12}", weights.fingerprint([1]))
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    assert weights.weights_hash(a) != weights.weights_hash(b)
    b.load_state_dict(a.state_dict())
    assert weights.weights_hash(a) == weights.weights_hash(b)


def test_data_dir(monkeypatch, tmp_path):
    monkeypatch.delenv("ADVGYM_DATA", raising=False)
    assert weights.data_dir() is None
    monkeypatch.setenv("ADVGYM_DATA", str(tmp_path))
    assert weights.data_dir() == tmp_path
