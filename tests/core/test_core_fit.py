"""The shared training loop gives the weights of the loops it replaced, to the bit: they are written out here."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from advgym.core import rng
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.models.convolutions import SAGE
from advgym.envs.graph.models.fitting import Dropped, accuracy, fit
from advgym.envs.image.data import sets as data
from advgym.envs.image.victims import recipes as victims
from advgym.envs.text.victims import recipes
from advgym.lib import fit as library
from advgym.lib.weights import weights_hash


def same(train, literal, module):
    """Whether both leave equal weights in copies of a module, and an equal generator."""
    ends = []
    for how in (train, literal):
        twin = copy.deepcopy(module)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            how(twin)
            ends.append((weights_hash(twin), twin.training, torch.get_rng_state().tolist()))
    assert ends[0] == ends[1] and ends[0][0] != weights_hash(module)


def test_images():
    clean, recipe = data.load("digits", "train"), {"epochs": 2, "batch": 50, "rate": 3e-3, "shift": 1, "seed": 3}
    x, y = clean.pixels(slice(0, 220)), clean.labels[:220]

    def literal(module):
        optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=1e-2)
        schedule = OneCycleLR(optimiser, max_lr=3e-3, total_steps=10, pct_start=0.25)
        keys = torch.arange(220)
        for epoch in range(2):
            for index in rng.bits(3, keys, (), 2 * epoch).argsort().split(50):
                inputs = victims.shifted(x[index], 1, 3, keys[index], 2 * epoch + 1)
                loss = F.cross_entropy(module.train()(inputs), y[index])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        module.eval()

    same(lambda module: victims.fit(module, x, y, recipe), literal, victims.Cnn((1, 8, 8), 10, (4, 4)))


@pytest.mark.parametrize("bucketed", [False, True])
def test_texts(bucketed):
    torch.manual_seed(0)
    x, y, lengths = torch.randn(200, 6), torch.randint(0, 3, (200,)), torch.randint(3, 30, (200,))

    def train(module):
        recipes.fit(
            module, 200, lambda i: F.cross_entropy(module(x[i]), y[i]), epochs=2, lr=1e-2, batch=16, seed=5,
            lengths=lengths if bucketed else None,
        )  # fmt: skip

    def literal(module):
        order = torch.Generator().manual_seed(5)
        optimiser = torch.optim.AdamW(module.train().parameters(), lr=1e-2, weight_decay=0.01)
        total = 2 * 13
        rate = LambdaLR(optimiser, lambda step: min((step + 1) / (0.1 * total + 1), (total - step) / (0.9 * total)))
        for _ in range(2):
            whole = torch.randperm(200, generator=order)
            for index in recipes._buckets(whole, lengths, 16, order) if bucketed else whole.split(16):
                optimiser.zero_grad()
                F.cross_entropy(module(x[index]), y[index]).backward()
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimiser.step()
                rate.step()
        module.eval()

    same(train, literal, nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 3)))


def test_a_graph_keeps_its_best_epoch():
    graph = load_nodes("sbm")
    graph = replace(graph, nodes={**graph.nodes, "val": graph.nodes["test"][:40]})
    truth, train = graph.labels, graph.nodes["train"]
    none = torch.empty(1, 0, 2, dtype=torch.int64)

    def literal(model):
        optimiser = torch.optim.Adam([
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 5e-4},
            {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ], lr=0.05)  # fmt: skip
        features, best, kept = Dropped(graph.graph, 0.5), -1.0, None
        for epoch in range(12):
            optimiser.zero_grad()
            scores = model.train().scores(Adjacency(graph.graph, none), features.draw()).squeeze(1)
            F.cross_entropy(scores[train], truth[train]).backward()
            optimiser.step()
            if epoch >= 2 and (score := accuracy(model, graph, "val")) > best:
                best, kept = score, copy.deepcopy(model.state_dict())
        model.eval().load_state_dict(kept)

    same(lambda model: fit(model, graph, epochs=12, lr=0.05, warm=2), literal, SAGE(graph.graph.features, 3))


def test_the_share_that_is_right():
    x, labels = torch.eye(3).repeat(5, 1), torch.tensor([0, 1, 1]).repeat(5)
    assert library.accuracy(nn.Identity(), SimpleNamespace(take=x.__getitem__), labels, chunk=4) == 10 / 15
