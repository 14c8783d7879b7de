"""Rows of perturbed graphs: composing, pruning, random variation, stacking."""

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.rows import GraphRows, randomise_cells, randomise_edges
from advgym.envs.graph.victims.recipes import GCN
from advgym.envs.graph.victims.stacked import stack, stack_features

SIZE, F = 10, 6


def _graph(seed):
    g = torch.Generator().manual_seed(seed)
    pairs = torch.triu(torch.rand(SIZE, SIZE, generator=g) < 0.3, 1).nonzero()
    return Graph(SIZE, pairs, (torch.rand(SIZE, F, generator=g) < 0.5).float(), row_norm=True), g


def _flips(g, n=5, e=3):
    every = torch.ones(SIZE, SIZE).triu(1).nonzero()
    flips = torch.full((n, e, 2), -1)
    for i in range(n):
        k = int(torch.randint(0, e + 1, (1,), generator=g))
        flips[i, :k] = every[torch.randperm(len(every), generator=g)[:k]]
    return flips


def _dense(rows):
    """The adjacency of every row, (n, N, N)."""
    n, size = len(rows), rows.graph.size
    edges, weight = stack(rows)
    out = torch.zeros(n * size, n * size)
    out[edges[0], edges[1]] = 1.0 if weight is None else weight.float()
    return torch.stack([out[i * size : (i + 1) * size, i * size : (i + 1) * size] for i in range(n)])


def test_stack_holds_exactly_the_flipped_graph():
    graph, g = _graph(0)
    flips = _flips(g)
    dense = _dense(GraphRows(graph, torch.zeros(5, dtype=torch.int64), flips))
    for i in range(5):
        want = torch.zeros(SIZE, SIZE)
        want[graph.pairs[:, 0], graph.pairs[:, 1]] = 1
        for a, b in flips[i].tolist():
            if a >= 0:
                want[min(a, b), max(a, b)] = 1 - want[min(a, b), max(a, b)]
        assert torch.equal(dense[i], want + want.T)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_flipping_more_composes_and_twice_restores(seed):
    graph, g = _graph(seed)
    rows = GraphRows(graph, torch.zeros(5, dtype=torch.int64), _flips(g))
    clean = _dense(rows)
    row = torch.tensor([0, 1, 1, 4])
    a, b = torch.tensor([1, 2, 5, 9]), torch.tensor([3, 7, 0, 8])
    once = rows.flip_more(row, a, b)
    want = clean.clone()
    for r, i, j in zip(row.tolist(), a.tolist(), b.tolist(), strict=True):
        want[r, i, j] = want[r, j, i] = 1 - want[r, i, j]
    assert torch.equal(_dense(once), want)
    assert torch.equal(_dense(once.flip_more(row, b, a)), clean)
    soft = GraphRows(graph, rows.target, rows.flips, torch.rand(5, 3, generator=g))
    torch.testing.assert_close(_dense(soft.flip_more(row, a, b).flip_more(row, a, b)), _dense(soft))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), with_cells=st.booleans())
@example(seed=1307, with_cells=True)  # nothing to prune and nothing flipped
def test_pruning_is_that_of_the_perturbed_graph(seed, with_cells):
    graph, g = _graph(seed)
    cells = None
    if with_cells:
        cells = torch.full((5, 2, 2), -1)
        for i in range(5):
            c = torch.randperm(SIZE * F, generator=g)[: i % 3]
            cells[i, : len(c)] = torch.stack([c // F, c % F], 1)
    rows = GraphRows(graph, torch.arange(5), _flips(g), cells=cells)
    x = stack_features(rows).view(5, SIZE, F) > 0
    both = (x.unsqueeze(2) & x.unsqueeze(1)).sum(3)
    either = (x.unsqueeze(2) | x.unsqueeze(1)).sum(3).clamp_min(1)
    want = _dense(rows) * (both.double() / either >= 0.4)
    pruned = rows.prune(0.4)
    assert torch.equal(_dense(pruned), want.float())
    torch.testing.assert_close(stack_features(pruned), stack_features(rows))


def test_pruned_candidates_have_no_gradient():
    graph, g = _graph(3)
    model = GCN(F, 2, 4).eval().requires_grad_(False)
    probe = torch.zeros(5, 1, SIZE, requires_grad=True)
    target = torch.arange(5)
    rows = GraphRows(graph, target, _flips(g), probe=probe, probe_nodes=target.unsqueeze(1))
    (slope,) = torch.autograd.grad(model(rows.prune(0.5))[:, 0].sum(), probe)
    keep = graph.alike(target.unsqueeze(1), torch.arange(SIZE).unsqueeze(0), 0.5)
    assert (slope[:, 0][~keep] == 0).all() and (slope[:, 0][keep] != 0).any()


def test_random_edges_depend_on_the_perturbed_graph_and_the_key_alone():
    graph, g = _graph(4)
    flips = _flips(g)
    target, keys = torch.tensor([0, 3, 5, 7, 9]), torch.tensor([11, 12, 13, 14, 15])
    rows = GraphRows(graph, target, flips)
    varied = _dense(randomise_edges(rows, 0.4, keys))
    dense = _dense(rows)
    for i in range(5):  # the same graphs, each as a clean one
        own = Graph(SIZE, dense[i].triu(1).nonzero(), graph.x, row_norm=True)
        alone = GraphRows(own, target[i : i + 1], torch.full((1, 0, 2), -1))
        assert torch.equal(_dense(randomise_edges(alone, 0.4, keys[i : i + 1]))[0], varied[i])
    assert not torch.equal(varied, _dense(randomise_edges(rows, 0.4, keys + 100)))
    assert torch.equal(_dense(randomise_edges(rows, 0.0, keys)), dense)


def test_random_edges_have_the_rate():
    graph, _ = _graph(5)
    n = 4000
    node = int(graph.count.argmax())
    rows = GraphRows(graph, torch.full((n,), node), torch.full((n, 0, 2), -1))
    varied = randomise_edges(rows, 0.1, torch.arange(n))
    _, _, d = varied.changes(torch.float32)
    gone, new = (d < 0).sum(1).float().mean(), (d > 0).sum(1).float().mean()
    owner, other = rows.take(torch.tensor([0])).edges_near(torch.tensor([node]), torch.tensor([0]))
    near = {node, *other.tolist()}
    around = sum(1 for a, b in graph.pairs.tolist() if a in near or b in near)
    assert abs(gone / around - 0.1) < 0.01
    assert 0.03 < new / around <= 0.11  # some draws fall on edges that exist
    assert len(owner) == graph.count[node]


def test_random_cells_move_the_target_alone_and_keep_prior_flips():
    graph, _ = _graph(6)
    n = 2000
    cells = torch.tensor([[[2, 1], [2, 4]]]).expand(n, -1, -1)
    none = torch.full((n, 0, 2), -1)
    rows = GraphRows(graph, torch.full((n,), 2), none, cells=cells)
    x = stack_features(GraphRows(Graph(SIZE, graph.pairs, graph.x), rows.target, none, cells=cells)).view(n, SIZE, F)
    varied = randomise_cells(rows, 0.2, torch.arange(n))
    y = stack_features(GraphRows(Graph(SIZE, graph.pairs, graph.x), rows.target, none, cells=varied.cells)).view(
        n, SIZE, F
    )
    others = torch.arange(SIZE) != 2
    assert torch.equal(x[:, others], y[:, others])
    was, now = x[:, 2], y[:, 2]
    lost = ((was == 1) & (now == 0)).sum() / was.sum()
    assert abs(float(lost) - 0.2) < 0.03
    assert abs(float(now.sum() / was.sum()) - 1.0) < 0.1
