"""An answer that ignores what its task perturbs is said to; no embedded task is called so."""

import numpy as np
import pytest
import torch
from torch import nn

import advgym
from advgym import registry
from advgym.core.task import make_task
from advgym.core.victim import Victim
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.victims.modules import caching
from advgym.judge.blind import blind_flag

EMBEDDED = ("digits", "karate", "sbm", "synth-reviews", "synth-long-reviews", "synth-headlines", "synth-digits",
            "sbm-gaussian")  # fmt: skip


def _embedded():
    return [name for name, row in sorted(registry.tasks().items()) if row.get("dataset") in EMBEDDED]


@pytest.mark.parametrize("name", _embedded())
def test_no_embedded_task_is_blind(name):
    task = make_task(name)
    assert blind_flag(task, "test", list(range(min(6, task.sizes["test"]))), "cpu") is None


def test_embedded_tasks_were_found():
    kinds = {name.partition("/")[0] for name in _embedded()}
    assert kinds == {"image", "text", "graph", "speech"} and len(_embedded()) > 12


def constant(classes):
    return lambda x: torch.tensor([[1.0] + [0.0] * (classes - 1)]).expand(len(x), -1)


def _images():
    g = torch.Generator().manual_seed(0)
    return [(torch.rand(1, 4, 4, generator=g), i % 2) for i in range(6)]


def _speech():
    t = np.arange(800) / 8000
    return [(0.5 * np.sin(2 * np.pi * f * t), i % 2) for i, f in enumerate((200.0, 300.0, 400.0))]


TEXTS = [("a good film", 0), ("a good story", 1), ("one good day", 0)]
CONSTANT = {
    "image/linf": {"samples": _images(), "victim": constant(2)},
    "image/l2": {"samples": _images(), "victim": constant(2)},
    "image/pixel": {"samples": _images(), "victim": constant(2)},
    "speech/keyword": {"samples": _speech(), "victim": constant(2)},
    "text/wordswap": {"samples": TEXTS, "victim": constant(2), "candidates": {"good": ["fine", "decent"]}},
    "text/charswap": {"samples": TEXTS, "victim": constant(2)},
    "graph/edge": {"samples": "karate", "victim": lambda x, e: torch.eye(4)[torch.zeros(len(x)).long()]},
    "graph/global": {"samples": "karate", "victim": lambda x, e: torch.eye(4)[torch.zeros(len(x)).long()]},
    "graph/inject": {"samples": "karate", "victim": lambda x, e: torch.eye(4)[torch.zeros(len(x)).long()]},
    "graph/rewire": {"samples": "karate", "victim": lambda x, e: torch.eye(4)[torch.zeros(len(x)).long()]},
}


@pytest.mark.parametrize("name", CONSTANT)
def test_a_constant_victim_is_blind(name):
    given = dict(CONSTANT[name])
    if given["samples"] == "karate":
        given["samples"] = load_nodes("karate")
    task = make_task(name, **given)
    found = blind_flag(task, "test", list(range(min(3, task.sizes["test"]))), "cpu")
    assert found is not None and "does not read what this task perturbs" in found


def test_a_keyed_constant_is_blind_and_a_keyed_reader_is_not():
    def draw(x, keys):
        return torch.stack([keys.double() % 7, keys.double() % 5], 1)

    def reads(x, keys):
        return draw(x, keys) + x.flatten(1).sum(1, keepdim=True) * torch.tensor([1.0, -1.0])

    for model, blind in ((draw, True), (reads, False)):
        task = make_task("image/linf", samples=_images(), victim=Victim(model, keyed=True, access="scores"))
        assert (blind_flag(task, "test", [0, 1, 2], "cpu") is not None) == blind


def test_labels_alone_are_judged_far_beyond_the_budget():
    """A label that stays within a small ball is robustness; one that never changes is none."""
    images = _images()
    bright = Victim(lambda x: (x.flatten(1).mean(1) > 0.5).long(), access="labels")
    same = Victim(lambda x: torch.zeros(len(x), dtype=torch.int64), access="labels", card={"classes": 2})
    small = {"samples": [(torch.full((1, 4, 4), v), int(v > 0.5)) for v in (0.1, 0.9)], "eps": "2/255"}
    assert blind_flag(make_task("image/linf", victim=same, samples=images), "test", [0, 1], "cpu")
    # All white, all black.
    assert blind_flag(make_task("image/linf", victim=bright, **small), "test", [0, 1], "cpu") is None


def test_poisoning_is_left_out():
    task = make_task("graph/karate-poison", fresh=1)
    assert task.victim.retrains and blind_flag(task, "test", [0], "cpu") is None


class Cached(nn.Module):
    """Two graph convolutions that keep the first adjacency they see."""

    def __init__(self, features, classes):
        super().__init__()
        from torch_geometric.nn import GCNConv, SGConv

        self.conv, self.last = GCNConv(features, 8, cached=True), SGConv(8, classes, K=2, cached=False)

    def forward(self, x, edge_index, edge_weight=None):
        return self.last(self.conv(x, edge_index, edge_weight).relu(), edge_index, edge_weight)


class Mlp(nn.Module):
    """Reads no edge."""

    def __init__(self, features, classes):
        super().__init__()
        self.net = nn.Linear(features, classes)

    def forward(self, x, edge_index):
        return self.net(x)


def test_an_mlp_on_a_graph_is_honest_and_blind_to_edges_alone():
    torch.manual_seed(0)
    data = load_nodes("sbm")
    model = Mlp(data.graph.features, 3)
    assert blind_flag(make_task("graph/edge", samples=data, victim=model), "test", [0, 1, 2], "cpu")
    assert blind_flag(make_task("graph/feature", samples=data, victim=model), "test", [0, 1, 2], "cpu") is None


@pytest.mark.parametrize("warm", [False, True])
def test_a_cache_of_the_first_graph_is_off_while_a_model_is_asked(warm, caplog):
    """GCNConv(cached=True) answered about the first graph for ever: 100 % robust, no flag."""
    torch.manual_seed(0)
    data = load_nodes("karate")
    model = Cached(34, 4).eval()
    plain = Cached(34, 4).eval()
    plain.load_state_dict(model.state_dict())
    plain.conv.cached = False
    if warm:
        model(data.graph.inputs_x(), data.graph.edge_index())
    kept = model.conv._cached_edge_index
    task = make_task("graph/edge", samples=data, victim=model)
    assert caching(model) == ["conv (GCNConv)"] == task.victim.card["caching_off"] and "caches" in caplog.text
    truth = make_task("graph/edge", samples=data, victim=plain)
    batch = task.samples("test", [0, 1, 2, 3])
    x = batch.inputs(batch.random(1))
    torch.testing.assert_close(task.victim(x), truth.victim(x))
    assert model.conv.cached and model.conv._cached_edge_index is kept
    assert blind_flag(task, "test", [0, 1, 2], "cpu") is None
    rates = [
        advgym.attack("graph/edge", "greedy", samples=data, victim=v, episodes=6, knowledge="score").success_rate
        for v in (model, plain)
    ]
    assert rates[0] == rates[1]


def test_a_cache_of_features_is_off_too():
    from torch_geometric.nn import SGConv

    data = load_nodes("karate")
    torch.manual_seed(0)
    model = SGConv(34, 4, K=2, cached=True)
    task = make_task("graph/feature", samples=data, victim=model)
    batch = task.samples("test", [0, 1])
    scores = [task.victim(batch.inputs(p)).detach() for p in (batch.null(), batch.random(0))]
    assert float((scores[0] - scores[1]).abs().max()) > 1e-4 and model._cached_x is None


def test_a_module_is_found_as_it_was():
    """Dropout and training mode: eval while it is asked, and afterwards what it was."""
    data = load_nodes("karate")
    model = nn.ModuleDict({"net": nn.Linear(34, 4), "drop": nn.Dropout(0.5)})
    model.forward = lambda x, edge_index: model["drop"](model["net"](x))
    model.train()
    model["net"].eval()
    task = make_task("graph/feature", samples=data, victim=model)
    batch = task.samples("test", [0, 1])
    x = batch.inputs(batch.null())
    torch.testing.assert_close(task.victim(x), task.victim(x))
    assert model.training and model["drop"].training and not model["net"].training
