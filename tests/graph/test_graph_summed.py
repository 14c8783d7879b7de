"""Modules of known convolutions, read through sums: the same answers, and the gradient of every pair."""

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

import advgym
from advgym.core.victim import Victim
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.inputs.adjacency import Tape
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.victims import summed
from advgym.envs.graph.victims.stacked import Stacked

DATA = load_nodes("sbm")
GRAPH, NODES = DATA.graph, torch.arange(DATA.graph.size)
NONE = torch.empty(1, 0, 2, dtype=torch.int64)
KNOWN = [
    (GCNConv, {}), (GCNConv, {"add_self_loops": False}), (GCNConv, {"improved": True, "cached": True}),
    (SAGEConv, {}), (SAGEConv, {"project": True, "normalize": True}), (SAGEConv, {"root_weight": False}),
]  # fmt: skip


class Net(nn.Module):
    """Two convolutions, called as PyG's examples call them."""

    def __init__(self, conv, **settings):
        super().__init__()
        self.one, self.two = conv(GRAPH.features, 8, **settings), conv(8, DATA.classes, **settings)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x, edge_index):
        return self.two(self.norm(self.one(x, edge_index)).relu(), edge_index)


class Weighted(Net):
    """The same with weights."""

    def forward(self, x, edge_index, edge_weight=None):
        h = self.norm(self.one(x, edge_index, edge_weight)).relu()
        return self.two(h, edge_index, edge_weight)


class ReadsDegrees(Net):
    """Reads the edges itself, beside its convolutions."""

    def forward(self, x, edge_index):
        degree = torch.bincount(edge_index[1], minlength=len(x)).unsqueeze(1)
        return super().forward(x, edge_index) + 0.1 * degree


class Normed(Net):
    """Takes the mean over all nodes that it is asked about: two graphs at once are another question."""

    def forward(self, x, edge_index):
        scores = super().forward(x, edge_index)
        return scores - scores.mean(0)


class Own(GCNConv):
    """A layer that may do anything."""


def made(kind, conv, **settings):
    torch.manual_seed(0)
    return kind(conv, **settings).eval().double()


@pytest.mark.parametrize(("conv", "settings"), KNOWN)
def test_every_pair_has_the_gradient_of_its_weight(conv, settings):
    model = Stacked(made(Net, conv, **settings))
    assert model.sums(GRAPH)
    rows, tape = GlobalRows(GRAPH, NODES, NONE), Tape()
    cotangent = torch.linspace(-1, 1, len(NODES) * DATA.classes, dtype=torch.float64).view(len(NODES), -1)
    (model(GlobalRows(GRAPH, NODES, NONE, tape=tape)) * cotangent).sum().backward()
    left, right = tape.factors(0)
    clean, h = float((model(rows) * cotangent).sum()), 1e-6
    for a, b in ((0, 5), (1, 40), (2, 17), *GRAPH.pairs[:3].tolist()):
        flips, weights = torch.tensor([[[a, b]]]), torch.tensor([[h]], dtype=torch.float64)
        moved = float((model(GlobalRows(GRAPH, NODES, flips, weights)) * cotangent).sum())
        gain = (left[a] @ right[b] + left[b] @ right[a]) * (
            1 - 2 * GRAPH.has(torch.tensor(a), torch.tensor(b)).double()
        )
        assert gain.item() == pytest.approx((moved - clean) / h, rel=1e-3, abs=1e-5)


def test_relaxed_answers_are_those_of_the_weighted_module():
    module = made(Weighted, GCNConv)
    by_sums, plain = Stacked(module), Stacked(module)
    plain._summed = False
    flips = torch.tensor([[[0, 5], [3, 9], GRAPH.pairs[0].tolist()]])
    weights = torch.tensor([[0.3, 0.8, 0.5]], dtype=torch.float64, requires_grad=True)
    rows = GlobalRows(GRAPH, NODES, flips, weights)
    grads = [torch.autograd.grad(model(rows).square().sum(), weights)[0] for model in (by_sums, plain)]
    torch.testing.assert_close(by_sums(rows), plain(rows), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "conv"), [(ReadsDegrees, GCNConv), (Normed, GCNConv), (Net, GATConv), (Net, Own)])
def test_what_reads_edges_otherwise_is_asked_as_it_is(kind, conv):
    model = Stacked(made(kind, conv))
    assert not model.sums(GRAPH)
    torch.testing.assert_close(model(GlobalRows(GRAPH, NODES, NONE)), model.clean(GRAPH))


def test_a_module_is_left_as_it_was():
    module = made(Net, SAGEConv)
    keys = [set(vars(m)) for m in module.modules()]
    assert Stacked(module).sums(GRAPH)
    with pytest.raises(summed.OtherEdgesError):
        summed.scores(made(Mixed, SAGEConv), GRAPH.inputs_x().double(), GlobalRows(GRAPH, NODES, NONE).adjacency())
    assert [set(vars(m)) for m in module.modules()] == keys


class Mixed(Net):
    """Hands its layers edges of its own making."""

    def forward(self, x, edge_index):
        return super().forward(x, edge_index.flip(0))


@pytest.mark.parametrize("task", ["graph/sbm-global", "graph/sbm-edge"])
def test_layers_that_take_no_weights_are_attacked_by_gradients(task):
    victim = Victim(made(Net, SAGEConv).float(), name="own")
    agent = "prbcd" if task.endswith("global") else "fga"
    options = {
        "episodes": 1 if agent == "prbcd" else 8,
        "queries": 60,
        "gradients": 60,
        "settings": {"epochs": 8} if agent == "prbcd" else {},
    }
    result = advgym.attack(task, agent, victim=victim, **options)
    assert result.threat["knowledge"] == "white-box" and result.gradients_mean > 0
    assert not [f for f in result.flags if "crash" in f]
