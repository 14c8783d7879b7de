"""Seq2Sick's parts: active sets, the proximal steps, rounding, pruning; and that it rewrites headlines."""

import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym import attack
from advgym.agents.sequences.seq2sick import active_sets, ascend, rounded
from advgym.core.rng import Draws


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_active_sets_hold_each_site_once(data):
    cell = st.tuples(st.integers(0, 6), st.integers(0, 3))
    held = data.draw(st.lists(cell, max_size=3, unique_by=lambda e: e[0]))
    found = data.draw(st.lists(cell, max_size=8, unique=True))
    state = torch.tensor([[*held, *[(-1, -1)] * (3 - len(held))]])
    pool = torch.tensor([[*found, *[(-1, -1)] * (8 - len(found))]])
    edits, weights = active_sets(state, pool, 3, Draws(0, torch.tensor([4])))
    assert edits.shape == (1, 3, 3, 2) and weights.shape == (1, 3, 3)
    for p in range(3):
        rows = [tuple(e) for e in edits[0, p].tolist() if e[0] >= 0]
        assert len({s for s, _ in rows}) == len(rows) and set(rows) <= {*held, *found}
        assert len(rows) == min(3, len({s for s, _ in [*held, *found]}))
        for (site, choice), w in zip(edits[0, p].tolist(), weights[0, p].tolist(), strict=True):
            assert w == (0.0 if site < 0 else 1.0 if (site, choice) in held else 0.5) or (site, choice) in found
    # The first set keeps all that is held, then takes the best of what was found.
    kept = [tuple(e) for e in edits[0, 0].tolist()][: len(held)]
    assert kept == held


def test_the_lasso_empties_what_does_not_help():
    """On a linear victim every slope is constant: weights end at 1 where it beats the penalty, else at 0."""
    env = advgym.make(toy.task("edits", queries=1000, gradients=1000, least=True), 10, 2)
    env.reset(seed=1)
    found, gains = env.rank(env.threat.null(), k=12)
    edits, weights = active_sets(env.threat.null(), found, 2, env.draws(0))
    end = ascend(env, edits, weights, 12, 0.4, 0.15)
    assert ((end == 0) | (end == 1)).float().mean() > 0.8
    hard = rounded(env, edits, end)
    assert env.threat.check(hard).all()
    largest = hard[:, 0][(gains[:, 0] > 0) & env.live]
    assert (largest == found[(gains[:, 0] > 0) & env.live][:, :1]).all(2).any(1).all()  # the best edit is always kept


def test_a_success_is_pruned_where_the_least_is_wanted():
    task = toy.task("edits", queries=400, gradients=400, least=True)
    result = attack(task, "seq2sick", episodes=12, lanes=12)
    env = advgym.make(task, 12, 1)
    assert result.success_rate > 0.5 and env.reset(seed=0)
    for s in result.samples:
        if s.success:
            b = task.samples("test", [s.id])
            p = b.load([s.perturbation])
            ref = task.goal.output(task.victim(b.inputs(b.null())))
            rows = [r for r in range(p.shape[1]) if p[0, r, 0] >= 0]
            for r in rows if len(rows) > 1 else []:
                fewer = p.clone()
                fewer[0, r] = -1
                with torch.no_grad():
                    objective = task.goal.judge(task.victim(b.inputs(b.look(fewer).form)), ref, None)[0]
                assert objective.item() <= 1e-6 or s.queries >= 400, "an edit was kept that the success does not need"


@pytest.mark.parametrize(("goal", "least"), [("untargeted", 0.15), ("keyword", 0.3)])
def test_headlines_are_rewritten(goal, least):
    result = attack("text/synth-headline", "seq2sick", goal=goal, episodes=20, lanes=20, queries=120)
    assert result.success_rate >= least > result.control_rate and not [f for f in result.flags if "crashed" in f]
    assert all(len(s.perturbation["edits"]) <= 4 for s in result.samples if s.success)
