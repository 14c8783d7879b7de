"""`Victim(cache=)` of graph callables, of (x, edge_index, ...): a graph is one input, and asked about once."""

import networkx as nx
import pytest
import torch

from advgym import Victim, attack, make_task, verify
from advgym.core.cached import asked_anew
from advgym.envs.graph.victims.stacked import Stacked

SIZE = 14


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    return tmp_path


def ring():
    graph = nx.cycle_graph(SIZE)
    graph.add_edges_from([(0, 2), (1, 3), (7, 9), (8, 10)])
    for node in graph:
        graph.nodes[node].update(label=int(node >= SIZE // 2), x=[float(node < 4), float(node >= 10), 1.0])
    return graph


def spread(x, edges, weight=None):
    """Two steps of means over neighbours: scores (nodes, 2)."""
    weight = x.new_ones(edges.shape[1]) if weight is None else weight
    h = x
    for _ in range(2):
        h = h + torch.zeros_like(h).index_add(0, edges[1], weight.unsqueeze(1) * h[edges[0]])
        h = h / h.abs().sum(1, keepdim=True)
    return torch.stack([h[:, 0] + 0.01 * h[:, 2], h[:, 1]], 1)


class Costly:
    """A callable that remembers each graph it was asked about."""

    def __init__(self):
        self.seen = []

    def __call__(self, x, edge_index):
        self.seen.append((len(x), tuple(x.flatten().tolist()), frozenset(map(tuple, edge_index.T.tolist()))))
        return spread(x, edge_index).tolist()


class Weighted(Costly):
    def __call__(self, x, edge_index, edge_weight=None):
        super().__call__(x, edge_index)
        return spread(x, edge_index, edge_weight)


PLAYED = {
    "edges": ("graph/edge", "genetic", {"edits": 2}),
    "features": ("graph/feature", "greedy", {"edits": 1}),
    "global": ("graph/global", "genetic", {"eps": 0.12}),
}


def rows(result):
    return [(s.id, s.success, s.perturbation, s.queries, s.before, s.after) for s in result.samples]


@pytest.mark.parametrize("played", PLAYED)
@pytest.mark.parametrize("cache", [True, "toy@1"])
def test_each_graph_is_asked_about_once(played, cache):
    """Every call went to the model: a call of several arguments had no key."""
    task, agent, options = PLAYED[played]
    play = {"samples": ring(), "episodes": 6, "queries": 30, **options}
    plain, model = Costly(), Costly()
    want = attack(task, agent, victim=plain, **play)
    found = attack(task, agent, victim=Victim(model, cache=cache), **play)
    assert rows(found) == rows(want) and found.clean_accuracy == want.clean_accuracy
    again = found.asked.get("flags", 0)  # second answers are asked anew
    assert {n for n, *_ in model.seen} == {SIZE}  # a graph at a time
    assert len(model.seen) == sum(found.asked.values())
    assert len(model.seen) - again <= len(set(model.seen))
    assert len(model.seen) < sum(want.asked.values())
    other = Costly()  # another run of the same name
    repeat = attack(task, agent, victim=Victim(other, cache=cache), **play)
    assert rows(repeat) == rows(want)
    if cache is True:
        assert len(other.seen) == len(model.seen)
    else:
        assert set(repeat.asked) <= {"flags"}


def test_verify_asks_anew():
    task = make_task("graph/edge", victim=Victim(model := Costly(), cache=True), samples=ring(), queries=20)
    result = attack(task, "genetic", episodes=4)
    before = len(model.seen)
    assert verify(result, task=task) == [] and len(model.seen) > before


def test_what_a_call_holds_is_the_key():
    kept = Victim(model := Weighted(), cache=True).model
    x, edges = torch.rand(3, 3), torch.tensor([[0, 1], [1, 0]])
    first = kept(x, edges)
    assert torch.equal(kept(x, edges), first) and torch.equal(kept(x.clone(), edge_index=edges), first)
    assert len(model.seen) == 2  # by name is another call
    weight = torch.tensor([0.5, 1.0])
    for more in ({"edge_weight": weight}, {"edge_weight": weight.flip(0)}, {"edge_weight": weight * 0}):
        kept(x, edges, **more)
        kept(x, edges, **more)
    kept(x, edges.flip(0))
    kept(x + 1, edges)
    assert len(model.seen) == 7
    leaf = weight.clone().requires_grad_()
    assert kept(x, edges, edge_weight=leaf).requires_grad and kept(x, edges, edge_weight=leaf).requires_grad
    with asked_anew():
        kept(x, edges)
    assert len(model.seen) == 10


@pytest.mark.parametrize("kind", [Costly, Weighted])
def test_a_kept_model_takes_weights_where_it_says_so(kind):
    """The memory takes any keyword; the model beneath may not."""
    assert Stacked(Victim(kind(), cache=True).model).weighted is (kind is Weighted)
