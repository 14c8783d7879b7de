"""The zoo against dense float64 forwards, on what hypothesis draws: scores and every pair's gain."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from zoo_dense import DENSE, norm

import advgym
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.inputs.adjacency import Adjacency, Tape
from advgym.envs.graph.inputs.edges import BlockTape, edges
from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.pairs import gains_of, ranked
from advgym.envs.graph.inputs.raw import RawGraph
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.models.adversarial import fit_robust, worst_flips
from advgym.envs.graph.models.fitting import accuracy, fit
from advgym.envs.graph.models.low_rank import subspace
from advgym.envs.graph.victims.zoo import MODELS, zoo_victim
from advgym.errors import AdvgymError

WIDTH, C, ROWS, E = 6, 3, 3, 3
SMALL = {
    "gcn": {"hidden": 5}, "sage": {"hidden": 5}, "gin": {"hidden": 5}, "appnp": {"hidden": 5, "steps": 4},
    "mlp": {"hidden": 5}, "rgcn": {"hidden": 5}, "gat": {"hidden": 3, "heads": 2}, "gnnguard": {"hidden": 5},
    "rung": {"hidden": 5, "steps": 3}, "svd": {"hidden": 5, "rank": 3}, "jaccard": {"hidden": 5, "threshold": 0.3},
    "soft-median": {"hidden": 5, "top": 4, "steps": 80},
    "pro-gnn": {"hidden": 5},
}  # fmt: skip
SUMS = ["gcn", "sage", "gin", "appnp", "mlp", "rgcn", "svd", "soft-median"]
LISTED = ["gat", "jaccard", "gnnguard", "rung", "pro-gnn"]


# -- cases -------------------------------------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def _model(name, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[name](WIDTH, C, **SMALL[name]).double().eval()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.3 * torch.randn(p.shape))
    return model.requires_grad_(False)


def _case(seed):
    g = torch.Generator().manual_seed(seed)
    size = int(torch.randint(5, 11, (1,), generator=g))
    pairs = torch.triu(torch.rand(size, size, generator=g) < 0.45, 1).nonzero()
    x = torch.rand(size, WIDTH, generator=g) * (torch.rand(size, WIDTH, generator=g) < 0.6)
    graph = Graph(size, pairs, x, row_norm=bool(seed % 2))
    every = torch.ones(size, size).triu(1).nonzero()
    flips = torch.full((ROWS, E, 2), -1)
    for i in range(ROWS):
        k = int(torch.randint(0, E + 1, (1,), generator=g)) if i else 0
        flips[i, :k] = every[torch.randperm(len(every), generator=g)[:k]]
    return graph, flips, every, g


def _matrices(graph, flips):
    out = torch.zeros(len(flips), graph.size, graph.size)
    out[:, graph.pairs[:, 0], graph.pairs[:, 1]] = 1
    for i, row in enumerate(flips.tolist()):
        for a, b in row:
            if a >= 0:
                out[i, a, b] = 1 - out[i, a, b]
    return out + out.transpose(1, 2)


def _reference(name, model, graph, flips, cotangent):
    """Scores (n, N, C) and gains of every pair (n, N, N), symmetric, of the dense forwards."""
    parameters, x = dict(model.named_parameters()), graph.inputs_x()
    scores, gains = [], []
    for a, g in zip(_matrices(graph, flips), cotangent, strict=True):
        a = a.requires_grad_()
        s = DENSE[name](a, x, parameters) + 0 * a.sum()
        slope = torch.autograd.grad((s * g).sum(), a)[0]
        scores.append(s.detach())
        gains.append(slope + slope.T)
    return torch.stack(scores), torch.stack(gains)


def _settled(name, graph, flips, every):
    """Whether no case sits on a kink: ties of eigenvalues or of ranks at the cut."""
    for a in _matrices(graph, flips):
        if name == "svd":
            value = torch.linalg.eigvalsh(a).abs().sort(descending=True).values
            if value[2] - value[3] < 1e-3:
                return False
        if name == "soft-median":
            rank = torch.linalg.inv(torch.eye(len(a)) - 0.85 * norm(a + torch.eye(len(a))))
            value = rank.sort(1, descending=True).values
            if (value[:, 3] - value[:, 4]).min() < 1e-6:
                return False
    return True


@pytest.mark.parametrize("name", SUMS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_models_of_sums_are_the_dense_ones_for_every_pair(name, seed):
    graph, flips, every, g = _case(seed)
    assume(_settled(name, graph, flips, every))
    model, tape = _model(name, seed), Tape()
    cotangent = torch.randn(ROWS, graph.size, C, generator=g)
    nodes = torch.arange(graph.size)
    scores = model(GlobalRows(graph, nodes, flips, tape=tape)).view(ROWS, graph.size, C)
    torch.autograd.grad((scores * cotangent).sum(), tape.leaf)
    want, slopes = _reference(name, model, graph, flips, cotangent)
    assert (scores - want).abs().max() < 1e-8
    for i in range(ROWS):
        gains = gains_of(graph, *tape.factors(i), every) if tape.entries else torch.zeros(len(every))
        sign = 1 - 2 * graph.has(*every.unbind(1)).double()
        # `gains_of` counts flips of the clean graph; the sign undone, it is the derivative by the pair.
        assert (gains * sign - slopes[i][every[:, 0], every[:, 1]]).abs().max() < 1e-6


@pytest.mark.parametrize("name", LISTED)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_models_of_edges_are_the_dense_ones_for_a_block_of_all_pairs(name, seed):
    graph, flips, every, g = _case(seed)
    assume(_settled(name, graph, flips, every))
    model, tape = _model(name, seed), BlockTape(every, torch.float64)
    cotangent = torch.randn(ROWS, graph.size, C, generator=g)
    nodes = torch.arange(graph.size)
    scores = model(GlobalRows(graph, nodes, flips, tape=tape)).view(ROWS, graph.size, C)
    torch.autograd.grad((scores * cotangent).sum(), tape.leaf)
    want, slopes = _reference(name, model, graph, flips, cotangent)
    assert (scores - want).abs().max() < 1e-8
    sign = 1 - 2 * graph.has(*every.unbind(1)).double()
    for i in range(ROWS):
        gains = tape.gains(graph, i) * sign
        assert (gains - slopes[i][every[:, 0], every[:, 1]]).abs().max() < 1e-6


@pytest.mark.parametrize("name", list(MODELS))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_targeted_rows_weights_and_probes_are_those_of_the_dense_model(name, seed):
    graph, flips, every, g = _case(seed)
    assume(_settled(name, graph, flips, every))
    model = _model(name, seed)
    target = torch.randint(0, graph.size, (ROWS,), generator=g)
    cotangent = torch.zeros(ROWS, graph.size, C)
    asked = torch.randn(ROWS, C, generator=g)
    cotangent[torch.arange(ROWS), target] = asked
    want, slopes = _reference(name, model, graph, flips, cotangent)
    probe = torch.zeros(ROWS, 2, graph.size, requires_grad=True)
    probe_nodes = torch.stack([target, torch.full_like(target, -1)], 1)
    weights = torch.ones(ROWS, E, requires_grad=True)
    scores = model(GraphRows(graph, target, flips, probe=probe, probe_nodes=probe_nodes))
    (slope,) = torch.autograd.grad((scores * asked).sum(), probe)
    assert (scores - want[torch.arange(ROWS), target]).abs().max() < 1e-8
    other = torch.arange(graph.size).expand(ROWS, -1) != target.unsqueeze(1)
    true = slopes[torch.arange(ROWS), target]
    assert (slope[:, 0] - true)[other].abs().max() < 1e-6 and float(slope[:, 1].abs().max()) == 0
    scores = model(GraphRows(graph, target, flips, weights))
    (slope,) = torch.autograd.grad((scores * asked).sum(), weights)
    row, e = (flips[..., 0] >= 0).nonzero(as_tuple=True)
    a, b = flips[row, e].unbind(1)
    sign = 1 - 2 * graph.has(a, b).double()
    assert not len(row) or (slope[row, e] - sign * slopes[row, a, b]).abs().max() < 1e-6


@pytest.mark.parametrize("name", [*LISTED, "mlp"])
def test_global_ranking_offers_the_best_flips_of_every_lane(name):
    """By `ranked`, as the tasks ask: a graph as small as these is offered whole."""
    graph, flips, every, g = _case(7)
    model, tape = _model(name, 7), Tape(seed=3)
    cotangent = torch.randn(ROWS, graph.size, C, generator=g)
    scores = model(GlobalRows(graph, torch.arange(graph.size), flips, tape=tape)).view(ROWS, graph.size, C)
    torch.autograd.grad((scores * cotangent).sum(), tape.leaf)
    _, slopes = _reference(name, model, graph, flips, cotangent)
    for i in range(ROWS):
        found, gain = ranked(graph, tape, i, 3, flips[i])
        value = slopes[i][every[:, 0], every[:, 1]] * (1 - 2 * graph.has(*every.unbind(1)).double())
        held = {tuple(sorted(p)) for p in flips[i].tolist()}
        value[[tuple(p) in held for p in every.tolist()]] = -torch.inf
        assert (gain - value.sort(descending=True).values[: len(gain)]).abs().max() < 1e-6 and len(gain) == 3
        assert not held & {tuple(p) for p in found.tolist()}


@pytest.mark.parametrize("name", list(MODELS))
def test_a_graph_of_the_callers_making_is_answered_alike(name):
    graph, flips, _, _ = _case(7)
    model, nodes = _model(name, 7), torch.arange(graph.size)
    want = model(GlobalRows(graph, nodes, flips)).view(ROWS, graph.size, C)
    for a, scores in zip(_matrices(graph, flips), want, strict=True):
        index = a.nonzero().T
        raw = RawGraph(graph, nodes, index, torch.ones(index.shape[1]))
        assert (model(raw) - scores).abs().max() < 1e-8


def test_relaxed_weights_move_attention_continuously():
    graph, flips, _, _ = _case(3)
    model = _model("gat", 3)
    target = torch.zeros(ROWS, dtype=torch.int64)
    ends = [model(GraphRows(graph, target, flips, torch.full((ROWS, E), w))) for w in (0.0, 1e-9, 1 - 1e-9, 1.0)]
    clean = model(GraphRows(graph, target, flips[:, :0]))
    assert (ends[0] - clean).abs().max() < 1e-12 and (ends[1] - ends[0]).abs().max() < 1e-6
    assert (ends[3] - model(GraphRows(graph, target, flips))).abs().max() < 1e-12
    assert (ends[3] - ends[2]).abs().max() < 1e-6


def test_hard_edge_lists_hold_exactly_the_perturbed_graphs():
    graph, flips, _, _ = _case(11)
    e = edges(Adjacency(graph, flips))
    out = torch.zeros(ROWS, graph.size, graph.size)
    out[e.row, e.target, e.source] = e.weight.double()
    assert torch.equal(out, _matrices(graph, flips)) and len(e.row) == int(out.sum())


def test_the_subspace_of_a_large_graph_is_that_of_its_largest_eigenvalues():
    g = torch.Generator().manual_seed(0)
    block = torch.arange(60) % 2
    dense = torch.triu(torch.rand(60, 60, generator=g) < torch.where(block[:, None] == block, 0.8, 0.1), 1)
    graph = Graph(60, dense.nonzero(), torch.ones(60, 1))
    flips = torch.tensor([[[0, 1], [2, 3]], [[4, 5], [-1, -1]]])
    v = subspace(Adjacency(graph, flips), 2, 40, torch.zeros(()))
    for i, a in enumerate(_matrices(graph, flips)):
        value, vector = torch.linalg.eigh(a)
        best = vector[:, value.abs().argsort(descending=True)[:2]]
        assert (v[:, i] @ v[:, i].T - best @ best.T).abs().max() < 1e-8


def test_a_softmax_survives_candidates_that_tower_over_the_edges():
    graph = Graph(3, torch.tensor([[0, 1]]), torch.ones(3, 1))
    e = edges(Adjacency(graph, torch.empty(1, 0, 2, dtype=torch.int64), tape=BlockTape(torch.tensor([[0, 2]]))))
    score = torch.where(e.source == 2, 1e4, -1e4).unsqueeze(1).float().requires_grad_()
    share = e.softmax(score)
    assert torch.isfinite(share).all() and share[(e.target == 0) & (e.source == 1)].item() == 1
    assert torch.isfinite(torch.autograd.grad(share.sum(), e.weight)[0]).all()


@pytest.mark.parametrize("task", ["graph/karate-edge", "graph/karate-global"])
def test_models_of_edges_play_the_tasks_on_nodes(task):
    torch.set_default_dtype(torch.float32)
    data = load_nodes("karate")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS["gat"](data.graph.features, data.classes)
        fit(model, data, epochs=30)
    victim = advgym.Victim(model.eval().requires_grad_(False), name="gat")
    result = advgym.attack(task, "first-order", episodes=8, lanes=8, victim=victim)
    assert result.success_rate > 0


# -- training ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["sage", "gat", "svd"])
def test_training_is_seeded_and_learns_the_block_model(name):
    torch.set_default_dtype(torch.float32)
    data, cards, weights = load_nodes("sbm"), [], []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            model = MODELS[name](data.graph.features, data.classes)
            cards.append(fit(model, data, epochs=40))
            weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights) and cards[0]["clean_accuracy"] == cards[1]["clean_accuracy"]
    assert cards[0]["clean_accuracy"] == accuracy(model, data, "test") > 0.6


def test_adversarial_training_holds_more_under_the_same_attack():
    torch.set_default_dtype(torch.float32)
    data, robust, kept = load_nodes("sbm"), {}, {}
    for kind, train in (("plain", fit), ("robust", fit_robust)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = MODELS["gcn"](data.graph.features, data.classes)
            robust[kind] = train(model, data, epochs=60)
            flips = worst_flips(model, data, data.labels, 60)
            kept[kind] = accuracy(model, data, "test", flips)
    assert len(worst_flips(model, data, data.labels, 7)[0]) == 7
    assert robust["robust"]["adversarial_rate"] == 0.2 and kept["robust"] > kept["plain"]
    with pytest.raises(AdvgymError, match="model of sums"):
        fit_robust(MODELS["gat"](data.graph.features, data.classes), data)


def test_victims_are_cached_by_recipe(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    first = zoo_victim("karate-sage", dataset="karate", model="sage", epochs=5, hidden=8)
    again = zoo_victim("karate-sage", dataset="karate", model="sage", epochs=5, hidden=8)
    assert (
        len(list(tmp_path.rglob("*.safetensors"))) == 1 and first.card["clean_accuracy"] == again.card["clean_accuracy"]
    )
    graph = load_nodes("karate").graph
    rows = GraphRows(graph, torch.arange(34), torch.full((34, 0, 2), -1))
    assert torch.equal(first(rows), again(rows)) and first(rows).shape == (34, 4)
    zoo_victim("karate-sage", dataset="karate", model="sage", epochs=6, hidden=8)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    with pytest.raises(AdvgymError, match="sage"):
        zoo_victim("x", dataset="karate", model="sagr")
    assert Features(graph, 1).shared
