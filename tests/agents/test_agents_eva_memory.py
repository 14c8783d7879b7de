"""EvA's memory: the model of messages against dense algebra, its table against the model, and what it is worth."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym import make_task, registry
from advgym.agents.search import eva
from advgym.agents.shared import eva_memory
from advgym.agents.shared.effects import WIDTH, Effects, effects, mend
from advgym.agents.shared.margins import margins
from advgym.agents.shared.messages import Messages, among
from advgym.judge.play import play

SIZE, CLASSES = 24, 3


def some_model(seed, members=9):
    """A model with random vectors on a random graph, and some sets of flips."""
    draw = torch.Generator().manual_seed(seed)
    upper = torch.rand(SIZE, SIZE, generator=draw).triu(1) > 0.85
    edges = (upper | upper.T).nonzero().T
    who = torch.randperm(SIZE, generator=draw)[:members]
    scores = torch.randn(members, CLASSES, generator=draw)
    model = Messages(edges, SIZE, who, scores, scores.argmax(1))
    with torch.no_grad():
        for value in (model.sent, model.own, model.bias):
            value.copy_(torch.randn(value.shape, generator=draw))
    low, high = torch.triu_indices(SIZE, SIZE, 1)
    every = low * SIZE + high
    genes = every[torch.randperm(len(every), generator=draw)[:12]].view(3, 4).clone()
    genes[1, 2:] = -1
    return model, genes, edges


def dense(model, edges, flips):
    """All members' scores (M, C) by dense matrices in float64."""
    a = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    a[edges[0], edges[1]] = 1
    for key in flips:
        i, j = key // SIZE, key % SIZE
        a[i, j] = a[j, i] = 1 - a[i, j]
    a += torch.eye(SIZE)
    root = a.sum(1).rsqrt()
    a = root.unsqueeze(1) * a * root
    sent, own, bias = (v.detach().double() for v in (model.sent, model.own, model.bias))
    return (a @ (a @ sent + own) + bias)[model.members]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_model_is_what_it_says(seed):
    model, genes, edges = some_model(seed)
    with torch.no_grad():
        got = model.scores(genes)
    for one, row in zip(got, genes, strict=True):
        flips = [k for k in row.tolist() if k >= 0]
        want = dense(model, edges, flips)
        torch.testing.assert_close(one.double(), want, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.at(row).scores.double(), want, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_effect_of_a_flip_is_exact_without_common_neighbours(seed):
    """Of pairs that share no neighbour: on both ends, and on the members around them."""
    model, genes, edges = some_model(seed)
    held = genes[0]
    state = model.at(held)
    adjacency = torch.zeros(SIZE, SIZE)
    adjacency[state.source, state.target] = 1
    shared = adjacency @ adjacency
    around = {int(n): set(adjacency[n].nonzero()[:, 0].tolist()) for n in range(SIZE)}
    a, b = ((shared == 0).triu(1)).nonzero()[:40].T
    after, relay_a, relay_b = state.flip(a, b)
    moved = [state.beside(a, b, relay_a), state.beside(b, a, relay_b)]
    before = dense(model, edges, held.tolist())
    checked = 0
    for nth, (i, j) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        want = dense(model, edges, [*held.tolist(), i * SIZE + j])
        if model.place[i] >= 0:
            torch.testing.assert_close(after[nth].double(), want[model.place[i]], rtol=1e-3, atol=1e-4)
            checked += 1
        for flip, who, change in moved:
            for place, value in zip(who[flip == nth].tolist(), change[flip == nth], strict=True):
                node = int(model.members[place])
                if len(around[node] & {i, j}) == 1 and not around[node] & (around[i] | around[j]):
                    torch.testing.assert_close(value.double(), want[place] - before[place], rtol=1e-3, atol=1e-4)
                    checked += 1
    assert checked


def test_it_learns_from_scores_what_single_flips_do_to_a_victim():
    """Fitted to random sets, it foresees what a GCN of another making says of single flips that it was never asked."""
    task = make_task("graph/sbm-global", knowledge="score", queries=2000, eps=0.05)
    batch = task.samples("test", [0])
    graph, nodes = batch.graph, batch.nodes
    model = task.victim.model

    @torch.no_grad()
    def ask(genes):
        flips = torch.where((genes >= 0).unsqueeze(2), torch.stack([genes // graph.size, genes % graph.size], 2), -1)
        return model(batch.inputs(flips)).view(len(genes), len(nodes), -1)

    draw = torch.Generator().manual_seed(1)

    def random(n, e):
        a = nodes[torch.randint(len(nodes), (n, e), generator=draw)]
        b = torch.randint(graph.size, (n, e), generator=draw)
        key = torch.minimum(a, b) * graph.size + torch.maximum(a, b)
        return torch.where(a == b, -1, key).sort(1, descending=True).values

    clean = ask(torch.full((1, 1), -1))[0]
    ref = clean.argmax(1)
    learned = Messages(graph.edge_index(), graph.size, nodes, clean, ref)
    sets = [random(64, 20) for _ in range(4)]
    sets = [torch.where((s == s.roll(1, 1)) & (s >= 0), -1, s) for s in sets]
    told = [ask(s) for s in sets]
    first = learned.learn(sets[0], told[0], 0.3)
    for step in range(120):
        last = learned.learn(sets[step % 4], told[step % 4], 0.3 * max(0.02, 1 - step / 120))
    assert last < 0.1 * first
    table = effects(learned, torch.full((4,), -1), clean, torch.full((1,), -1), most=500)
    some = torch.randperm(len(table.key), generator=draw)[:128]
    moved = margins(ask(table.key[some].unsqueeze(1)), ref.expand(128, -1)) - margins(clean, ref)
    true, said = moved.gather(1, table.who[some])[:, 0], table.gain[some][:, 0]
    assert float(torch.corrcoef(torch.stack([true, said]))[0, 1]) > 0.9


def test_the_table_says_of_a_held_flip_what_it_did():
    """Unmaking a flip and making it again, each at its own state, are the same change."""
    model, genes, _ = some_model(3)
    model.scale = torch.ones(())
    held = genes[0]
    for nth in range(4):
        without = held.clone()
        without[nth] = -1
        none = torch.full((1,), -1)
        with_it = effects(model, held, model.at(held).scores, none).of(held[nth : nth + 1])
        before = effects(model, without, model.at(without).scores, held).of(held[nth : nth + 1])
        for member in model.place[torch.stack([held[nth] // SIZE, held[nth] % SIZE])].tolist():
            if member < 0:
                continue
            did = float((with_it[1] * (with_it[0] == member)).sum())
            does = float((before[1] * (before[0] == member)).sum())
            assert did == pytest.approx(does, abs=0.35 + 0.35 * abs(does))  # common neighbours are left out


def small_table():
    """Eight flips: flip e moves member e by 2; the last one members 0 and 1 by 2 each."""
    who, gain = torch.zeros(8, WIDTH, dtype=torch.int64), torch.zeros(8, WIDTH)
    who[:, 0], gain[:, 0] = torch.arange(8), 2.0
    who[7, :2], gain[7, :2] = torch.tensor([0, 1]), 2.0
    return Effects(torch.arange(8) * 3 + 1, who, gain)


def test_sets_are_mended_by_what_flips_carry():
    table, many = small_table(), 64
    chance = torch.rand(many, 2 + 1 + 8, generator=torch.Generator().manual_seed(0))
    soft, none = torch.full((many, 1), 0.1), torch.zeros(many, dtype=torch.int64)
    margin = torch.full((many, 8), -1.5)
    empty = torch.full((many, 2), -1)
    built, said = mend(table, empty, margin, 2, none, soft, chance)
    assert (built == 22).any(1).all() and (built >= 0).all()  # the flip that turns two is in every set
    assert not torch.isin(built, torch.tensor([1, 4])).any()  # nothing is spent on those two again
    assert ((said > 0).sum(1) == 3).all()
    # A flip that carries nothing goes first: flip 0 beside the last one.
    genes = torch.tensor([22, 1]).expand(many, -1)
    after = margin + 2 * torch.tensor([2.0, 1, 0, 0, 0, 0, 0, 0])
    built, said = mend(table, genes, after, 2, none + 1, soft, chance)
    assert (built == 22).any(1).all() and (built == 1).sum() < many / 4
    # Sets that are too large lose what is too much.
    wide = torch.tensor([22, 10, 7, 1]).expand(many, -1)
    chance = torch.rand(many, 4 + 1 + 8)
    built, _ = mend(table, wide, after, 2, none, soft, chance)
    assert ((built >= 0).sum(1) == 2).all() and all(len(set(s)) == 2 for s in built.tolist())


def test_among():
    keys = torch.tensor([2, 5, 9])
    assert among(torch.tensor([[5, 1], [10, 2]]), keys).tolist() == [[True, False], [False, True]]
    assert not among(keys, keys[:0]).any()


def test_twins_go_last_and_merits_follow_who_lives():
    worth = torch.tensor([[3.0, 1.0, 3.0, -1.0, 2.0, -1.0]])
    assert eva._without_twins(worth).tolist() == [[3.0, 1.0, -1.0, -1.0, 2.0, -1.0]]
    merits, guided = torch.ones(2, 2), torch.tensor([[True, True, False, False], [False, False, False, False]])
    counts = torch.ones_like(guided)
    at = torch.tensor([[0, 1, 4, 5], [0, 1, 4, 5]])  # both guided children lived, and neither of the others
    now = eva._merits(merits, guided, counts, at)
    assert now[0, 1] > now[0, 0] and torch.equal(now[1], merits[1])  # a lane without guided ones stays as it is


def with_scores():
    entry = registry.agent("eva")
    return registry.Agent("eva", entry.attack, entry.kinds, "score", entry.proposals, entry.origin, "")


def test_scores_do_not_leak_between_lanes():
    task = make_task("graph/karate-global", knowledge="score", queries=320, eps=0.05)
    both, error = play(task, with_scores(), [0, 1], "cpu", 0, "test", {})
    alone, _ = play(task, with_scores(), [1], "cpu", 0, "test", {})
    assert not error and all(row.valid for row in both)
    assert alone[0].perturbation == both[1].perturbation


def test_memory_is_worth_its_queries(monkeypatch):
    """On the synthetic graph, with as many queries: more members than without, and than a gradient attack turns."""
    options = {"episodes": 1, "eps": 0.05, "knowledge": "score", "queries": 960}
    rate = {
        memory: advgym.attack("graph/sbm-global", "eva", settings={"memory": memory}, **options).members_rate
        for memory in (True, False)
    }
    gradient = advgym.attack("graph/sbm-global", "prbcd", episodes=1, eps=0.05, queries=400, gradients=400)
    assert rate[True] > 1.2 * rate[False] and rate[True] > gradient.members_rate > 0.1, rate
    monkeypatch.setattr(eva, "LARGEST", 1)  # graphs too large for the table are played without it
    assert advgym.attack("graph/sbm-global", "eva", **options).members_rate == rate[False]


def test_a_small_budget_is_not_spent_on_learning():
    made = []
    task = make_task("graph/karate-global", knowledge="score", queries=128, eps=0.05)
    original = eva_memory.Memory.children

    def children(self, *args):
        made.append(self.warm)
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eva_memory.Memory, "children", children)
        (row,), error = play(task, with_scores(), [0], "cpu", 0, "test", {})
    assert not error and row.valid and made and set(made) == {1}
