"""Training on the card, of what takes a device, with few epochs; what does not trains the same beside a card."""

import pytest
import torch
from same import both
from torch import nn

from advgym.agents.learned.policy import play
from advgym.agents.shared.policy_net import CellPolicy, ppo
from advgym.core.task import defend, make_task
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.models.training import Retrained
from advgym.envs.graph.victims.refit import Refitted
from advgym.envs.image.victims import recipes as image
from advgym.envs.speech import victims as speech
from advgym.factory import make
from advgym.lib.weights import cache_in, weights_hash

pytestmark = pytest.mark.device


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))


def same(run, draws="cpu"):
    here, there = both(run, draws)
    assert not isinstance(here, str) or len(here) == 64, here
    assert here == there, (here, there)


def rows(device):
    graph = load_nodes("karate")
    flips = torch.tensor([[[0, 1], [2, 3]]], device=device)
    return graph, GlobalRows(graph.graph.to(device), graph.nodes["test"].to(device), flips)


@pytest.mark.parametrize("kind", ["sgc", "gcn", "sage", "gat", "appnp", "rgcn", "gnnguard"])
def test_a_victim_that_is_fitted_for_every_query(kind):
    """Its start and its dropout are drawn where it computes: they are compared with the CPU's numbers there."""

    def run(device):
        data, graphs = rows(device)
        return Refitted(data, kind, epochs=2).to(device)(graphs).tolist()

    same(run)


def test_a_victim_that_is_trained_in_stacks():
    def run(device):
        data, graphs = rows(device)
        model = Retrained(data.labels, data.nodes["train"], data.classes, epochs=2).to(device)
        return model(graphs).tolist()

    same(run)


@pytest.mark.parametrize(
    "name", ["image/digits-linf", "text/synth-wordswap", "graph/karate-edge", "speech/synth-keyword"]
)
def test_adversarial_training_is_the_same_beside_a_card(name, tmp_path):
    """It trains on the CPU, whatever the attack runs on: one defended victim."""

    def run(device):
        with cache_in(tmp_path / str(device)):
            task = make_task(name, knowledge="score", queries=4)
            guarded = defend(task, [("adversarial-training", {"samples": 8, "epochs": 1, "queries": 2})])
            return weights_hash(guarded.victim.module)

    same(run, "own")


@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn", "synth-keyword-cnn"])
def test_recipes_train_on_the_cpu_beside_a_card(name, monkeypatch):
    from advgym.core.task import load_victim
    from advgym.lib import weights

    monkeypatch.setattr(speech, "TRAIN_VOICES", 1)
    monkeypatch.setattr(speech, "TAKES", 1)

    def run(device):
        weights.retrain(name)
        victim = load_victim(name, epochs=1)
        assert {p.device.type for p in victim.module.parameters()} == {"cpu"}
        return weights_hash(victim.module)

    same(run, "own")


@pytest.mark.parametrize(
    "build", [lambda: image.Mlp((1, 8, 8), 10, (16,)), lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10))]
)
def test_images_are_learned_from_where_the_network_lies(build):
    def run(device):
        torch.manual_seed(0)
        module = build().to(device)
        x = torch.linspace(0, 1, 16 * 64).view(16, 1, 8, 8).to(device)
        recipe = {"epochs": 1, "batch": 8, "seed": 0, "rate": 1e-2, "shift": 1}
        image.fit(module, x, (torch.arange(16) % 10).to(device), recipe)
        return weights_hash(module)

    same(run)


def test_a_policy_learns_and_plays_on_the_card():
    def run(device):
        torch.manual_seed(0)
        policy = CellPolicy().to(device)
        options = {"split": "train", "knowledge": "score", "queries": 3, "device": device}
        ppo(
            policy,
            lambda: make("text/synth-wordswap", 2, **options),
            steps=12,
            lanes=2,
            queries=3,
            lr=1e-3,
            seed=0,
            epochs=1,
        )
        held = play(make("text/synth-wordswap", 2, knowledge="score", queries=3, device=device), policy, 0)
        return [weights_hash(policy), held.tolist()]

    same(run)
