"""EvA and coverage search on graphs: their sets by construction, and that they find what others do not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym import make_task, registry
from advgym.agents.search.coverage import merit, survivors
from advgym.agents.shared.margins import PAD, Table, covered, margins, rebuild
from advgym.agents.shared.pairs_population import Genes, genes_of, tournament
from advgym.core.env import AttackEnv
from advgym.core.rng import Draws
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.judge.evaluator import evaluator
from advgym.judge.play import play

LANES = torch.tensor([3, 8])


def some_genes(size=40, most=9, members=6):
    """Genes of a ring of nodes, two lanes of different budgets."""
    node = torch.arange(size)
    start = torch.arange(0, 2 * size + 1, 2)
    end = torch.stack([(node - 1) % size, (node + 1) % size], 1).flatten()
    who = torch.stack([torch.arange(members), torch.arange(members) + 20])
    return Genes(size, most, torch.tensor([most, most - 4]), most + 2, who, start, end)


@given(seed=st.integers(0, 10_000), near=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=25, deadline=None)
def test_individuals_keep_the_budget_by_construction(seed, near):
    genes, draws = some_genes(), Draws(seed, LANES)
    right = torch.ones(2, 8, 6, dtype=torch.bool)
    a, b = (genes.distinct(genes.draw(draws, right, near)) for _ in range(2))
    child = genes.distinct(genes.cross(draws, a, b))
    for lane in range(2):
        for one, p, q in zip(child[lane].tolist(), a[lane].tolist(), b[lane].tolist(), strict=True):
            kept = [g for g in one if g >= 0]
            assert len(set(kept)) == len(kept) <= int(genes.budget[lane])
            assert set(kept) <= set(p) | set(q) and all(g // 40 < g % 40 for g in kept)
            shared = (set(p) & set(q)) - {-1}
            assert shared <= set(kept)  # what both parents have, the child has
    edits = genes.proposals(child)
    assert edits.shape == (2, 8, 11, 2) and torch.equal((edits[..., 0] >= 0).sum(2), (child >= 0).sum(2))


def test_mutation_is_adaptive():
    """New genes have an end among the members that are still right, each as often; all gone, there are none."""
    genes, draws = some_genes(), Draws(0, LANES)
    right = torch.zeros(2, 200, 6, dtype=torch.bool)
    right[:, :, [1, 4]] = True
    new = genes.draw(draws, right, 0.0)
    for lane in range(2):
        aims = genes.members[lane, [1, 4]]
        got = new[lane][new[lane] >= 0]
        ends = torch.stack([got // 40, got % 40], 1)
        hit = (ends.unsqueeze(2) == aims).any(1)
        assert hit.any(1).all()
        share = hit.float().mean(0)
        assert (share - 0.5).abs().max() < 0.06
    near = genes.draw(draws, right, 1.0)[0]
    ends = torch.stack([near // 40, near % 40], 2)[near >= 0]
    assert torch.isin(ends, torch.tensor([0, 2, 3, 5])).any(1).all()  # neighbours of 1 and 4 on the ring
    assert (genes.draw(draws, torch.zeros_like(right), 0.0) == -1).all()


def test_a_tournament_prefers_the_fitter():
    fitness = torch.arange(64.0).expand(2, -1)
    won = tournament(Draws(1, LANES), fitness, 4)
    assert won.shape == (2, 64) and 42 < float(won.double().mean()) < 60  # 4/5 of 63, not 1/2


def test_the_table_holds_the_first_order_gain_of_each_member():
    """Against float64 differences of the margins themselves."""
    task = make_task("graph/karate-global", knowledge="white-box", queries=500, gradients=500, eps=0.1)
    env = AttackEnv(task, proposals=1, assigned=[0])
    obs, _ = env.reset()
    ref, scores = obs["output"][:, 0], obs["scores"][:, 0]
    many = ref.shape[1]
    table = Table(1, env.table.sites, 4096, env.device)
    nobody = torch.full((1, 1), PAD)
    table.learn(env, env.threat.null(), scores, ref, torch.arange(many).expand(1, -1), 150, nobody)
    model, graph = task.victim.model, task.samples("test", [0]).graph
    clean = margins(scores, ref)[0]
    step, checked = 1e-3, 0
    nodes = obs["members"][0]
    double = type(model)(graph.features, scores.shape[-1]).double()
    double.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    for nth in range(0, int((table.key < PAD).sum()), 31):
        key = int(table.key[0, nth])
        flips = torch.tensor([[[key // 34, key % 34]]])
        answer = [
            margins(double(GlobalRows(graph, nodes, flips, torch.full((1, 1), w, dtype=torch.float64))), ref[0])
            for w in (0.0, step)
        ]
        slope = (answer[1] - answer[0]) / step
        for member, gain in zip(table.member[0, nth].tolist(), table.gain[0, nth].tolist(), strict=True):
            if gain > 0:
                assert gain == pytest.approx(float(slope[member].detach()), rel=0.02, abs=2e-3)
                checked += 1
    assert checked > 10 and len(clean) == many


def small_table():
    """Eight edits: edit e moves member e by 2, and edit 7 members 0 and 1 by 2 each."""
    table = Table(1, 10, 8, torch.device("cpu"))
    table.key[0] = torch.arange(8) + 1
    table.member[0, :, 0], table.gain[0, :, 0] = torch.arange(8), 2.0
    table.member[0, 7, :2], table.gain[0, 7, :2] = torch.tensor([0, 1]), 2.0
    return table


def test_sets_are_built_by_coverage():
    """With room for two, the edit that turns two members comes first, and nothing is spent on those again."""
    table, many = small_table(), 32
    sets = torch.full((1, many, 2), PAD)
    margin = torch.full((1, many, 8), -1.5)
    none, draws = torch.zeros(1, many, dtype=torch.int64), Draws(0, LANES[:1])
    built, change = rebuild(table, sets, margin, torch.ones_like(margin), torch.tensor([2]), none, draws)
    assert (built[..., 0] == 8).all()  # edit 7, key 8
    second = built[..., 1]
    assert not torch.isin(second, torch.tensor([1, 2])).any() and len(second.unique()) > 2
    assert ((margin + change > 0).sum(2) == 3).all()
    # What carries nothing goes first: edit 0 beside edit 7.
    sets[..., 0], sets[..., 1] = 8, 1
    after = margin + 2 * torch.tensor([2.0, 1, 0, 0, 0, 0, 0, 0])
    one = torch.ones(1, many, dtype=torch.int64)
    built, change = rebuild(table, sets, after, torch.ones_like(margin), torch.tensor([2]), one, draws)
    assert ((built == 8).any(2)).float().mean() > 0.9
    assert (built < PAD).sum() == 2 * many and all(len(set(s)) == 2 for s in built[0].tolist())


def test_a_table_finds_its_keys():
    table = small_table()
    keys = torch.tensor([[[1, 8, PAD, 5, 77]]])
    assert table.index(keys).tolist() == [[[0, 7, -1, 4, -1]]]
    who, gain = table.effects(table.index(keys))
    assert gain.sum(3).tolist() == [[[2.0, 4.0, 0.0, 2.0, 0.0]]] and who.shape == (1, 1, 5, 4)
    soft = torch.tensor(1e-3)
    assert covered(torch.tensor([-1.0, -1.0]), torch.tensor([2.0, 0.5]), soft) == pytest.approx(1.0)


def test_survivors_are_the_best_without_repeats():
    worth = torch.tensor([[3.0, 1.0, 2.0, 3.0, 5.0, 2.0]])
    at, value = survivors(worth)
    assert value.tolist() == [[5.0, 3.0, 2.0]] and worth.gather(1, at).tolist() == value.tolist()
    margin = torch.tensor([[-5.0, -5.0, -5.0], [-5.0, -5.0, 0.1], [-0.01, -0.01, -0.01]])
    first, second, third = merit(margin).tolist()
    assert first < third < second  # near misses count, and for less than a member


@pytest.mark.parametrize("name", ["eva", "coverage"])
def test_the_lane_beside_changes_nothing(name):
    options = {"queries": 400, "gradients": 400, "eps": 0.05}
    both = advgym.attack("graph/karate-global", name, episodes=3, lanes=3, **options)
    ids = [s.id for s in both.samples]
    entry = registry.agent(name)
    task = make_task("graph/karate-global", knowledge=entry.knowledge, **options)
    alone, error = play(task, entry, [ids[1]], "cpu", 0, "test", {})
    assert not error and alone[0].perturbation == both.samples[1].perturbation


def test_searches_keep_up_with_the_gradient():
    """On the synthetic graph: EvA does so by labels alone, and coverage by a fraction of EvA's queries."""
    found = {
        agent: advgym.attack(
            "graph/sbm-global", agent, episodes=1, eps=0.05, queries=queries, gradients=queries, settings=given
        )
        for agent, queries, given in (
            ("prbcd", 400, {}),
            ("eva", 3200, {}),
            ("coverage", 900, {"pool": 1024, "listed": 64}),
        )
    }
    rate = {name: result.members_rate for name, result in found.items()}
    assert rate["eva"] > 0.8 * rate["prbcd"] > 0.1, rate
    assert rate["coverage"] > max(rate["eva"], 0.9 * rate["prbcd"]), rate
    assert all(s.valid for result in found.values() for s in result.samples)


def test_genes_read_the_public_graph():
    env = AttackEnv(make_task("graph/karate-global"), proposals=1, assigned=[0])
    obs, _ = env.reset()
    genes = genes_of(env, obs["members"])
    graph = evaluator(env).batch.graph
    for node in range(34):
        near = genes.end[genes.start[node] : genes.start[node + 1]]
        assert torch.equal(near, graph.idx[graph.start[node] : graph.start[node] + graph.count[node]])
