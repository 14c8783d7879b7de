"""Graphs answered together, or by what a flip reaches, answer as each does alone: shown on inputs that can tell."""

import pytest
import torch
from torch import nn

import advgym
from advgym.core.task import make_task
from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.victims.modules import alone_as_together
from advgym.envs.graph.victims.recipes import GCN, SGC
from advgym.envs.graph.victims.refit import flipped
from advgym.envs.graph.victims.zoo import MODELS

SIZE, WIDTH, CLASSES = 30, 5, 3


def data_of(kind):
    g = torch.Generator().manual_seed(3)
    dense = (torch.rand(SIZE, SIZE, generator=g) < 0.12).triu(1)
    x = {
        "ones": torch.ones(SIZE, WIDTH),
        "alike": torch.rand(1, WIDTH, generator=g).expand(SIZE, -1).contiguous(),
        "random": torch.randn(SIZE, WIDTH, generator=g),
        "zeros": torch.zeros(SIZE, WIDTH),
    }[kind]
    labels = torch.arange(SIZE) % CLASSES
    every = torch.arange(SIZE)
    return NodeData(Graph(SIZE, dense.nonzero(), x), labels, CLASSES, {"train": every, "test": every})


class Net(nn.Module):
    """SAGE, a layer over all nodes, SAGE."""

    def __init__(self, layer, aggr="mean"):
        super().__init__()
        from torch_geometric.nn import SAGEConv

        self.a, self.layer, self.b = SAGEConv(WIDTH, 8, aggr=aggr), layer, SAGEConv(8, CLASSES, aggr=aggr)

    def forward(self, x, edge_index):
        return 3 * self.b(self.layer(self.a(x, edge_index)).relu(), edge_index)


class Pooled(nn.Module):
    """Every node reads the mean of all."""

    def forward(self, h):
        return h + h.mean(0)


class Crowd(nn.Module):
    """Divides by the mean degree of the whole graph."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(WIDTH, CLASSES)

    def forward(self, x, edge_index):
        total = torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])
        return self.lin(x + total * len(x) / max(edge_index.shape[1], 1))


class Largest(nn.Module):
    """Divides degrees by the largest of the graph: reads no other node's features."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(WIDTH + 1, CLASSES)

    def forward(self, x, edge_index):
        degree = torch.bincount(edge_index[1], minlength=len(x)).to(x.dtype)
        return self.lin(torch.cat([x, (degree / degree.max().clamp_min(1)).unsqueeze(1)], 1))


class Fixed(nn.Module):
    """A dense model of exactly SIZE nodes, with an embedding of each."""

    def __init__(self):
        super().__init__()
        self.own, self.lin = nn.Parameter(torch.randn(SIZE, WIDTH)), nn.Linear(WIDTH, CLASSES)

    def forward(self, x, edge_index):
        dense = torch.zeros(SIZE, SIZE, dtype=x.dtype)
        dense[edge_index[0], edge_index[1]] = 1
        return self.lin((dense + torch.eye(SIZE)) @ (x + self.own))


def models():
    from torch_geometric.nn import BatchNorm, GraphNorm, LayerNorm, PairNorm

    return {
        "pair-norm": lambda: Net(PairNorm()),
        "pair-norm of sums": lambda: Net(PairNorm(), aggr="sum"),
        "graph-norm": lambda: Net(GraphNorm(8)),
        "batch-norm": lambda: Net(BatchNorm(8)),  # with the statistics it has learnt: no node reads another
        "batch-norm of now": lambda: Net(BatchNorm(8, track_running_stats=False)),
        "layer-norm of the graph": lambda: Net(LayerNorm(8, mode="graph")),
        "pooling": lambda: Net(Pooled()),
        "nothing": lambda: Net(nn.Identity()),
        "mean degree": Crowd,
        "largest degree": Largest,
        "fixed size": Fixed,
    }


TOGETHER = ("batch-norm", "nothing")  # the models that may be stacked


@pytest.mark.parametrize("kind", ["ones", "alike", "random", "zeros"])
@pytest.mark.parametrize("name", list(models()))
def test_rows_together_are_rows_alone(name, kind):
    """x = ones told nothing: SAGE with PairNorm was stacked, and its scores were off by up to 7."""
    torch.manual_seed(0)
    data, model = data_of(kind), models()[name]().eval()
    task = make_task("graph/edge", samples=data, victim=model, edits=3)
    batch = task.samples("test", list(range(12)))
    form = batch.look(batch.random(1)).form
    together = task.victim(batch.inputs(form))
    for i in range(len(form)):
        graph = flipped(data.graph, form[i])
        alone = model(graph.inputs_x(), graph.edge_index())[batch.target[i]]
        torch.testing.assert_close(together[i], alone, rtol=1e-4, atol=1e-5)
    assert task.victim.model._stackable == (name in TOGETHER)


def test_greedy_is_not_misled_by_company():
    """It lost to random search on the wrong scores."""
    from torch_geometric.nn import PairNorm

    torch.manual_seed(1)
    data, model = data_of("ones"), Net(PairNorm(), aggr="sum")
    rate = {
        agent: advgym.attack(
            "graph/edge", agent, samples=data, victim=model, knowledge="score", episodes=30, queries=200
        ).success_rate
        for agent in ("greedy", "random-search")
    }
    assert rate["greedy"] >= rate["random-search"]


def test_what_cannot_be_told_apart_is_not_stacked():
    x, edges = torch.ones(6, 2), torch.tensor([[0, 1], [1, 0]])
    assert not alone_as_together(lambda x, e: torch.zeros(len(x), 2), x, edges)
    assert alone_as_together(lambda x, e: x * 2, x, edges)


def test_a_model_that_mixes_only_at_times_is_caught_on_the_rows_themselves():
    """One that looks independent on every probe, and is not on the rows that are asked about."""

    class Sly(nn.Module):
        def forward(self, x, edge_index):
            clean = bool((x == 1).all())
            return x[:, :3] * (len(x) if clean else 1) + torch.arange(3.0)

    task = make_task("graph/edge", samples=data_of("ones"), victim=Sly(), knowledge="score")
    task.victim.model._stackable = True  # as if the probes had passed
    batch = task.samples("test", [0, 1, 2])
    scores = task.victim(batch.inputs(batch.look(batch.random(0)).form))
    torch.testing.assert_close(scores, SIZE * torch.ones(3, 3) + torch.arange(3.0))


@pytest.mark.parametrize("kind", ["ones", "random"])
@pytest.mark.parametrize("name", ["two-hop gcn", "two-hop sgc", *MODELS])
def test_what_a_flip_reaches_is_the_whole_graph(name, kind):
    """The local evaluators of our own models against one whole forward of each perturbed graph."""
    torch.manual_seed(0)
    data = data_of(kind)
    graph = data.graph
    if name.startswith("two-hop"):
        model = GCN(WIDTH, CLASSES) if name.endswith("gcn") else SGC(WIDTH, CLASSES)
    else:
        model = MODELS[name](WIDTH, CLASSES)
    model = model.double().eval()
    wide = Graph(SIZE, graph.pairs, graph.x.double())
    g = torch.Generator().manual_seed(5)
    target = torch.arange(8)
    flips = torch.randint(SIZE, (8, 4, 2), generator=g).sort(2).values
    flips = torch.where((flips[..., :1] == flips[..., 1:]), -1, flips)
    for i in range(8):  # no pair twice
        flips[i] = torch.stack([f if not (flips[i][:e] == f).all(1).any() else torch.full((2,), -1)
                                for e, f in enumerate(flips[i])])  # fmt: skip
    with torch.no_grad():
        near = model(GraphRows(wide, target, flips))
        for i in range(8):
            other = flipped(wide, flips[i])
            if name.startswith("two-hop"):
                whole = model.full(other.inputs_x(), other.edge_index())[target[i]]
            else:
                whole = model.full(other)[target[i]]
            torch.testing.assert_close(near[i], whole, rtol=1e-5, atol=1e-6)
