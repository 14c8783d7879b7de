"""Joint paraphrasing: its greedy search against plain Python, and what two budgets give together."""

import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym import attack, make_task
from advgym.agents.sequences.joint_paraphrase import _apart, lazy_greedy, open_edits, packed
from advgym.agents.shared.common import clean_fitness
from advgym.judge.evaluator import evaluator

SMALL = {"episodes": 40, "lanes": 20, "queries": 200, "gradients": 200}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_packed_lists_the_cells(seed, most):
    g = torch.Generator().manual_seed(seed)
    able, u = torch.rand(3, 4, 3, generator=g) < 0.4, torch.rand(3, 12, generator=g)
    edits = packed(able, most, u)
    for lane in range(3):
        want = able[lane].nonzero().tolist()
        got = [e for e in edits[lane].tolist() if e != [-1, -1]]
        assert all(e in want for e in got) and len(got) == len({tuple(e) for e in got})
        assert sorted(got) == want if int(able.flatten(1).sum(1).max()) <= most else len(got) <= most


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-1, 5), min_size=1, max_size=8), st.integers(1, 5))
def test_apart_keeps_the_first_edit_of_each_site(sites, most):
    edits = torch.tensor([[[s, 7 if s >= 0 else -1] for s in sites]])
    want = [s for s in dict.fromkeys(sites) if s >= 0][:most]
    assert _apart(edits, most)[0, :, 0].tolist() == want + [-1] * (most - len(want))


def naive(task, b, ref, sites):
    """Greedy that asks every open edit at `sites` at each step: fitness of the result."""

    def value(p):
        with torch.no_grad():
            objective, surrogate = task.goal.judge(task.victim(b.inputs(b.look(p).form)), ref, None)
        return torch.where(b.check(p), objective + 1e-4 * surrogate, -torch.inf)

    p, best = b.null(), value(b.null())
    for _ in range(int(b.limit.max())):
        top, pick = best.clone(), p
        for site, choice in b.mask().any(0).nonzero().tolist():
            if sites[site]:
                # Edits of a key in use are other choices of it, not new edits.
                free = ~(p[..., 0] == site).any(1)
                trial = b.compose(p, torch.tensor([[site, choice]]).expand(len(b), 2))
                v = torch.where(free, value(trial), -torch.inf)
                pick, top = torch.where((v > top).view(-1, 1, 1), trial, pick), torch.maximum(v, top)
        p, best = pick, top
    return best


def test_lazy_greedy_is_greedy_where_nothing_goes_stale():
    """With room to ask every edit again at each step it takes the steps of plain greedy search."""
    task = toy.task("edits", queries=10**6, least=True)
    cells = toy.SIZE * (toy.LEVELS - 1)
    env = advgym.make(task, 12, cells)
    obs, _ = env.reset(seed=3)
    null = env.threat.null()
    every = torch.ones(toy.SIZE, dtype=torch.bool)
    _, best, _ = lazy_greedy(env, null, null, clean_fitness(obs), every, 0)
    b = task.samples("test", evaluator(env).batch.ids.tolist())
    torch.testing.assert_close(best, naive(task, b, obs["output"][:, 0], every), rtol=1e-5, atol=1e-5)


def test_open_edits_are_new_and_live():
    env = advgym.make("text/synth-joint", 4)
    env.reset(seed=0)
    b, under = evaluator(env).batch, env.table.under
    for seed in range(5):
        p = env.threat.random(seed)
        able = open_edits(env, p)
        for lane in range(4):
            wording = b.worded(p[lane : lane + 1])[0].tolist()
            for site, choice in able[lane].nonzero().tolist():
                assert not (p[lane, :, 0] == site).any() and b.grid[lane, site, choice]
                if site >= b.sentences:
                    s, c = under[site].tolist()
                    assert wording[s] == c + 1
        lane, site, choice = able.nonzero(as_tuple=True)
        assert b.check(b.compose(p[lane], torch.stack([site, choice], 1), lane), lane).all()


@pytest.mark.parametrize("agent", ["joint-paraphrase", "joint-greedy"])
def test_both_budgets_together_beat_each_alone(agent):
    rates = [attack("text/synth-paraphrase", agent, sentences=s, words=w, **SMALL).success_rate
             for s, w in ((0, 3), (2, 0), (2, 3))]  # fmt: skip
    assert rates[2] >= 0.7 and rates[2] > rates[0] + 0.2 and rates[2] > rates[1] + 0.2, rates


@pytest.mark.parametrize("agent", ["joint-paraphrase", "joint-greedy"])
def test_words_alone_are_searched_too(agent):
    result = attack("text/synth-wordswap", agent, **SMALL)
    assert result.success_rate >= 0.75 and result.control_rate < 0.1
    assert (result.gradients_mean > 0) == (agent == "joint-paraphrase")


def test_any_edit_agent_plays_the_joint_table():
    task = make_task("text/synth-joint", queries=60, gradients=20)
    for agent in ("random-search", "greedy", "genetic", "first-order", "decision-search", "seq2sick"):
        result = attack(task, agent, episodes=8, lanes=8)
        assert result.invalid_rate == 0 and not [f for f in result.flags if "crashed" in f], result.flags
