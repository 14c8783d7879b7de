"""Attacks on nodes: the optimum by brute force, gradients by dense autograd, the test of degrees, what is public."""

import logging
import math

import pytest
import torch
import toy
from dense_graph import dense, flipped, margin, opened, run

from advgym import AdvgymError, attack, make, make_task, registry
from advgym.agents.graph.nettack import CUTOFF, Degrees, log_likelihood
from advgym.agents.search.exhaustive import every_edit
from advgym.agents.shared.targets import estimate_labels, known_labels, node_features, public_graph
from advgym.judge.evaluator import evaluator

NAMES = ("exhaustive", "dice", "l1d-rnd", "degree", "nettack", "sga", "fga", "rl-s2v")


# -- what is public --------------------------------------------------------------------------------
@pytest.mark.parametrize("task", ["graph/karate-edge", "graph/sbm-edge"])
@pytest.mark.parametrize("influence", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
def test_targets_are_read_off_the_table(task, influence, split):
    env = make(task, 16 if "karate" in task else 60, split=split, influence=influence, knowledge="decision")
    env.reset(options={"samples": list(range(env.num_envs))})
    graph = public_graph(env)
    assert graph.direct is not influence and torch.equal(graph.target, evaluator(env).batch.target)
    a, _ = dense(env)
    node = torch.arange(graph.size)
    assert torch.equal(graph.has(node.unsqueeze(1), node), a > 0) and torch.equal(graph.degree.double(), a.sum(1))
    assert torch.equal(graph.sum_neighbours(a.float()), (a @ a).float())


def test_other_tables_have_no_target():
    for task in ("graph/sbm-feature", toy.task("edits")):
        assert public_graph(opened(task)[0]) is None


def test_labels_are_estimated_from_what_is_known():
    env, obs = opened("graph/sbm-edge", 2, knowledge="decision")
    known, graph = known_labels(env, obs), public_graph(env)
    from advgym.envs.graph.data.datasets import load_nodes

    truth, hidden = load_nodes("sbm").labels, known < 0
    assert torch.equal(known[~hidden], truth[~hidden]) and 0 < hidden.sum() < len(truth)
    for x, least in ((node_features(env), 0.84), (None, 0.7)):
        guess = estimate_labels(graph, x, known)
        assert torch.equal(guess[~hidden], truth[~hidden])
        assert (guess == truth)[hidden].float().mean() > least


# -- exhaustive ------------------------------------------------------------------------------------
def test_exhaustive_is_the_optimum_of_one_edge():
    env, obs = opened(knowledge="score", edits=1, least=True)
    found = run("exhaustive", env)
    a, scores = dense(env)
    for lane, target in enumerate(evaluator(env).batch.target.tolist()):
        ref = int(obs["output"][lane])
        every = [margin(scores(flipped(a, [(target, u)]))[target], ref) for u in range(len(a)) if u != target]
        best = margin(scores(flipped(a, found[lane].tolist()))[target], ref)
        assert best >= max(every) - 1e-5


def test_exhaustive_by_labels_finds_every_target_that_one_edge_breaks():
    task, by = "graph/sbm-edge", {}
    for knowledge in ("decision", "score"):
        found = attack(task, "exhaustive", episodes=30, edits=1, knowledge=knowledge).samples
        by[knowledge] = {s.id: s.success for s in found}
    assert by["decision"] == by["score"] and any(by["score"].values()) and not all(by["score"].values())
    for name in ("fga", "first-order"):
        weaker = attack(task, name, episodes=30, edits=1, knowledge="white-box").samples
        assert all(by["score"][s.id] for s in weaker if s.success)


def test_exhaustive_steps_are_exact_on_top_of_the_last():
    env, obs = opened(knowledge="score", edits=2, least=True, lanes=6)
    found = run("exhaustive", env)
    a, scores = dense(env)
    for lane, target in enumerate(evaluator(env).batch.target.tolist()):
        ref = int(obs["output"][lane])
        others = [u for u in range(len(a)) if u != target]
        value = {u: float(margin(scores(flipped(a, [(target, u)]))[target], ref)) for u in others}
        first = max(value, key=value.get)
        second = max(
            float(margin(scores(flipped(a, [(target, first), (target, u)]))[target], ref)) for u in others if u != first
        )
        got = float(margin(scores(flipped(a, found[lane].tolist()))[target], ref))
        assert got == pytest.approx(max(value[first], second), abs=1e-5)


def test_exhaustive_says_what_it_needs(caplog):
    with pytest.raises(AdvgymError, match="needs 33 queries"):
        attack("graph/karate-edge", "exhaustive", queries=32, settings={"exact": True})
    assert attack("graph/karate-edge", "exhaustive", queries=33, settings={"exact": True}).queries_mean <= 33
    with caplog.at_level(logging.WARNING, "advgym"):
        assert attack("graph/karate-edge", "exhaustive", queries=10).queries_mean <= 10
    assert "only the first cells" in caplog.text


@pytest.mark.parametrize("influence", [False, True])
@pytest.mark.parametrize("task", ["graph/karate-edge", "graph/sbm-edge"])
def test_every_cell_of_the_table_is_listed_once(task, influence):
    env, _ = opened(task, 3, influence=influence)
    edits = every_edit(env, 10**9)
    size = env.table.sites
    for lane in range(3):
        cells = [tuple(e) for e in edits[lane].tolist() if e[0] >= 0]
        count = size - 1 if not influence else math.comb(size - 1, 2)
        assert len(cells) == len(set(cells)) == count
    pair = edits[:, :5].unsqueeze(2).expand(-1, -1, env.shape[0], -1).clone()
    pair[:, :, 1:] = -1
    assert env.threat.check(pair).all()
    if influence:
        assert (every_edit(env, 50)[..., 0] >= 0).sum(1).min() >= 50


# -- gradients -------------------------------------------------------------------------------------
def dense_gains(a, scores, target, weight):
    """First-order gain of each flip at the target, of a weighted sum of scores or a function of them."""
    leaf = a.clone().requires_grad_()
    out = scores(leaf)[target]
    (g,) = torch.autograd.grad(weight(out), leaf)
    gain = (g[target] + g[:, target]) * (1 - 2 * a[target])
    gain[target] = -torch.inf
    return gain


def test_fga_takes_the_largest_gradient_at_every_step():
    env, obs = opened(least=True, edits=2)
    found = run("fga", env)
    a, scores = dense(env)
    for lane, target in enumerate(evaluator(env).batch.target.tolist()):
        ref, now, taken = int(obs["output"][lane]), a, set()
        for edit in found[lane].tolist():
            gain = dense_gains(now, scores, target, lambda s, ref=ref: -s.log_softmax(0)[ref])
            gain[list(taken)] = -torch.inf
            assert edit[0] == target and gain[edit[1]] == pytest.approx(float(gain.max()), abs=1e-6)
            taken.add(edit[1])
            now = flipped(now, [edit])


def test_fga_asks_twice_an_edge_and_tries_nothing_else():
    result = attack("graph/sbm-edge", "fga", episodes=20)
    assert result.success_rate > 0.7 and result.queries_mean <= 6 and result.gradients_mean <= 3


def test_sga_stays_in_its_subgraph():
    env, obs = opened("graph/sbm-edge", 20, knowledge="transfer")
    found = run("sga", env)
    a, scores = dense(env, surrogate=True)
    guess = estimate_labels(public_graph(env), node_features(env), known_labels(env, obs))
    for lane, target in enumerate(evaluator(env).batch.target.tolist()):
        ref = int(obs["output"][lane])
        value = obs["scores"][lane].clone()
        value[ref] = -torch.inf
        wrong = int(value.argmax())
        gain = dense_gains(a, scores, target, lambda s, w=wrong, r=ref: s[w] - s[r])
        adds = torch.where((guess == wrong) & (a[target] == 0), gain, -torch.inf)
        attackers = set(adds.topk(3).indices.tolist())
        cells = [u for s, u in found[lane].tolist() if s >= 0]
        assert len(cells) == 3 and all(a[target, u] or u in attackers for u in cells)
        allowed = [u for u in range(len(a)) if a[target, u] or u in attackers]
        assert float(gain[cells[0]]) == pytest.approx(max(float(gain[u]) for u in allowed), abs=1e-6)


# -- nettack ---------------------------------------------------------------------------------------
def by_hand(degrees):
    tail = [d for d in degrees if d >= 2]
    n, s = len(tail), sum(math.log(d) for d in tail)
    alpha = 1 + n / (s - n * math.log(1.5))
    return n, s, n * math.log(alpha) + n * alpha * math.log(2) - (alpha + 1) * s


def test_the_test_of_degrees_is_the_papers():
    env, _ = opened("graph/sbm-edge", 4, knowledge="decision")
    graph, (a, _) = public_graph(env), dense(env)
    test, edits = Degrees(graph, 4), every_edit(env, 10**9)
    n0, s0, l0 = by_hand(a.sum(1).tolist())
    assert float(log_likelihood(*(torch.tensor(v, dtype=torch.float64) for v in (n0, s0)))) == pytest.approx(l0)
    now = [a] * 4
    for step in (5, 80, 200):
        got = test.statistic(edits)
        for lane in range(4):
            for m in (0, 33, 150, 298):
                n1, s1, l1 = by_hand(flipped(now[lane], [edits[lane, m].tolist()]).sum(1).tolist())
                n, s = torch.tensor(n0 + n1, dtype=torch.float64), torch.tensor(s0 + s1, dtype=torch.float64)
                assert float(got[lane, m]) == pytest.approx(-2 * float(log_likelihood(n, s)) + 2 * (l0 + l1), abs=1e-6)
        test.take(edits[:, step])
        now = [flipped(now[lane], [edits[lane, step].tolist()]) for lane in range(4)]
        assert torch.equal(test.degree.double(), torch.stack([b.sum(1) for b in now]))


def test_nettack_is_greedy_and_exact_on_the_surrogate():
    env, obs = opened("graph/sbm-edge", 2, knowledge="transfer", edits=2, queries=700)
    found = run("nettack", env, unnoticeable=False)
    a, scores = dense(env, surrogate=True)
    for lane, target in enumerate(evaluator(env).batch.target.tolist()):
        ref, now, taken = int(obs["output"][lane]), a, {target}
        for edit in found[lane].tolist():
            value = {
                u: float(margin(scores(flipped(now, [(target, u)]))[target], ref))
                for u in range(len(a))
                if u not in taken
            }
            assert value[edit[1]] == pytest.approx(max(value.values()), abs=1e-5)
            taken.add(edit[1])
            now = flipped(now, [edit])


def test_nettack_goes_unnoticed_and_uses_its_budget():
    env, _ = opened("graph/sbm-edge", 12, knowledge="transfer", queries=1000)
    found, graph = run("nettack", env), public_graph(env)
    test = Degrees(graph, 12)
    for row in range(found.shape[1]):
        edit = found[:, row]
        assert ((test.statistic(edit.unsqueeze(1)).squeeze(1) < CUTOFF) | (edit[:, 0] < 0)).all()
        test.take(edit)
    assert (found[..., 0] >= 0).float().mean() > 0.9


def test_nettack_needs_scores():
    with pytest.raises(AdvgymError, match="nettack reads scores"):
        attack("graph/karate-edge", "nettack", knowledge="decision")


def test_nettack_by_influence_starts_at_neighbours():
    env, _ = opened("graph/sbm-edge", 8, knowledge="transfer", influence=True, edits=2, queries=2500)
    found, graph = run("nettack", env, influencers=3), public_graph(env)
    assert env.threat.check(found).all() and (found[..., 0] >= 0).any()
    near = graph.beside(graph.target)
    for lane in range(8):
        for a, b in found[lane].tolist():
            assert a < 0 or near[lane, a] or near[lane, b]


# -- by the public graph alone ---------------------------------------------------------------------
@pytest.mark.parametrize("to", ["high", "low"])
def test_degree_joins_the_extremes(to):
    env, _ = opened("graph/sbm-edge", 10, knowledge="decision")
    found, graph = run("degree", env, to=to), public_graph(env)
    near = graph.beside(graph.target)
    near.scatter_(1, graph.target.unsqueeze(1), True)
    sign = 1 if to == "high" else -1
    for lane in range(10):
        best = sorted((sign * graph.degree[~near[lane]]).tolist(), reverse=True)[:3]
        assert sorted((sign * graph.degree[found[lane, :, 1]]).tolist(), reverse=True) == best
        assert not near[lane, found[lane, :, 1]].any()
    with pytest.raises(AdvgymError, match="did you mean 'high'"):
        run("degree", opened(knowledge="decision")[0], to="hihg")


def test_dice_cuts_inside_and_joins_outside():
    env, obs = opened("graph/sbm-edge", 25, knowledge="decision")
    graph = public_graph(env)
    label = estimate_labels(graph, node_features(env), known_labels(env, obs))
    own = label == obs["output"].unsqueeze(1)
    near, lane = graph.beside(graph.target), torch.arange(25)
    joins = run("dice", env, cut=0.0)
    for e in range(3):
        assert not near[lane, joins[:, e, 1]].any() and not own[lane, joins[:, e, 1]].any()
    cuts = run("dice", opened("graph/sbm-edge", 25, knowledge="decision")[0], cut=1.0)
    enough = (near & own).sum(1) >= 3
    assert enough.any()
    for e in range(3):
        at = cuts[enough, e, 1]
        assert near[lane[enough], at].all() and own[lane[enough], at].all()


def test_l1d_rnd_takes_the_largest_of_a_part():
    env, _ = opened("graph/sbm-edge", 25, knowledge="decision", edits=1)
    graph, x, lane = public_graph(env), node_features(env), torch.arange(25)
    near, (a, _) = graph.beside(graph.target), dense(env)
    norm = ((a.float() + torch.eye(len(a))) @ x).sum(1)
    found = run("l1d-rnd", env, add=0.0, part=1.0)[:, 0, 1]
    some = near.any(1)
    assert near[lane, found][some].all()
    assert torch.equal(norm[found][some], torch.where(near, norm, -1.0).amax(1)[some])
    found = run("l1d-rnd", opened("graph/sbm-edge", 25, knowledge="decision", edits=1)[0], add=1.0)[:, 0, 1]
    assert not near[lane, found].any() and graph.degree[found].mean() > graph.degree.mean() + 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{"influence": True}, {"singletons": False}, {"goal": "targeted"}])
def test_every_graph_agent_plays_the_options_of_the_tasks(name, options):
    for knowledge in {registry.agent(name).knowledge, "transfer", "white-box"}:
        result = attack("graph/karate-edge", name, knowledge=knowledge, lanes=20, **options)
        assert result.attacked and result.invalid_rate == 0 and not any("crashed" in f for f in result.flags)


def test_more_knowledge_breaks_more():
    rate = {
        n: attack("graph/sbm-edge", n, episodes=60).success_rate
        for n in ("degree", "l1d-rnd", "dice", "fga", "sga", "nettack")
    }
    assert min(rate[n] for n in ("fga", "sga", "nettack")) > 2 * max(rate[n] for n in ("degree", "l1d-rnd", "dice"))


@pytest.mark.realdata
def test_exhaustive_breaks_what_one_edge_can_on_cora(data_dir):
    task = make_task("graph/cora-edge", edits=1, knowledge="score", queries=2707)
    result = attack(task, "exhaustive", episodes=40, lanes=40, settings={"exact": True})
    first = attack("graph/cora-edge", "first-order", episodes=40, lanes=40, edits=1)
    broken = {s.id for s in result.samples if s.success}
    assert {s.id for s in first.samples if s.success} <= broken and 0 < len(broken) < result.attacked
